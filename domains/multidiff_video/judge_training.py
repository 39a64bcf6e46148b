"""Train a judge (`judge.Judge`) on moving digits that are drawn as it goes.

    python -m multidiff_video.judge_training mnist.npz my_judge/

Digits of the test split are never trained on, nor used to choose anything: the last step is what is written. They are
looked at once, at the end, for the accuracy on the card. The same command gives the same judge on the same machine.
"""

from __future__ import annotations

import argparse
import textwrap
import time
from collections.abc import Mapping
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
from multidiff_video.digits import FRAMES, MOTIONS, MovingDigits, Scene, mnist_glyphs
from multidiff_video.judge import SIZE, Judge, JudgeNetwork, Tracks

NETWORK: dict[str, Any] = {"widths": [16, 32, 64], "digits": 10, "motions": len(MOTIONS) + 1, "track": 32}
NONE = len(MOTIONS)  # the class of tracks that follow none of the motions
_MIRRORED = {"left": "right", "right": "left", "up": "down", "down": "up"}
_TURNED = {"left": "up", "up": "left", "right": "down", "down": "right"}


@dataclass(frozen=True)
class Recipe:
    """How a judge is trained.

    Attributes:
        steps: batches of frames.
        batch: frames a step.
        lr: the highest rate of the cycle.
        clips: whose tracks the motions are learned from.
        epochs: passes through the tracks.
        seed: of the weights, the scenes and the variations.
    """

    steps: int = 6000
    batch: int = 64
    lr: float = 3e-3
    clips: int = 4000
    epochs: int = 60
    seed: int = 0


def train(digits: MovingDigits, recipe: Recipe, progress: bool = True) -> Judge:
    """A judge of clips of `digits`: first of single frames, then of the tracks that it sees in clips."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network = JudgeNetwork(**NETWORK)
    _fit_frames(network, digits, recipe, rng, progress)
    config = {"domain": "video", "kind": "judge", "network": {"class": "JudgeNetwork", **NETWORK}}
    judge = Judge(network.eval(), config)
    tracks, labels, features = _watch(judge, digits, recipe.clips, rng)
    _fit_tracks(network, tracks, labels, recipe, rng)
    _standardise(network, tracks, features)
    return judge


# ------------------------------------------------------------------------------------------------------------ frames


def _fit_frames(
    network: JudgeNetwork, digits: MovingDigits, recipe: Recipe, rng: np.random.Generator, progress: bool
) -> None:
    """Which digits are in a frame, and where: AdamW under one cycle of the rate, every frame drawn anew."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=recipe.steps, pct_start=0.15)
    network.train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for _ in tqdm(range(recipe.steps), "frames", unit="step", disable=None if progress else True):
        scenes = [random_scene(digits, rng) for _ in range(recipe.batch)]
        times = rng.integers(0, FRAMES, recipe.batch).tolist()
        shown = np.stack([digits.render(s, 1, t)[0, ..., 0] for s, t in zip(scenes, times, strict=True)])
        maps = network.maps_of(vary(torch.from_numpy(shown).float() / 255, rng))[1]
        loss = frame_loss(network, maps, *_truth(scenes, times, digits))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()


def random_scene(digits: MovingDigits, rng: np.random.Generator) -> Scene:
    """One or two digits with any of the eighty pairs, held-out ones too."""
    count = 2 if rng.random() < 0.5 else 1
    chosen = rng.permutation(10)[:count].tolist()
    return digits.scene(rng, [(digit, str(rng.choice(MOTIONS))) for digit in chosen])


def _truth(scenes: list[Scene], times: list[int], digits: MovingDigits) -> tuple[Tensor, Tensor]:
    """(n, 10) whether each digit is there, and (n, 10, 2) its middle from -1 to 1."""
    there, places = torch.zeros(len(scenes), 10), torch.zeros(len(scenes), 10, 2)
    box = digits.glyphs.images.shape[-1]
    for i, (scene, t) in enumerate(zip(scenes, times, strict=True)):
        for actor in scene:
            corner = torch.tensor([round(share * (digits.size - box)) for share in actor.place(t)])
            there[i, actor.digit] = 1
            places[i, actor.digit] = (corner + box / 2) * 2 / digits.size - 1
    return there, places


def frame_loss(network: JudgeNetwork, maps: Tensor, there: Tensor, places: Tensor) -> Tensor:
    """Cross entropy of presence, and of each digit's map with the four cells around its middle, in shares."""
    logits = network.tracks(maps).presence
    presence = F.binary_cross_entropy_with_logits(logits, there, reduction="sum")
    side = maps.shape[-1]
    gap = (network.grid[:, None, None] - places).abs() * side / 2  # cells
    target = (1 - gap).clamp(min=0).prod(-1).permute(1, 2, 0)
    place = -(target * maps.flatten(-2).log_softmax(-1)).sum(-1)
    return (presence + 0.3 * (place * there).sum()) / len(maps)


