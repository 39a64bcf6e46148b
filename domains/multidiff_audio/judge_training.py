"""Train a judge (`judge.Judge`) on the training split of a packed data set.

    python -m multidiff_audio.judge_training fsdd.npz my_judge/

The validation and test splits are never trained on, nor used to choose anything: the last epoch is what is written.
The test split is heard once, at the end, for the accuracy on the card. The same command gives the same judge on the
same machine.
"""

from __future__ import annotations

import argparse
import functools
import math
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from multidiff import checkpoint
from multidiff.captions import TEST, TRAIN
from multidiff.errors import InputError
from multidiff_audio.clips import PackedClips
from multidiff_audio.judge import Judge, JudgeNetwork, pad, ready, spectrogram

SPEECH = {"n_fft": 256, "hop_length": 80, "n_mels": 40}  # 10 ms at 8 kHz: formants and the pitch's changes
SOUNDS = {"n_fft": 512, "hop_length": 320, "n_mels": 64}  # 20 ms at 16 kHz
WIDTHS = [24, 32, 48, 80]
EMBEDDING = 64
Waves = Sequence[NDArray[np.float32]]


@dataclass(frozen=True)
class Recipe:
    """How a judge is trained.

    Attributes:
        rate: samples a second of the data.
        epochs: passes through the training split.
        seed: of the weights, the order and the variations.
        batch: sounds a step.
        lr: the highest rate of the cycle.
        mixed: share of batches in which sounds are heard two at a time (mixup, Zhang et al. 2018); for few clips.
        dropout: of the embedding.
    """

    rate: int
    epochs: int = 24
    seed: int = 0
    batch: int = 32
    lr: float = 3e-3
    mixed: float = 0.0
    dropout: float = 0.2


def train(clips: PackedClips, mel: Mapping[str, int], recipe: Recipe, progress: bool = True) -> Judge:
    """A judge of every attribute of `clips`, from their training split alone.

    Args:
        mel: n_fft, hop_length, n_mels.

    Raises:
        InputError: nothing to train on, or an attribute that is not known of every training clip.
    """
    rows = clips.rows(TRAIN)
    targets = torch.from_numpy(_targets(clips, rows))
    waves = [ready(clips.sound(int(i)), clips.rate, clips.rate) for i in rows]
    classes = {name: attribute.classes for name, attribute in clips.attributes.items()}
    spec: dict[str, Any] = {
        "bands": mel["n_mels"],
        "classes": [len(names) for names in classes.values()],
        "widths": WIDTHS,
        "embedding": EMBEDDING,
        "dropout": recipe.dropout,
    }
    torch.manual_seed(recipe.seed)
    network = JudgeNetwork(**spec)
    hear = functools.partial(spectrogram, rate=clips.rate, mel=mel)
    _standardise(network, torch.cat([hear(w) for w in waves], 1))
    _fit(network, waves, targets, hear, recipe, progress)
    config = {
        "domain": "audio",
        "kind": "judge",
        "rate": clips.rate,
        "mel": dict(mel),
        "classes": {name: list(names) for name, names in classes.items()},
        "network": {"class": "JudgeNetwork", **spec},
    }
    return Judge(network.eval(), classes, clips.rate, mel, config)


