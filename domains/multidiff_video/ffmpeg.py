"""Videos through the ffmpeg that imageio-ffmpeg brings: what is in a file, and its frames one after another.

Only local files are opened, and only containers that hold pictures themselves: a playlist under the name of a video
would make ffmpeg open whatever it lists.
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff_video.framing import Fit

CUT_SHORT, DAMAGED = "cut short", "damaged in places"
"""Notes on a video of which not everything could be decoded."""
UNKNOWN_RATE = 30.0
"""Frames a second of a video that does not say, or says nonsense, as recordings of a browser do."""

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,mpegts,mpeg,mpegvideo,m4v,asf,ogg,h264,hevc,av1,obu,ivf,"
    "mjpeg,dv,mxf,gxf,nut,rm,wtv,yuv4mpegpipe,gif,apng,swf,vc1,nsv,ea,bink,smk"
)
_FASTEST = 300.0  # frames a second; above it an average rate is that of the clock, not of the pictures
_MOST_PIXELS = 1 << 27  # of a decoded picture; 8K video has a quarter of it
_SQUARE = 0.01  # of the logarithm of a pixel's aspect: what only makes up for a rounded size
_MARGIN = 10  # seconds decoded before a window, so that it begins as it would in the whole
_ALPHA = ("rgba", "bgra", "argb", "abgr", "yuva", "gbrap", "ya8", "ya16", "pal8")
# Same sums on every machine, and no shortcuts in the colours.
_SCALING = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
_ON_WHITE = "format=rgba,split[f][b];[b]drawbox=c=white:replace=1:t=fill[w];[w][f]overlay=format=rgb,"


@dataclass(frozen=True)
class Header:
    """What a file says of its first video stream.

    Attributes:
        height, width: as it is shown: turned as its rotation flag says, with square pixels.
        fps: frames a second, the average where they vary.
        duration: of the file in seconds, its sound included; None where it does not say.
        alpha: whether its pictures may be transparent.
        decoder: what reads the transparency of VP8 and VP9, which the decoders taken by default leave out.
    """

    height: int
    width: int
    fps: float
    duration: float | None
    alpha: bool
    decoder: str = ""


def header(path: Path, name: str) -> Header:
    """Read what a file says of itself; `name` is what messages call it.

    Raises:
        InputError: it is no video, or holds no picture.
    """
    log = _run(["-i", _url(path)])
    if "Input #0" not in log:
        raise InputError(f"{name} {_reason(log)}")
    streams = re.findall(r"^ *Stream #0:\d+.*?: Video: .*(?:\n(?! *Stream #).*)*", log, re.MULTILINE)
    streams = [stream for stream in streams if "(attached pic)" not in stream.partition("\n")[0]]
    if not streams:
        raise InputError(f"{name} holds {'sound but no pictures' if ': Audio: ' in log else 'no video'}")
    found = _stream(streams[0])
    if found is None:
        raise InputError(f"{name} holds no picture that can be decoded")
    height, width, fps, alpha = found
    decoder = _transparent(streams[0])
    return Header(height, width, fps, _duration(log), alpha or bool(decoder), decoder)


def seconds(path: Path, about: Header) -> float:
    """How long the pictures last, by their number: sound may go on after them, and a file be cut short."""
    whole = _packets(path) / about.fps
    return whole if about.duration is None else min(whole, about.duration)


def _packets(path: Path) -> int:
    """How many coded pictures there are; the file is read to its end, and nothing is decoded."""
    log = _run(["-i", _url(path), "-map", "0:V:0", "-c", "copy", "-f", "null", "-progress", "pipe:2", "-"], "fatal")
    frames = re.findall(r"^frame=\s*(\d+)\s*$", log, re.MULTILINE)
    return int(frames[-1]) if frames else 0


def frames(
    path: Path, about: Header, fit: Fit, fps: float, first: int, count: int | None, notes: dict[str, None]
) -> Iterator[NDArray[np.uint8]]:
    """Frames `first` to ``first + count``, or to the end, of a video that is brought to a rate: (H, W, 3) RGB each.

    Frame k shows the picture whose time is nearest to k / fps; pictures are repeated or left out as that needs. A
    transparent one is laid on white. What is wrong with the file is added to `notes`.

    Raises:
        InputError: nothing can be decoded.
    """
    seek, skip = _seek(fps, first)
    rate = exact(fps)
    chain = f"fps={rate.numerator}/{rate.denominator}:start_time=0," + _trim(skip, count, rate) + _fitted(about, fit)
    log: list[str] = []
    none = True
    for frame in _decoded(path, about, chain, fit, seek, count, log):
        none = False
        yield frame
    if none and first == 0:  # one picture, shown for less than half a frame
        for frame in _decoded(path, about, _fitted(about, fit), fit, 0, 1, log):
            none = False
            yield frame
    if none and first == 0:
        raise InputError(_reason(log[0]) if _faults(log[0]) else "holds no picture that can be decoded")
    for text in log:
        notes.update(dict.fromkeys(_faults(text)))


def exact(fps: float) -> Fraction:
    """A rate as the fraction that is meant: 29.97 as 30000/1001."""
    for whole in (24, 30, 48, 60, 120, 240):
        if abs(fps - whole * 1000 / 1001) < 0.006:
            return Fraction(whole * 1000, 1001)
    return Fraction(fps).limit_denominator(1000)


def _seek(fps: float, first: int) -> tuple[float, int]:
    """Seconds left out undecoded, and frames then left out; both of whole frames, so that the same pictures are met."""
    rate = exact(fps)
    step = rate.denominator if rate.denominator <= _MARGIN else Fraction(1) / rate  # seconds; a whole number keeps ties
    skipped = max(0, math.floor((first / rate - _MARGIN) / step)) * step
    return float(skipped), first - round(skipped * rate)


def _trim(skip: int, count: int | None, rate: Fraction) -> str:
    if not skip and count is None:
        return ""
    end = "" if count is None else f":end_frame={skip + count}"
    return f"trim=start_frame={skip}{end},setpts=N*{rate.denominator}/{rate.numerator}/TB,"


def _fitted(about: Header, fit: Fit) -> str:
    """Filters that bring a picture into its frame.

    The part is given by aspect, not in pixels, since the size of the pictures may change within a file. It is cut out
    before the scaling, which then never makes anything larger than the frame.
    """
    left, top, right, bottom = fit.place
    wide, high = right - left, bottom - top
    crop = ""
    if (fit.box[0], fit.box[1]) != (0.0, 0.0):
        crop = f"crop=w=max(1\\,min(iw\\,ih*{wide}/{high}/sar)):h=max(1\\,min(ih\\,iw*sar*{high}/{wide})):exact=1,"
    pad = f",pad={fit.width}:{fit.height}:{left}:{top}:black" if (wide, high) != (fit.width, fit.height) else ""
    white = _ON_WHITE if about.alpha else ""
    return f"{white}{crop}scale={wide}:{high}:{_SCALING},setsar=1,format=rgb24{pad}"


def _decoded(
    path: Path, about: Header, chain: str, fit: Fit, seek: float, count: int | None, logs: list[str]
) -> Iterator[NDArray[np.uint8]]:
    shape, size = (fit.height, fit.width, 3), fit.height * fit.width * 3
    options = ["-c:v", about.decoder] if about.decoder else []
    options += ["-ss", f"{seek:.6f}"] if seek else []
    options += ["-i", _url(path), "-map", "0:V:0", "-vf", chain]
    options += [] if count is None else ["-frames:v", str(count)]
    with (
        tempfile.TemporaryFile() as log,
        _start([*options, "-f", "rawvideo", "pipe:1"], log, "level+warning") as process,
    ):
        assert process.stdout is not None
        try:
            while len(block := process.stdout.read(size)) == size:
                yield np.frombuffer(block, np.uint8).reshape(shape)
            process.wait()
        finally:
            process.kill()
        log.seek(0)
        logs.append(log.read(1 << 20).decode(errors="replace"))


def _run(options: list[str], level: str = "info") -> str:
    with tempfile.TemporaryFile() as log:
        with _start(options, log, level) as process:
            try:
                process.communicate()
            finally:
                process.kill()
        log.seek(0)
        return log.read(1 << 20).decode(errors="replace")


def _start(options: list[str], log: IO[bytes], level: str) -> subprocess.Popen[bytes]:
    # One thread: several would each hold pictures, and whoever trains decodes in several processes already.
    limits = ["-threads", "1", "-filter_threads", "1", "-max_pixels", str(_MOST_PIXELS), "-protocol_whitelist", "file"]
    limits += ["-format_whitelist", _FORMATS]
    command = [_program(), "-hide_banner", "-nostdin", "-nostats", "-v", f"repeat+{level}", *limits, *options]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)


@cache
def _program() -> str:
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except ModuleNotFoundError:
        raise InputError('imageio-ffmpeg is not installed; it comes with: pip install "multidiff[video]"') from None
    except RuntimeError as error:
        raise InputError(f"no ffmpeg: {' '.join(str(error).split())}") from None


def _url(path: Path) -> str:
    return f"file:{path.absolute()}"  # a name such as -y or http:x is then a name


def _stream(text: str) -> tuple[int, int, float, bool] | None:
    """Height and width as shown, rate, and whether there is alpha, of the lines on a stream."""
    line = text.partition("\n")[0].partition(": Video: ")[2]
    while (plain := re.sub(r"\([^()]*\)", "", line)) != line:
        line = plain
    parts = [part.strip() for part in line.split(",")]
    size = next((m for part in parts if (m := re.match(r"(\d+)x(\d+)(?:\s|$)", part))), None)
    if size is None or not int(size[1]) * int(size[2]) or parts[1:2] == ["none"]:
        return None
    width, height = int(size[1]), int(size[2])
    aspect = re.search(r"SAR (\d+):(\d+)", line)
    if aspect and abs(math.log(max(int(aspect[1]), 1) / max(int(aspect[2]), 1))) > _SQUARE:
        width = max(1, round(width * int(aspect[1]) / int(aspect[2])))
    turned = re.search(r"rotation of (-?[\d.]+) degrees", text, re.IGNORECASE)
    if turned and abs(abs(float(turned[1])) - 90) < 45:
        height, width = width, height
    return height, width, _rate(line), len(parts) > 1 and parts[1].startswith(_ALPHA)


def _transparent(text: str) -> str:
    """The decoder that a VP8 or VP9 stream with transparency needs, of the lines on it."""
    coded = re.search(r": Video: (vp8|vp9)\b", text)
    marked = re.search(r"^ *alpha_mode *: *1 *$", text, re.MULTILINE | re.IGNORECASE)
    return {"vp8": "libvpx", "vp9": "libvpx-vp9"}[coded[1]] if coded and marked else ""


def _rate(line: str) -> float:
    for unit in ("fps", "tbr"):
        found = re.search(rf"([\d.]+)(k?) {unit}\b", line)
        rate = float(found[1]) * (1000 if found[2] else 1) if found else 0.0
        if 0 < rate <= _FASTEST:
            return float(exact(rate))
    return UNKNOWN_RATE


def _duration(log: str) -> float | None:
    found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", log)
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None


def _faults(log: str) -> list[str]:
    if re.search(r"partial file|[Tt]runcat|File ended prematurely", log):
        return [CUT_SHORT]
    return [DAMAGED] if re.search(r"^.*\[(error|fatal)\]|corrupt", log, re.MULTILINE) else []


def _reason(log: str) -> str:
    """Why a file cannot be read, after its name."""
    if "moov atom not found" in log and "low score" not in log:
        return "is cut short or was never finished: its index (moov) is missing"
    if "not on whitelist" in log or "Invalid data found" in log or "low score" in log:
        return "is neither a video nor a picture, or is damaged from its start"
    told = re.findall(r"\[(?:error|fatal)\] (.+)", log)
    return f"cannot be decoded ({' '.join(told[0].split())[:120]})" if told else "cannot be decoded"
