"""Where sound files lie."""

from __future__ import annotations

from pathlib import Path

from multidiff import sources
from multidiff.errors import InputError
from multidiff.sources import Sources, Wanted
from multidiff_audio.sound import SUFFIXES, UNREADABLE

WANTED = Wanted("sound", SUFFIXES, UNREADABLE, "convert them to WAV or FLAC")


def find(path: Path) -> Sources:
    """What there is in a folder (searched through), an archive, or one file.

    Raises:
        InputError: see `multidiff.sources.find`; or it is a packed data set.
    """
    if path.suffix.lower() == ".npz" and path.is_file():
        raise InputError(f"{path} is packed already; give a folder, an archive or a sound file")
    return sources.find(path, WANTED)