def _targets(clips: PackedClips, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, attributes) class of each clip."""
    if not len(rows) or not clips.attributes:
        raise InputError("a judge needs clips with attributes (a label each) in the training split; there are none")
    for name, attribute in clips.attributes.items():
        unknown = int((attribute.values[rows] < 0).sum())
        if unknown:
            raise InputError(f"{unknown} training clips have no {name!r}; a judge needs one of each clip")
    return np.stack([attribute.values[rows] for attribute in clips.attributes.values()], 1).astype(np.int64)


def _standardise(network: JudgeNetwork, frames: Tensor) -> None:
    network.centre.copy_(frames.mean(1, keepdim=True))
    network.scale.copy_(frames.std(1, keepdim=True) + 0.1)


def _fit(
    network: JudgeNetwork,
    waves: Waves,
    targets: Tensor,
    hear: Callable[[NDArray[np.float32]], Tensor],
    recipe: Recipe,
    progress: bool,
) -> None:
    """AdamW under one cycle of the rate, over batches of sounds of like length, each sound varied anew every time."""
    rng = np.random.default_rng(recipe.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=0.05)
    steps = recipe.epochs * -(-len(waves) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps, pct_start=0.2)
    network.train()
    for _ in tqdm(range(recipe.epochs), "judge", unit="epoch", disable=None if progress else True):
        heard = [mask(hear(vary(w, recipe.rate, rng)), rng) for w in waves]
        for rows in _batches([m.shape[1] for m in heard], recipe.batch, rng):
            x, lengths = pad([heard[i] for i in rows])
            partner, share = _partners(len(rows), recipe.mixed, rng)
            if share < 1:
                x = torch.log10(share * 10**x + (1 - share) * 10 ** x[partner])
                lengths = torch.maximum(lengths, lengths[partner])
            optimizer.zero_grad()
            logits = network(x, lengths)[1]
            torch.stack([_loss(y, targets[rows, i], partner, share) for i, y in enumerate(logits)]).sum().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def _loss(logits: Tensor, target: Tensor, partner: NDArray[np.int64], share: float) -> Tensor:
    return share * F.cross_entropy(logits, target) + (1 - share) * F.cross_entropy(logits, target[partner])


def _partners(n: int, mixed: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], float]:
    """Which sound each is mixed with, and the share of its own power; 1 for a batch that is not mixed."""
    return rng.permutation(n), float(rng.uniform(0.5, 1.0)) if rng.random() < mixed else 1.0


def _batches(lengths: Sequence[int], batch: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """All rows in random batches; within pools of eight batches like lengths go together, so that little is padding."""
    order = rng.permutation(len(lengths))
    pools = [order[i : i + 8 * batch] for i in range(0, len(order), 8 * batch)]
    ordered = [pool[np.argsort(np.array(lengths)[pool], kind="stable")] for pool in pools]
    batches = [pool[i : i + batch] for pool in ordered for i in range(0, len(pool), batch)]
    return [batches[i] for i in rng.permutation(len(batches))]


def vary(wave: NDArray[np.float32], rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The sound as another recording might have it: cut or begun a little earlier or later, with noise, filtered.

    Args:
        wave: (samples,) of deviation 1, as `judge.ready` makes it; the answer is so too.
    """
    start, end = (int(rng.uniform(-0.05, 0.1) * rate) for _ in range(2))
    if len(wave) > rate // 5:
        wave = wave[max(0, -start) : len(wave) - max(0, -end)]
    wave = np.pad(wave, (max(0, start), max(0, end)))
    if rng.random() < 0.5:  # brighter or duller, as another microphone
        wave = wave - np.float32(rng.uniform(-0.3, 0.3)) * np.pad(wave, (1, 0))[:-1]
    if rng.random() < 0.5:
        decibels = rng.uniform(10, 50)
        wave = wave + rng.standard_normal(len(wave), np.float32) * np.float32(10 ** (-decibels / 20))
    wave = wave - wave.mean()
    return (wave / max(float(wave.std()), 1e-5)).astype(np.float32)


