"""MP4 files that play anywhere, and the comment in one."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from multidiff.errors import InputError

CRF = 18
"""Of x264: hardly to be told from what was put in. 0 would be lossless, in a profile that browsers do not play."""

_COLOURS = (
    # Spelled out and written into the file: a player that has to guess shows other colours.
    "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp,"
    "format=yuv420p,setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
_LONGEST = 1 << 20  # bytes of a comment


def write_mp4(path: Path, clip: np.ndarray, fps: float, tags: Mapping[str, str]) -> None:
    """H.264, yuv420p, its index in front, so that it starts to play before all of it is there.

    The same clip is the same file, whatever the number of processor cores: one thread encodes.

    Args:
        path: overwritten; its suffix does not matter.
        clip: (frames, height, width, channels) uint8, the sides even.
        fps: frames a second.
        tags: "title" and "comment", without control characters.

    Raises:
        OSError: the disk is full.
        InputError: there is no ffmpeg, or it refuses.
    """
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            _command(path, clip, fps, tags), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=told
        )
        assert process.stdin is not None
        try:
            for frame in clip:
                process.stdin.write(frame.tobytes())
            process.stdin.close()
        except BrokenPipeError:  # it says why below
            pass
        except BaseException:
            process.kill()
            raise
        finally:
            failed = process.wait()
        told.seek(0)
        said = " ".join(told.read().decode(errors="replace").split())
    if failed:
        _raise(said)


def _command(path: Path, clip: np.ndarray, fps: float, tags: Mapping[str, str]) -> list[str]:
    _, height, width, channels = clip.shape
    rate = Fraction(fps).limit_denominator(10_000)
    options = {
        "-loglevel": "error", "-f": "rawvideo", "-pix_fmt": "gray" if channels == 1 else "rgb24",
        "-video_size": f"{width}x{height}", "-framerate": f"{rate.numerator}/{rate.denominator}", "-i": "pipe:0",
    }  # fmt: skip
    encoder = {
        "-vf": _COLOURS, "-c:v": "libx264", "-crf": str(CRF), "-threads": "1", "-flags:v": "+bitexact",
        "-fflags": "+bitexact", "-movflags": "+faststart", "-f": "mp4",
    }  # fmt: skip
    about = [part for name in ("title", "comment") for part in ("-metadata", f"{name}={tags[name]}")]
    plain = [part for pair in (*options.items(), *encoder.items()) for part in pair]
    return [_ffmpeg(), "-y", *plain, *about, f"file:{path.absolute()}"]


def _ffmpeg() -> str:
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise InputError(f"MP4 needs ffmpeg, and none is found ({error}); ask for another format") from error


def _raise(said: str) -> None:
    if os.strerror(errno.ENOSPC) in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise InputError(f"ffmpeg cannot write MP4: {said[:300]}")


# --------------------------------------------------------------------------------------- boxes (ISO/IEC 14496-12)


def read_comment(path: Path) -> str | None:
    """The comment of an MP4 file, as iTunes and ffmpeg keep it; None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        start, end = 0, os.fstat(file.fileno()).st_size
        for name, skipped in ((b"moov", 0), (b"udta", 0), (b"meta", 4), (b"ilst", 0), (b"\xa9cmt", 0), (b"data", 8)):
            found = _find(file, name, start, end)
            if found is None:
                return None
            start, end = found[0] + skipped, found[1]
        file.seek(start)
        return file.read(max(0, min(end - start, _LONGEST))).decode("utf-8", "replace")


def _find(file: IO[bytes], name: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where the contents of the first box of a name begin and end."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return None
        length, header = struct.unpack(">I", head[:4])[0], 8
        if length == 1 and len(head) == 16:
            length, header = struct.unpack(">Q", head[8:])[0], 16
        stop = end if length == 0 else start + length
        if stop < start + header or stop > end:
            return None
        if head[4:8] == name:
            return start + header, stop
        start = stop
    return None
