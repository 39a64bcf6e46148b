"""What video adds to `multidiff generate`; imported before torch is, so that `--help` and errors come at once."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from multidiff.cli.options import NotInFile, add_prompts, one_of, whole
from multidiff_video.request import COLUMNS

FORMATS = ("mp4", "gif", "webp", "png")

EXAMPLES = """
prompts and files:
  multidiff generate video "a 3 moving left and a 7 bouncing up and down" --num-samples 4 --out out/
  multidiff generate video "a 1 moving up" "a 2 moving down" -n 6 --out two/     three of each, taken in turn
  multidiff generate video --prompts prompts.csv -n 50 --out many/               prompt, negative_prompt, frames
  multidiff generate video "a 5 moving right" --format gif --scale 2 --fps 10 --out gif/
  multidiff generate video "a 5 moving right" --frames 1 --out picture/          a picture, as PNG

longer, and around frames that are given:
  multidiff generate video "a 3 bouncing left and right" --frames 64 --out long/
  multidiff generate video "a 3 moving left" --init three.png --out from-a-picture/
  multidiff generate video --init clip.mp4 --context 4 --frames 32 --out continued/
  multidiff generate video --keyframe a.png@0 --keyframe b.png@15 --out between/
"""


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Prompts, length, frames that are given, and how the files are written."""
    parser.epilog = (parser.epilog or "") + "\n" + EXAMPLES
    add_prompts(parser, COLUMNS)
    add = parser.add_argument
    add("--frames", type=whole(1), action=NotInFile, metavar="N",
        help="of each clip (default: the checkpoint's); 1 makes a picture")  # fmt: skip
    add("--fps", type=rate, metavar="R", help="frames a second of the files (default: the checkpoint's)")
    add("--size", type=size, metavar="N|HxW", help="pixels that are generated (default: the checkpoint's)")
    add("--init", type=existing, metavar="FILE",
        help="a picture to begin with, or a clip, or a folder of frames, whose last ones are continued")  # fmt: skip
    add("--keyframe", dest="keyframes", type=keyframe, action="append", metavar="FILE@INDEX",
        help="a picture that is frame INDEX, from 0, or -1 for the last; the rest is made; repeatable")  # fmt: skip
    add("--context", type=whole(1), metavar="N",
        help="frames of --init that are continued, and that the windows of a long clip share")  # fmt: skip
    add("--grid", metavar="NAME", help="see 'multidiff list grids' (default: the checkpoint's)")
    add("--format", type=one_of("format", FORMATS), metavar="mp4|gif|webp|png",
        help="of the files (default mp4; png, the frames in a folder, for pictures)")  # fmt: skip
    add("--scale", type=whole(1, 256), metavar="N",
        help="files N times larger than what is generated (default: 256 pixels or more; png as generated)")  # fmt: skip
    add("--preview-every", type=whole(1), metavar="N",
        help="show what is being made in preview.png, every N steps")  # fmt: skip


def existing(text: str) -> str:
    """A type for argparse: the path of a file, or of a folder of frames, that is there."""
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"no file {text}")
    return text


def rate(text: str) -> float:
    """A type for argparse: frames a second, from 0.01 to 1000."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.01 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"must be frames a second, from 0.01 to 1000, not {text[:40]!r}")
    return value


def size(text: str) -> tuple[int, int]:
    """A type for argparse: "64" or "48x64" -> (height, width) in pixels."""
    parts = text.lower().split("x")
    pixels = [int(part) for part in parts if part.isascii() and part.isdecimal() and len(part) < 6]
    if len(pixels) != len(parts) or len(parts) > 2 or min(pixels) < 1:
        raise argparse.ArgumentTypeError(
            f"must be pixels a side, such as 64, or height x width, such as 48x64, not {text[:40]!r}"
        )
    return pixels[0], pixels[-1]


def keyframe(text: str) -> tuple[str, int]:
    """A type for argparse: "a.png@15" -> ("a.png", 15); frames are counted from 0, negative ones from the end."""
    path, at, number = text.rpartition("@")
    try:
        index = int(number)
    except ValueError:
        at = ""
    if not (at and path):
        raise argparse.ArgumentTypeError(f"must be FILE@INDEX, such as a.png@15, not {text[:80]!r}")
    return existing(path), index
