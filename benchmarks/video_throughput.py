"""How many clips a minute, end to end at the recommended settings, and how long does writing them take?

The first table: a batch of prompts is made, decoded and written to MP4 files; the time is split. Frames a second are
those of all clips of the batch. The second table writes the clips that were made last in each format, one by one. Times
are of the wall clock: on a machine that is busy with other work, two threads wait for each other, and only --threads 1
says something.

    python benchmarks/video_throughput.py --batch-size 1 8 16
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import multidiff
from multidiff_video.digits import MOTIONS, caption
from multidiff_video.generated import VideoOutput
from multidiff_video.options import FORMATS

PROMPTS = [caption([(i, motion)]) for i, motion in enumerate(MOTIONS)] + [caption([(3, "left"), (7, "up then down")])]


def main() -> None:
    """Measure and print two tables."""
    args = arguments()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    pipe = multidiff.load(args.checkpoint).to(args.device)
    out = made(pipe, args)
    print(f"\nfiles of {len(out.frames[0])} frames")
    print("\n| format | s a clip | frames a second | kB a clip |\n| --- | --- | --- | --- |")
    for kind in FORMATS:
        write(out, kind)
        rounds = [write(out, kind) for _ in range(args.rounds)]
        seconds, size = statistics.median(s for s, _ in rounds) / len(out), rounds[0][1] / len(out) / 1e3
        rate = len(out.frames[0]) / seconds
        print(f"| {kind} | {seconds:.3f} | {rate:.0f} | {size:.1f} |", flush=True)


def made(pipe: multidiff.pipeline.Pipeline, args: argparse.Namespace) -> VideoOutput:
    """Measure making clips, and print a row a setting; what was made last."""
    print("| precision | batch | calls | network, s | decoding, s | MP4, s | clips a minute | frames a second |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for precision in args.precision:
        pipe.to(dtype=getattr(torch, precision))
        for batch in args.batch_size:
            run(pipe, batch, args.steps)
            rounds = [run(pipe, batch, args.steps) for _ in range(args.rounds)]
            network, decoding, files = (statistics.median(column[1:][i] for column in rounds) for i in range(3))
            out = rounds[-1][0]
            clips = batch / (network + decoding + files)
            cells = f"{network:.2f} | {decoding:.3f} | {files:.2f} | {60 * clips:.1f}"
            rate = clips * len(out.frames[0])
            print(f"| {precision} | {batch} | {out.network_calls} | {cells} | {rate:.1f} |", flush=True)
    return out


def run(pipe: multidiff.pipeline.Pipeline, count: int, steps: int | None) -> tuple[VideoOutput, float, float, float]:
    """The clips, and the seconds of the network, of decoding and of writing."""
    last = [0.0]

    def note(pipe: Any, step: int, t: float, kwargs: object) -> dict:
        if pipe.device.type == "cuda":
            torch.cuda.synchronize()
        last[0] = time.perf_counter()
        return {}

    prompts = PROMPTS[:count]
    started = time.perf_counter()
    out = pipe(
        prompts, num_samples=count, num_inference_steps=steps, seed=0, batch_size=count, callback_on_step_end=note
    )
    decoded = time.perf_counter()
    files, _ = write(out, "mp4")
    return out, last[0] - started, decoded - last[0], files


def write(out: VideoOutput, kind: str) -> tuple[float, int]:
    """Seconds that the files take, contact sheet included, and the bytes of the clips."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        out.save(folder, format=kind)
        seconds = time.perf_counter() - started
        files = [path for path in Path(folder).rglob("*") if path.is_file() and path != Path(folder) / "video.png"]
        return seconds, sum(path.stat().st_size for path in files)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="video", help="name or folder")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, help="default: as recommended")
    parser.add_argument("--rounds", type=int, default=3, help="beside one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
