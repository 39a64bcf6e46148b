"""Captions come from the tables that people have, and many phrasings from few columns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from multidiff.conditioning.text import words
from multidiff.errors import InputError
from multidiff_audio import captions, domain, templates
from multidiff_audio.captions import Row, Table, matched, parse

CONFIGS = domain.folder / "configs"


def table(text: str, name: str = "captions.csv") -> Table:
    return parse(text.encode(), name)


@pytest.mark.parametrize("column", ["file", "path", "filename", "file_name", "File", " FILE_NAME "])
@pytest.mark.parametrize("caption", ["caption", "text", "prompt", "Caption"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_by_any_of_its_usual_names(column: str, caption: str, delimiter: str) -> None:
    lines = [[column, caption, "speaker"], ["a.wav", "a dog barks", "rex"], ["b.wav", "", "tom"]]
    read = table("\n".join(delimiter.join(line) for line in lines))
    assert read.rows["a.wav"].captions == ("a dog barks",)
    assert read.rows["a.wav"].fields["speaker"] == "rex"
    assert read.rows["b.wav"].captions == ()
    assert "file" not in read.columns


def test_json_lines_are_the_same_table_as_csv() -> None:
    records = [{"file": "x/a.wav", "caption": "one, two", "n": 3}, {"file": "b.wav", "caption": "drei", "n": 4}]
    lines = "\n".join(json.dumps(record) for record in records)
    assert table(lines, "metadata.jsonl") == table('file,caption,n\nx/a.wav,"one, two",3\nb.wav,drei,4\n')


def test_byte_order_marks_crlf_and_backslashes_are_no_matter() -> None:
    read = table('\ufefffile,caption\r\ndogs\\a.wav,"a\r\ndog"\r\n')
    assert read.rows == {"dogs/a.wav": Row(("a dog",), {"caption": "a dog"})}


def test_several_captions_of_a_file_are_all_kept() -> None:
    numbered = table("file_name,caption_1,caption_2\na.wav,one,two\n")
    repeated = table("file_name,caption\na.wav,one\na.wav,two\na.wav,one\n")
    listed = table('{"file": "a.wav", "captions": ["one", "two"]}', "captions.jsonl")
    assert numbered.rows["a.wav"].captions == repeated.rows["a.wav"].captions == listed.rows["a.wav"].captions
    assert numbered.rows["a.wav"].captions == ("one", "two")


def test_lines_that_cannot_be_used_are_named_and_the_others_kept() -> None:
    read = table("file,caption\na.wav,a dog, barking\nb.wav,a cat\n,no name\n")
    assert list(read.rows) == ["b.wav"]
    assert [line.partition(" ")[0] for line in read.left_out] == ["captions.csv:2", "captions.csv:4"]
    lines = table('{"file": "a.wav", "caption": "x"}\n{"file": \n[1]\n', "captions.jsonl")
    assert list(lines.rows) == ["a.wav"]
    assert len(lines.left_out) == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"name,caption\na.wav,x\n", "no column 'file'.*its columns are name, caption"),
        (b"file,caption\n\xff\xfe,x\n", "not UTF-8"),
        (b"", "no row"),
        (b"file,caption\n", "no row"),
        (b"file,caption\n,x\n", "no row that could be used: captions.csv:2 names no file"),
    ],
)
def test_tables_without_use_are_refused(content: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why) as refused:
        parse(content, "captions.csv")
    assert "\n" not in str(refused.value)


def test_names_fit_exactly_or_by_their_end_but_never_ambiguously() -> None:
    sources = ["dogs/a.wav", "cats/a.wav", "cats/b.flac", "c.wav", "d.wav", "e.wav"]
    names = ["dogs/a.wav", "a.wav", "my_sounds/cats/b.flac", "C", "x/d.wav", "y/d.wav", "x/e.wav", "e.wav", "f.wav"]
    read = table("file,caption\n" + "".join(f"{name},{i}\n" for i, name in enumerate(names)))
    rows, missing = matched(read, sources)
    assert {source: row.captions for source, row in rows.items()} == {
        "dogs/a.wav": ("0",),
        "cats/b.flac": ("2",),
        "c.wav": ("3",),
        "e.wav": ("7",),
    }
    assert missing == ["a.wav", "x/d.wav", "y/d.wav", "x/e.wav", "f.wav"]


def test_splits_by_their_usual_names() -> None:
    assert [captions.split_of(name, "a") for name in ("train", "Validation", "val", "test", " eval ")] == [
        0,
        1,
        1,
        2,
        2,
    ]
    with pytest.raises(InputError, match=r"split 'fold3' of a\.wav is unknown; allowed: train, validation, test"):
        captions.split_of("fold3", "a.wav")


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
    read = table("file,word,speaker\na.wav,one,\n")
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