def vary(x: Tensor, rng: np.random.Generator) -> Tensor:
    """(n, SIZE, SIZE) as a worse camera sees them: darker, blurred, with noise, each to another degree."""
    n = len(x)

    def degrees(most: float, share: float) -> Tensor:
        chosen = rng.uniform(0, most, n) * (rng.random(n) < share)
        return torch.from_numpy(chosen.astype(np.float32)).view(n, 1, 1)

    blurred = F.avg_pool2d(x[:, None], 3, 1, 1)[:, 0]
    x = torch.lerp(x, blurred, degrees(1.0, 0.4)) * (1 - degrees(0.5, 0.4))
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
    return (x + noise * degrees(0.15, 0.5)).clamp(0, 1)


# ------------------------------------------------------------------------------------------------------------ tracks


def _watch(
    judge: Judge, digits: MovingDigits, count: int, rng: np.random.Generator
) -> tuple[Tracks, NDArray[np.int64], Tensor]:
    """The tracks (n, frames, 10) that are seen in clips, (n, 10) the motion of each digit or -1, and mean features."""
    parts, labels = [], np.full((count, 10), -1)
    for i in range(count):
        scene = random_scene(digits, rng)
        for actor in scene:
            labels[i, actor.digit] = MOTIONS.index(actor.motion)
        shown = vary(torch.from_numpy(digits.render(scene)[..., 0]).float() / 255, rng)
        pooled, tracks = judge.frames((shown * 255).round().byte())
        parts.append((*tracks, pooled.mean(0)))
    presence, places, features = (torch.stack(part) for part in zip(*parts, strict=True))
    return Tracks(presence, places), labels, features


