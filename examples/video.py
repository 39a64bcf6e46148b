"""Clips in a few lines: from text, from a picture, between key frames, longer ones; run it in any folder."""

from __future__ import annotations

import sys
from pathlib import Path

import multidiff


def main(folder: Path) -> None:
    """Make them and write them into `folder`."""
    pipe = multidiff.load("video")

    # Prompts are taken in turn; sample i of a seed is always the same clip, alone or in a batch.
    out = pipe(["a 3 moving left", "a 1 moving up and a 7 bouncing left and right"], num_samples=4, seed=0)
    out.save(folder / "text")  # MP4
    out.save(folder / "text-gif", format="gif", scale=2)
    for prompt, clip in zip(out.prompts, out.frames, strict=True):
        print(f"{prompt}: {len(clip)} frames of {clip.shape[2]} x {clip.shape[1]} pixels, {len(clip) / out.fps:g} s")

    # One frame is a picture, and a picture is what a clip can begin with: a file does as well as an array.
    picture = pipe("a 5 moving right", frames=1, seed=1)
    picture.save(folder / "picture")
    pipe("a 5 moving right", init=picture.frames[0], num_samples=2, seed=2).save(folder / "from-picture")

    # What lies between two pictures, here the ends of the first clip; -1 is the last frame.
    first, last = out.frames[0][0], out.frames[0][-1]
    pipe("a 3 moving left", keyframes=[(first, 0), (last, -1)], num_samples=2, seed=3).save(folder / "between")

    # What comes next after a clip, and a clip that is longer than what the network sees at a time.
    pipe("a 3 moving left", init=out.frames[0], context=4, seed=4).save(folder / "next")
    pipe("a 2 bouncing up and down", frames=48, seed=5).save(folder / "long")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "clips"))
