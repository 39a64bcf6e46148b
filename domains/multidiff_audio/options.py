"""What sound adds to `multidiff generate`; imported before torch is, so that `--help` and errors come at once."""

from __future__ import annotations

import argparse
import math
from typing import Any

from multidiff.cli.options import NotInFile, add_prompts, existing_file, one_of, whole
from multidiff_audio.request import COLUMNS

EXAMPLES = """
prompts and files:
  multidiff generate audio "seven, spoken by theo" --num-samples 4 --out seven/
  multidiff generate audio "one" "two" "three" -n 6 --out counting/          two of each, taken in turn
  multidiff generate audio --prompts prompts.csv -n 50 --out many/           prompt, negative_prompt, duration
  multidiff generate audio "a dog barks" --checkpoint audio-sounds --duration 3 --out dog/

starting from a sound:
  multidiff generate audio "nine" --init me.wav --strength 0.6 --out nine/   sound to sound
  multidiff generate audio "rain" --checkpoint audio-sounds --init rain.wav --inpaint 0.5:0.9 --out mended/
  multidiff generate audio "rain" --checkpoint audio-sounds --init rain.wav --extend 1.5 --out longer/
  multidiff generate audio "rain" --checkpoint audio-sounds --duration 2 --loop --out loop/
  multidiff generate audio "seven" --follow hum.wav --curves pitch,loudness --out tune/
  multidiff generate audio "seven" --variations-of 3 --variation-strength 0.2 --out like-3/
"""


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Prompts, length, sounds to start from, and how the files are written."""
    parser.epilog = (parser.epilog or "") + "\n" + EXAMPLES
    add = parser.add_argument
    add_prompts(parser, COLUMNS)
    add("--duration", type=seconds, action=NotInFile, metavar="S",
        help="seconds (default: as fits the prompt, or as long as --init)")  # fmt: skip
    add("--class", dest="classes", type=_class, action=_Classes, metavar="NAME=VALUE",
        help="a class of the checkpoint, such as speaker=theo; repeatable")  # fmt: skip
    add("--init", type=existing_file, metavar="FILE", help="a sound to start from: WAV, FLAC, OGG or MP3 of any rate")
    add("--strength", type=_share, metavar="X", help="how far from --init: above 0, up to 1 (default 0.6)")
    add("--inpaint", type=region, action="append", metavar="A:B",
        help="make this part of --init anew, in seconds; 'A:' is to its end; repeatable")  # fmt: skip
    add("--extend", type=seconds, metavar="S", help="go on for S seconds after the end of --init")
    add("--loop", action="store_const", const=True, help="the end meets the start")
    add(
        "--stereo",
        action="store_const",
        const=True,
        help="two channels; a mono checkpoint makes two takes",
    )
    add(
        "--follow", type=existing_file, metavar="FILE", help="a sound whose loudness, pitch and brightness are followed"
    )
    add("--curves", dest="follow_curves", type=_names, metavar="NAMES",
        help="which of them: loudness,pitch,brightness (default: all)")  # fmt: skip
    add("--variations-of", type=whole(0), metavar="N", help="make variations of sample N of the same seed")
    add("--variation-strength", type=_share, metavar="X", help="how far from it, up to 1 (default 0.3)")
    add("--grid", metavar="NAME", help="see 'multidiff list grids' (default: the checkpoint's)")
    add("--format", type=one_of("format", ["wav", "flac"]), metavar="wav|flac", help="of the files (default wav)")
    add("--bit-depth", type=one_of("bit depth", ["16", "24", "float"]), metavar="16|24|float",
        help="of the files (default 16; float in WAV alone)")  # fmt: skip
    add("--loudness", type=loudness, metavar="LUFS|keep", help="of the files (default -20; of --init: keep)")


def seconds(text: str) -> float:
    """A type for argparse: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be seconds, above 0, not {text[:40]!r}")
    return value


def region(text: str) -> tuple[float, float | None]:
    """A type for argparse: START:END in seconds; the end may be left out."""
    start, colon, end = text.partition(":")
    try:
        found = (float(start or 0), float(end) if end else None)
    except ValueError:
        colon = ""
    if not colon:
        raise argparse.ArgumentTypeError(f"must be START:END in seconds, such as 0.5:0.9, not {text[:40]!r}")
    return found


def loudness(text: str) -> float | str:
    """A type for argparse: LUFS from -50 to 0, or "keep"."""
    if text == "keep":
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -50 <= value <= 0:
        raise argparse.ArgumentTypeError(f"must be LUFS from -50 to 0, or keep, not {text[:40]!r}")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {text[:40]!r}")
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _class(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, such as speaker=theo, not {text[:40]!r}")
    return name, value


class _Classes(argparse.Action):
    """Gathers NAME=VALUE pairs into one mapping."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest) or {}), values[0]: values[1]})
