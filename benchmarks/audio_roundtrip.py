"""What does a representation of sound lose, and what does it forgive?

A row a representation: PESQ, STOI and the signal-to-noise ratio of real test clips that went there and back, also
with noise added to the state (which has deviation 1), and the time of both ways on one core. Needs the extra
`audio-quality`.

    python benchmarks/audio_roundtrip.py --reference fsdd.npz
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from multidiff.captions import TEST as TEST_SPLIT
from multidiff_audio.clips import PackedClips
from multidiff_audio.fidelity import fidelity
from multidiff_audio.representation import ComplexSTFT, LogMel, Representation

Sound = NDArray[np.float32]


def representations(rate: int) -> dict[str, Representation]:
    """Name -> representation, of unit scale."""
    n = 256 if rate < 16_000 else 512
    stft = {
        f"complex STFT, {n}/{n // 2}, exponent {exponent:g}": ComplexSTFT(rate, n_fft=n, hop=n // 2, exponent=exponent)
        for exponent in (0.3, 0.5, 1.0)
    }
    mel = {
        f"log-mel {mels}, {size}/{hop}, Griffin-Lim": LogMel(rate, n_fft=size, hop=hop, mels=mels, floor=1e-4)
        for mels, size, hop in ((80, n, n // 4), (80, n, n // 2), (64, 2 * n, n // 2))
    }
    return {**stft, **mel}


def main() -> None:
    """Encode, decode, compare, print a Markdown table."""
    args = arguments()
    torch.set_num_threads(1)
    clips = PackedClips.load(args.reference)
    rows = clips.rows(TEST_SPLIT)
    rows = rows[np.linspace(0, len(rows) - 1, min(args.num_samples, len(rows))).astype(int)]
    sounds = [clips.sound(int(i)) for i in rows]
    noises = [0.0, *args.noise]
    names = ["representation", "state of 1 s", *(f"PESQ, noise {n:g}" for n in noises), "STOI", "SNR, dB", "ms for 1 s"]
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names), flush=True)
    for name, unit in representations(clips.rate).items():
        fitted = fit(unit, sounds)
        found = [there_and_back(fitted, sounds, clips.rate, noise) for noise in noises]
        shape = "x".join(str(n) for n in fitted.encode(torch.zeros(1, 1, clips.rate)).shape[1:])
        cells = [name, shape, *(f"{figures[0]:.2f}" for figures in found)]
        cells += [f"{found[0][1]:.3f}", f"{found[0][2]:.1f}", f"{found[0][3]:.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def fit(representation: Representation, sounds: list[Sound]) -> Representation:
    """With the offset and the scale that give these sounds mean 0 (log-mel) and deviation 1."""
    states = torch.cat([representation.encode(torch.from_numpy(s)[None]).flatten() for s in sounds])
    if isinstance(representation, LogMel):
        representation = replace(representation, offset=float(states.mean()))
    return replace(representation, scale=float(states.std()))


def there_and_back(representation: Representation, sounds: list[Sound], rate: int, noise: float) -> list[float]:
    """Mean PESQ, STOI and SNR where they are defined, and the milliseconds for a second of sound."""
    generator = torch.Generator().manual_seed(0)
    found, seconds = [], 0.0
    for sound in sounds:
        started = time.perf_counter()
        state = representation.encode(torch.from_numpy(sound)[None])
        noisy = state + noise * torch.randn(state.shape, generator=generator)
        made = representation.decode(noisy, sound.shape[1])[0].numpy()
        seconds += time.perf_counter() - started
        figures = fidelity(sound, made, rate)
        found.append([figures.pesq, figures.stoi, min(figures.snr, 150.0)])
    total = sum(s.shape[1] for s in sounds) / rate
    return [*(float(x) for x in np.nanmean(found, 0)), 1000 * seconds / total]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="packed clips; those of the test split are used")
    parser.add_argument("--num-samples", type=int, default=100)
    parser.add_argument("--noise", type=float, nargs="*", default=[0.1, 0.3], help="deviations added to the state")
    return parser.parse_args()


if __name__ == "__main__":
    main()