def mask(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """With a few bands and a few frames at their mean (SpecAugment, Park et al. 2019), in half of the sounds each."""
    mel = mel.clone()
    for axis, most in ((0, mel.shape[0] // 8), (1, mel.shape[1] // 6)):
        if rng.random() < 0.5 and most:
            width = int(rng.integers(1, most + 1))
            start = int(rng.integers(0, mel.shape[axis] - width + 1))
            mel.narrow(axis, start, width).fill_(float(mel.mean()))
    return mel


def accuracy(judge: Judge, clips: PackedClips, split: int) -> dict[str, float]:
    """Attribute -> the share of a split whose class the judge names."""
    rows = clips.rows(split)
    if not len(rows):
        return {}
    found = judge.probabilities([clips.sound(int(i)) for i in rows], clips.rate)
    return {a: float((p.argmax(1) == clips.attributes[a].values[rows]).mean()) for a, p in found.items()}


CARD = """---
license: {licence}
tags: [audio-classification, multidiff]
---
# Judge of {data}

{purpose}

| attribute | classes | accuracy on the test split |
| --- | --- | --- |
{rows}

{origin}

    {command}
"""


def card(judge: Judge, clips: PackedClips, scores: Mapping[str, float], about: Mapping[str, Any]) -> str:
    """The README.md of a judge.

    Args:
        about: "data", "licence", "source", "epochs", "seconds" of CPU time, and the "command".
    """
    weights = sum(p.numel() for p in judge.network.parameters())
    rows = [f"| {a} | {', '.join(c)} | {scores.get(a, math.nan):.1%} |" for a, c in judge.classes.items()]
    purpose = (
        f"Tells the {' and the '.join(judge.classes)} of a sound; its embedding of {EMBEDDING} numbers serves for "
        "distances between sets of sounds. For measuring generated sounds with `multidiff evaluate audio`; it is no "
        "means of recognising people."
    )
    origin = (
        f"{len(clips.rows(TEST))} test clips, heard once, after training. {weights:,} weights, trained on the "
        f"{len(clips.rows(TRAIN)):,} clips of the training split of {about['data']} (licence {about['licence']}): "
        f"{about['source']}. It has never been trained on a test clip, nor on a generated sound. {about['epochs']} "
        f"epochs, {about['seconds']:.0f} seconds on one CPU core:"
    )
    return CARD.format(
        licence=about["licence"],
        data=about["data"],
        purpose=textwrap.fill(purpose, 120),
        rows="\n".join(rows),
        origin=textwrap.fill(origin, 120),
        command=about["command"],
    )


def main() -> None:
    """Train, test once, write the folder."""
    args = arguments()
    torch.set_num_threads(args.threads)
    clips = PackedClips.load(args.data)
    mel = {"n_fft": args.n_fft, "hop_length": args.hop_length, "n_mels": args.n_mels}
    if None in mel.values():
        mel = SPEECH if clips.rate < 16000 else SOUNDS
    started = time.process_time()
    recipe = Recipe(clips.rate, epochs=args.epochs, seed=args.seed, mixed=args.mixed, dropout=args.dropout)
    judge = train(clips, mel, recipe)
    seconds = time.process_time() - started
    scores = accuracy(judge, clips, TEST)
    config = {**judge.config, "accuracy": scores, "data": args.name or args.data.stem, "licence": args.licence}
    options = f"--epochs {args.epochs} --seed {args.seed} --mixed {args.mixed:g} --dropout {args.dropout:g}"
    about = {
        "data": config["data"],
        "licence": args.licence,
        "source": args.source or args.data.name,
        "epochs": args.epochs,
        "seconds": seconds,
        "command": f"python -m multidiff_audio.judge_training {args.data.name} {args.out.name}/ {options}",
    }
    text = card(judge, clips, scores, about)
    checkpoint.save(args.out, config, judge.network.state_dict(), text)
    print(
        f"{args.out}: "
        + ", ".join(f"{a} {value:.1%}" for a, value in scores.items())
        + f" of the test clips, {seconds:.0f} s"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="packed clips with attributes: 'multidiff prepare audio' writes them")
    parser.add_argument("out", type=Path, help="folder of the judge")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mixed", type=float, default=0.0, help="share of batches with two sounds at a time")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n-fft", type=int, help="default: by the rate")
    parser.add_argument("--hop-length", type=int, help="default: by the rate")
    parser.add_argument("--n-mels", type=int, help="default: by the rate")
    parser.add_argument("--name", default="", help="of the data, for the card (default: the file's)")
    parser.add_argument("--licence", default="other", help="of the data, for the card")
    parser.add_argument("--source", default="", help="of the data, for the card")
    return parser.parse_args()


if __name__ == "__main__":
    main()
