"""A data set for training, from whatever a path leads to."""

from __future__ import annotations

import sys
from pathlib import Path

from multidiff_video import packing
from multidiff_video.framing import Size
from multidiff_video.lazy import LazyVideos
from multidiff_video.packed import PackedVideos
from multidiff_video.sources import find, is_packed


def open_videos(
    path: str | Path,
    fps: float | None = None,
    size: Size = 64,
    gray: bool = False,
    cache: str | Path | None = None,
    captions: str | Path | None = None,
) -> PackedVideos | LazyVideos:
    """A data set for training: a packed folder as it is, or videos that are decoded as they are needed.

    What was skipped, and why, goes to stderr.

    Args:
        path: a packed folder, a folder of videos, pictures and folders of frames, a video; with `cache` an archive too.
        fps: frames a second that videos are brought to; the most frequent rate by default.
        size: of the frames.
        gray: make the frames gray.
        cache: a folder in which the decoded frames are kept, in place of decoding them each time.
        captions: see `sources.find`.

    Raises:
        InputError: see `sources.find`; an option is out of range; or nothing could be used.
    """
    path = Path(path)
    if is_packed(path):
        return PackedVideos.load(path)
    rules = packing.Rules(fps=fps, size=size, gray=gray)
    packing.check(rules)
    found = find(path, captions)
    if cache is not None:
        return packing.kept(found, rules, Path(cache))
    videos = LazyVideos(found, rules)
    print("\n".join(videos.report()), file=sys.stderr)
    return videos
