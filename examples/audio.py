"""Sounds in a few lines: several prompts, a part made anew, a loop; run it in any folder."""

from __future__ import annotations

import sys
from pathlib import Path

import multidiff


def main(folder: Path) -> None:
    """Make them and write them into `folder`."""
    pipe = multidiff.load("audio")

    # Prompts are taken in turn; sample i of a seed is always the same sound, alone or in a batch.
    out = pipe(["seven, spoken by theo", "3 with a French accent"], num_samples=4, seed=0)
    out.save(folder / "digits")
    for prompt, audio in zip(out.prompts, out.audios, strict=True):
        print(f"{prompt}: {audio.shape[1] / out.sampling_rate:.2f} s")

    # Everything outside of the region stays as it was, to the sample.
    sound = out.audios[0]
    middle = sound.shape[1] / out.sampling_rate / 2
    mended = pipe("seven, spoken by theo", init=sound, inpaint=[(middle - 0.05, middle + 0.05)], num_samples=3, seed=1)
    mended.save(folder / "mended")

    # Another word in the same voice and rhythm.
    pipe("nine, spoken by theo", init=sound, strength=0.6, num_samples=3, seed=2).save(folder / "nine")

    rain = multidiff.load("audio-sounds")("rain", duration=2.0, loop=True, seed=3)
    rain.save(folder / "rain")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "sounds"))