def _fit_tracks(
    network: JudgeNetwork, tracks: Tracks, labels: NDArray[np.int64], recipe: Recipe, rng: np.random.Generator
) -> None:
    """The motion along each track, mirrored and turned; and "none" of tracks that are shuffled, still or oblique."""
    layers = [*network.along.parameters(), *network.hidden.parameters(), *network.motion.parameters()]
    optimizer = torch.optim.AdamW(layers, lr=3e-3, weight_decay=0.01)
    batches = -(-len(labels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=recipe.epochs * batches, pct_start=0.1)
    for _ in range(recipe.epochs):
        order = rng.permutation(len(labels))
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            changed, wanted = vary_tracks(Tracks(tracks.presence[rows], tracks.places[rows]), labels[rows], rng)
            logits = network.motions_of(changed)[1]
            loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(wanted).flatten(), ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def vary_tracks(
    tracks: Tracks, labels: NDArray[np.int64], rng: np.random.Generator
) -> tuple[Tracks, NDArray[np.int64]]:
    """Tracks (n, frames, digits) as other scenes have them, and (n, digits) their motions; -1 stays."""
    places, presence, labels = tracks.places.clone(), tracks.presence.clone(), labels.copy()
    names = np.array([*MOTIONS, "none"])

    def renamed(rows: NDArray[np.bool_], words: Mapping[str, str]) -> None:
        table = [int(np.flatnonzero(names == _renamed(name, words))[0]) for name in names]
        labels[rows] = np.where(labels[rows] < 0, -1, np.array(table)[labels[rows]])

    n = len(labels)
    for axis, ways in ((0, ("left", "right")), (1, ("up", "down"))):
        rows = rng.random(n) < 0.5
        places[torch.from_numpy(rows), ..., axis] *= -1
        renamed(rows, {way: _MIRRORED[way] for way in ways})
    rows = rng.random(n) < 0.5
    places[torch.from_numpy(rows)] = places[torch.from_numpy(rows)].flip(-1)
    renamed(rows, _TURNED)
    for i in np.flatnonzero(rng.random(n) < 0.3):
        labels[i] = np.where(labels[i] < 0, -1, NONE)
        kind, order = rng.integers(3), torch.from_numpy(rng.permutation(places.shape[1]))
        if kind == 0:
            places[i], presence[i] = places[i][order], presence[i][order]
        elif kind == 1:  # still, or as good as
            places[i] = places[i, :1] + 0.02 * torch.from_numpy(rng.standard_normal(places[i].shape, np.float32))
        else:
            places[i] = places[i] + rng.choice([-1.0, 1.0]) * places[i].flip(-1)
    return Tracks(presence, places), labels


def _renamed(motion: str, words: Mapping[str, str]) -> str:
    return " ".join(words.get(word, word) for word in motion.split())


@torch.inference_mode()
def _standardise(network: JudgeNetwork, tracks: Tracks, features: Tensor) -> None:
    there = tracks.presence.sigmoid().mean(1)[..., None]
    parts = [features, (there * network.motions_of(tracks)[0]).sum(1)]
    network.centre.copy_(torch.cat(parts, 1).mean(0))
    spreads = [part.std(0) for part in parts]
    # What no real clip wakes counts as others of its kind: else it would a thousandfold where a generated clip does.
    network.scale.copy_(torch.cat([s.where(s > 1e-3, s.median().clamp(min=1e-3)) for s in spreads]))


# ------------------------------------------------------------------------------------------------------------- test


def accuracy(judge: Judge, digits: MovingDigits, count: int = 2000, seed: int = 1) -> dict[str, float]:
    """Shares that are right, of `count` clips with one digit and as many with two, all eighty pairs in turn."""
    rng = np.random.default_rng(seed)
    scores: dict[str, float] = {}
    for many, name in ((1, "one"), (2, "two")):
        pairs = [_pairs(i, many, rng) for i in range(count)]
        right = []
        for start in range(0, count, 100):
            part = pairs[start : start + 100]
            seen = judge.look([digits.render(digits.scene(rng, p)) for p in part])
            for i, wanted in enumerate(part):
                found, wanted = seen.named(i, many), sorted(wanted)
                known = [d for d, _ in wanted]
                each = np.mean([sorted(np.argsort(-p)[:many].tolist()) == known for p in seen.frames[i]])
                right.append([float([d for d, _ in found] == known), float(found == wanted), float(each)])
        digit, both, frame = np.mean(right, 0).tolist()
        scores |= {f"{name}/digits": digit, f"{name}/digits and motions": both, f"{name}/digits in a frame": frame}
    return scores


def _pairs(i: int, many: int, rng: np.random.Generator) -> list[tuple[int, str]]:
    first = (i % 10, MOTIONS[i // 10 % 8])
    other = int(rng.choice([d for d in range(10) if d != first[0]]))
    return [first, (other, str(rng.choice(MOTIONS)))][:many]


CARD = """---
license: {licence}
tags: [video-classification, multidiff]
---
# Judge of moving digits

{purpose}

| of {count} test clips with one digit, and as many with two | one | two |
| --- | --- | --- |
{rows}

{origin}

    {command}
"""


def card(judge: Judge, scores: Mapping[str, float], about: Mapping[str, Any]) -> str:
    """The README.md of a judge.

    Args:
        about: "licence", "source", "frames" and "clips" that it was trained on, "count" of test clips, "seconds" of
            CPU time, and the "command".
    """
    weights = sum(p.numel() for p in judge.network.parameters())
    kinds = ("digits", "digits and motions", "digits in a frame")
    rows = [f"| {k} right | {scores[f'one/{k}']:.1%} | {scores[f'two/{k}']:.1%} |" for k in kinds]
    purpose = (
        f"Tells the digits in a frame of {SIZE}x{SIZE} pixels and the motion of each in {FRAMES} frames; its embedding "
        f"of {len(judge.network.centre)} numbers serves for distances between sets of clips. For measuring generated "
        "clips with `multidiff evaluate video`."
    )
    origin = (
        f"{weights:,} weights, trained on {about['frames']:,} frames and {about['clips']:,} clips that are drawn from "
        f"the training split of {about['source']}. It has never been trained on a test digit, nor on a generated "
        f"clip; the test digits were looked at once, after training. {about['seconds']:.0f} seconds on one CPU core:"
    )
    return CARD.format(
        licence=about["licence"],
        purpose=textwrap.fill(purpose, 120, break_on_hyphens=False),
        count=about["count"],
        rows="\n".join(rows),
        origin=textwrap.fill(origin, 120, break_on_hyphens=False),
        command=about["command"],
    )


def main() -> None:
    """Train, test once, write the folder."""
    args = arguments()
    torch.set_num_threads(args.threads)
    recipe = Recipe(steps=args.steps, clips=args.clips, epochs=args.epochs, seed=args.seed)
    started = time.process_time()
    judge = train(MovingDigits(mnist_glyphs(args.data, "train"), SIZE), recipe)
    seconds = time.process_time() - started
    judge.network.half().float()  # tested as it is stored
    scores = accuracy(judge, MovingDigits(mnist_glyphs(args.data, "test"), SIZE), args.count)
    options = f"--steps {args.steps} --clips {args.clips} --epochs {args.epochs} --seed {args.seed}"
    about = {
        "licence": args.licence,
        "source": args.source or args.data.name,
        "frames": recipe.steps * recipe.batch,
        "clips": recipe.clips,
        "count": args.count,
        "seconds": seconds,
        "command": f"python -m multidiff_video.judge_training {args.data.name} {args.out.name}/ {options}",
    }
    weights = {k: v.half() if v.is_floating_point() else v for k, v in judge.network.state_dict().items()}
    config = {**judge.config, "accuracy": scores, "licence": args.licence}
    checkpoint.save(args.out, config, weights, card(judge, scores, about))
    print(f"{args.out}: " + ", ".join(f"{k} {v:.1%}" for k, v in scores.items()) + f", {seconds:.0f} s")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="digits: .npz with x_train, y_train, x_test and y_test")
    parser.add_argument("out", type=Path, help="folder of the judge")
    parser.add_argument("--steps", type=int, default=6000, help="batches of frames")
    parser.add_argument("--clips", type=int, default=4000, help="clips whose tracks are learned from")
    parser.add_argument("--epochs", type=int, default=60, help="passes through the tracks")
    parser.add_argument("--count", type=int, default=2000, help="test clips of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--licence", default="other", help="of the data, for the card")
    parser.add_argument("--source", default="", help="of the data, for the card")
    return parser.parse_args()


if __name__ == "__main__":
    main()
