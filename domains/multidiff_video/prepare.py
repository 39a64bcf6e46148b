"""`multidiff prepare video INPUT OUTPUT`: videos and what is said of them to one packed data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from multidiff.errors import InputError
from multidiff.files import refuse_others
from multidiff_video import packing, sources
from multidiff_video.framing import Size
from multidiff_video.packed import NAMES
from multidiff_video.packing import Rules


def prepare(
    input: str | Path,
    output: str | Path,
    *,
    fps: float | None = None,
    size: int | str | tuple[int, int] = 64,
    frames: int | None = None,
    gray: bool = False,
    crop: str = "center",
    captions: str | Path | None = None,
    validation: float = 0.05,
) -> str:
    """Pack the videos and pictures of `input` into the folder `output`, and tell what became of each.

    Captions come from tables that lie with the files (`captions.NAMES`), from texts beside them (a.txt beside a.mp4, a
    caption a line), from the table named, or, without any, from the names of folders; a column "split", or else folders
    of these names, tell train, validation and test apart. A file that cannot be used is skipped and named.

    Args:
        input: folder (searched through), archive (.tar, .tar.gz, .zip), or one file.
        output: the folder to write; one that was written before is replaced.
        fps: frames a second; by default the most frequent rate of the files.
        size: pixels: of a square, or "WIDTHxHEIGHT", or (height, width).
        frames: cut videos into windows of so many; shorter ones are skipped, single pictures are kept.
        gray: one channel, not three.
        crop: "center" (the middle of the picture fills the frame), "pad" (all of it, on black) or "stretch".
        captions: a table, CSV or JSON lines; "none" for no captions but the folders' names.
        validation: share of the training files, where no split names validation; by a hash of the file's name.

    Returns:
        The report.

    Raises:
        InputError: an option is wrong, nothing in `input` could be used, or `output` cannot be written.
    """
    rules = Rules(fps, _size(size), frames, gray, crop, validation)
    packing.check(rules)
    target = Path(output)
    refuse_others(target, NAMES)
    _, report = packing.packed(sources.find(Path(input), captions), rules, target)
    return f"{report}\nwritten: {target}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `multidiff prepare video`, named as the keywords of `prepare`."""
    add = parser.add_argument_group("video").add_argument
    table = "CSV or JSON lines with columns file, caption, split and any others; 'none' for the folders' names"
    found = "(default: captions or metadata .csv or .jsonl among the files, and a.txt beside a.mp4)"
    windows = "cut videos into windows of so many and skip shorter ones (default: keep them whole)"
    crops = "'center': the middle of the picture fills the frame; 'pad': all of it, on black; 'stretch'"
    share = "of the training files, by a hash of the name, where no split names validation (default: 0.05)"
    add("--fps", type=float, metavar="RATE", help="frames a second (default: the most frequent rate of the files)")
    add("--size", metavar="PIXELS", help="of a square, or WIDTHxHEIGHT (default: 64)")
    add("--frames", type=int, metavar="N", help=windows)
    add("--gray", action="store_true", default=None, help="one channel instead of three")
    add("--crop", metavar="HOW", help=f"{crops} (default: center)")
    add("--captions", metavar="FILE", help=f"{table} {found}")
    add("--validation", type=float, metavar="SHARE", help=share)


def _size(value: int | str | tuple[int, int]) -> Size:
    if not isinstance(value, str):
        return value
    sides = value.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise InputError(f"--size {value} is not allowed; give pixels of a square, as in 64, or WIDTHxHEIGHT")
    return int(sides[0]) if len(sides) == 1 else (int(sides[1]), int(sides[0]))
