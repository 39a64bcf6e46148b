"""What a prompt asks for, in the classes of a judge: "seven, spoken by theo" is the word seven and the speaker theo."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from multidiff_audio.clips import PackedClips

NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Asked = dict[str, str]
"""Attribute -> the name of the class that is asked for; what a prompt leaves open is not in it."""

_ENDINGS = re.compile(r"(?<=\w\w\w)(?:ings?|e[sd]?|s|er)$")


class Reader:
    """Reads prompts.

    A prompt that is one of the reference's captions asks for what all clips of that caption are. Any other asks for
    the class of each attribute whose name has the most of its words in the prompt, numerals being words; where two
    have as many, it asks for neither.

    Args:
        classes: attribute -> names, as a judge has them.
        clips: real sounds with captions.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]], clips: PackedClips | None = None) -> None:
        self.stems = {a: {name: _stems(name) for name in names} for a, names in classes.items()}
        self.captions = {} if clips is None else _by_caption(clips, classes)

    def __call__(self, prompt: str) -> Asked:
        """What is asked for."""
        known = self.captions.get(_plain(prompt))
        return dict(known) if known is not None else self.names(prompt)

    def names(self, text: str, first: bool = False) -> Asked:
        """The classes whose names stand in `text`.

        Args:
            first: of several of one attribute take the one that is named first; for file names, 0_theo_1.wav.
        """
        said = _stems(text)
        asked = {}
        for attribute, classes in self.stems.items():
            found = {name: sum(word in said for word in words) / len(words) for name, words in classes.items() if words}
            best = [name for name, share in found.items() if share == max(found.values()) > 0]
            if len(best) == 1 or (first and best):
                asked[attribute] = min(best, key=lambda name: min(said.index(w) for w in classes[name] if w in said))
        return asked


def _by_caption(clips: PackedClips, classes: Mapping[str, Sequence[str]]) -> dict[str, Asked]:
    """Caption -> what all clips of that caption are."""
    held: dict[str, dict[str, set[str]]] = {}
    for attribute in classes.keys() & clips.attributes.keys():
        of = clips.attributes[attribute]
        for phrasings, value in zip(clips.captions, of.values, strict=True):
            for phrasing in phrasings:
                there = held.setdefault(_plain(phrasing), {}).setdefault(attribute, set())
                there.add(of.classes[value] if value >= 0 else "")
    return {
        caption: {a: min(values) for a, values in found.items() if len(values) == 1 and "" not in values}
        for caption, found in held.items()
    }


def _plain(text: str) -> str:
    return " ".join(_words(text))


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = re.findall(r"[^\W_]+", plain)
    return [NUMERALS[int(w)] if len(w) == 1 and w in "0123456789" else w for w in words]


def _stems(text: str) -> list[str]:
    """The words without the endings that a verb or a plural has: barks, barking; waves, wave."""
    return [_ENDINGS.sub("", word) for word in _words(text)]
