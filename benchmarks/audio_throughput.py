"""How long does a second of sound take, end to end at the recommended settings?

A batch of prompts is made, decoded and written to WAV files; the table splits the time. Lengths are those that the
checkpoint draws. Times are of the wall clock: on a machine that is busy with other work, two threads wait for each
other, and only --threads 1 says something.

    python benchmarks/audio_throughput.py --checkpoint audio-digits --batch-size 8
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch

import multidiff

PROMPTS = {
    "audio-digits": ["seven, spoken by theo", "3 with a French accent", "george says nine", "zero"],
    "audio-sounds": ["a dog barks", "rain", "sea waves", "a clock ticks"],
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="audio-digits")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--calls", type=int, nargs="*", help="steps (default: the recommended number)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    pipe = multidiff.load(args.checkpoint)
    prompts = PROMPTS.get(args.checkpoint, [""])
    print("| precision | steps | sound, s | network, s | decoding, s | files, s | s for a second of sound |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for dtype in (torch.float32, torch.bfloat16):
        pipe.to(dtype=dtype)
        for steps in args.calls or [pipe.config["recommended"]["num_inference_steps"]]:
            run(pipe, prompts, 1, steps)
            rounds = [run(pipe, prompts, args.batch_size, steps) for _ in range(args.rounds)]
            sound, network, decoding, files = (statistics.median(column) for column in zip(*rounds, strict=True))
            cost = (network + decoding + files) / sound
            name = str(dtype).removeprefix("torch.")
            print(
                f"| {name} | {steps} | {sound:.2f} | {network:.2f} | {decoding:.3f} | {files:.3f} | {cost:.3f} |",
                flush=True,
            )


def run(pipe: multidiff.pipeline.Pipeline, prompts: list[str], count: int, steps: int) -> tuple[float, ...]:
    """Seconds of sound, and of the network, decoding and writing."""
    last = [0.0]

    def note(pipe: object, step: int, t: float, kwargs: object) -> dict:
        last[0] = time.perf_counter()
        return {}

    started = time.perf_counter()
    out = pipe(
        prompts, num_samples=count, num_inference_steps=steps, seed=0, batch_size=count, callback_on_step_end=note
    )
    made = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out.save(Path(folder))
        written = time.perf_counter()
    sound = sum(audio.shape[1] for audio in out.audios) / out.sampling_rate
    return sound, last[0] - started, made - last[0], written - made


if __name__ == "__main__":
    main()
