"""Many phrasings from few columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from multidiff.captions import parse
from multidiff.conditioning.text import words
from multidiff.errors import InputError
from multidiff_audio import domain, templates

CONFIGS = domain.folder / "configs"


def test_templates_are_filled_from_columns_mappings_and_all_alternatives() -> None:
    made = templates.parse(
        """# a comment {not a field}
        {word}, spoken by {speaker}
        {Word} with {voice}
        {accent}
        voice from accent: GRC/Greek = a Greek accent | a Greek voice
        accent: GRC/Greek = Greek
        accent: USA/neutral =
        """
    )
    assert made.fill({"word": "one", "speaker": "theo", "accent": "GRC/Greek"}) == (
        "one, spoken by theo",
        "one with a Greek accent",
        "one with a Greek voice",
        "Greek",
    )
    # a value without a mapping stands for itself, but makes no field of its own; an empty text is no text
    assert made.fill({"word": "one", "accent": "French"}) == ("French",)
    assert made.fill({"accent": "USA/neutral"}) == ()
    assert made.fill({}) == ()


def test_values_from_a_table_are_never_templates_themselves() -> None:
    made = templates.parse("{a} {b}")
    assert made.fill({"a": "{b} \\1", "b": "%s"}) == ("{b} \\1 %s",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{word", "digits.txt:1: '{word' has a brace without its partner"),
        ("{caption}\n{}", "digits.txt:2: '{}'"),
        ("a dog barks", "has no field"),
        ("# nothing\nword: one = 1", "has no phrasing"),
        ("{x}\nx from a: 1 = 2\nx from b: 1 = 2", "digits.txt:3: field 'x' is already made from 'a'"),
    ],
)
def test_templates_that_say_nothing_are_refused(text: str, why: str) -> None:
    with pytest.raises(InputError, match=re.escape(why)):
        templates.parse(text, "digits.txt")


def test_fields_that_no_column_has_are_refused_with_the_columns_there_are() -> None:
    read = parse(b"file,word,speaker\na.wav,one,\n", "captions.csv")
    templates.parse("{word} by {speaker}").check(read)
    for text in ("{word} by {singer}", "{x}\nx from singer: theo = Theo"):
        with pytest.raises(InputError, match="no column 'singer'; there are word, speaker"):
            templates.parse(text).check(read)


def test_files_of_templates_that_are_not_there_or_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.txt", tmp_path / "bytes.txt", tmp_path):
        with pytest.raises(InputError, match="cannot read the templates"):
            templates.read(path)


def said(name: str, **fields: str) -> set[str]:
    """What the shipped templates say of a row, as a vocabulary reads it."""
    return {" ".join(words(text)) for text in templates.read(CONFIGS / name).fill(fields)}


def test_shipped_phrasings_of_digits_hold_what_people_write() -> None:
    row = {"digit": "7", "word": "seven", "speaker": "theo", "gender": "male", "accent": "DEU/German"}
    phrasings = said("digits.captions.txt", **row, caption="A man with a German accent says the digit seven.")
    asked = "seven|7|seven, spoken by theo|theo says seven|the digit 7 said by a man with a German accent"
    asked += "|a German accent: seven|say seven|Number seven in theo's voice!|the word seven|theo|a German accent"
    assert {" ".join(words(text)) for text in asked.split("|")} <= phrasings
    assert len(phrasings) >= 25
    assert not any("DEU" in text or "{" in text for text in phrasings)


def test_shipped_phrasings_of_sounds_know_every_class() -> None:
    classes = "dog bark|rain|sea waves|baby cry|clock tick|person sneeze|helicopter|chainsaw|rooster|fire crackling"
    phrasings = {name: said("sounds.captions.txt", **{"class": name}) for name in classes.split("|")}
    assert {"dog bark", "a dog barks", "a dog barking", "the sound of a dog barking"} <= phrasings["dog bark"]
    for name, texts in phrasings.items():
        assert len(texts) >= 25
        others = set().union(*(phrasings[other] for other in phrasings if other != name))
        assert not texts & others  # a prompt means one kind of sound
