"""What does a call, and a training step, of the sound network cost beside diffusers' UNet2DConditionModel?

Both have about the same number of weights and see the same input: the rows of the recipe's representation as a picture
of channels x bands x rows, and as many text vectors. Rounds alternate between the two; medians are printed, and ours
over theirs as a ratio.

    python benchmarks/audio_network.py --recipe digits
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from multidiff.space import Masked
from multidiff.state import Parts
from multidiff_audio.network import SpectrogramUNet

# rows, channels, bands, layers and number of words of the recipes that ship, and a peer's widths of the same size
RECIPES = {
    "digits": {"rows": 16, "channels": 8, "bands": 64, "layers": 6, "fold_time": 2, "peer": (56, 104, 168)},
    "sounds": {"rows": 80, "channels": 8, "bands": 32, "layers": 6, "fold_time": 4, "peer": (64, 96, 160)},
}
WORDS, TEXT = 16, 128


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=RECIPES, default="digits")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    spec = RECIPES[args.recipe]
    ours, theirs = our_network(spec), peer(spec)
    sizes = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (ours, theirs)]
    print(f"weights: ours {sizes[0]:.2f} M, diffusers UNet2DConditionModel {sizes[1]:.2f} M; batch {args.batch_size}")
    print("\n| precision | what | ours | diffusers | ours / theirs |\n| --- | --- | --- | --- | --- |")
    for precision in ("float32", "bfloat16"):
        calls = our_call(ours, spec, args.batch_size), peer_call(theirs, spec, args.batch_size)
        calls = tuple(in_precision(call, precision) for call in calls)
        for what, step in (("forward", forward), ("training step", training_step)):
            a, b = medians([lambda c=c, s=step: s(c) for c in calls], args.rounds)  # type: ignore[misc]
            print(f"| {precision} | {what}, s | {a:.3f} | {b:.3f} | {a / b:.3f} |", flush=True)
        a, b = (kept(call, network) for call, network in zip(calls, (ours, theirs), strict=True))
        print(f"| {precision} | kept for the backward pass, MB | {a:.0f} | {b:.0f} | {a / b:.3f} |", flush=True)


def our_network(spec: dict) -> nn.Module:
    """As in the recipe."""
    sizes = {name: spec[name] for name in ("channels", "bands", "layers", "fold_time")}
    return SpectrogramUNet(text_size=60, width=256, heads=4, widths=(32,), text_layers=1, classes=(10, 6), **sizes)


def peer(spec: dict) -> nn.Module:
    """Two levels with attention, as diffusers' text-to-image networks have it, on the same picture and text width."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=(spec["bands"], spec["rows"]),
        in_channels=spec["channels"],
        out_channels=spec["channels"],
        block_out_channels=spec["peer"],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT,
        attention_head_dim=8,
        norm_num_groups=8,
    )


def our_call(network: nn.Module, spec: dict, batch: int) -> Callable[[], Tensor]:
    """One call on noise; the text encoder is part of it."""
    x = torch.randn(batch, spec["rows"], spec["channels"], spec["bands"])
    cond = Parts(tokens=torch.randint(2, 60, (batch, WORDS)))
    space = Masked(torch.ones(batch, spec["rows"], dtype=torch.bool))
    return lambda: network(x, torch.zeros(batch), cond, space)


def peer_call(network: nn.Module, spec: dict, batch: int) -> Callable[[], Tensor]:
    """One call on noise; its text vectors are given."""
    x = torch.randn(batch, spec["channels"], spec["bands"], spec["rows"])
    text, t = torch.randn(batch, WORDS, TEXT), torch.full((batch,), 500)
    return lambda: network(x, t, text).sample


def forward(call: Callable[[], Tensor]) -> None:
    """Without gradients."""
    with torch.inference_mode():
        call()


def training_step(call: Callable[[], Tensor]) -> None:
    """Forward and backward."""
    call().float().square().mean().backward()


def in_precision(call: Callable[[], Tensor], precision: str) -> Callable[[], Tensor]:
    """The call under autocast, entered anew each time as in training, so that the weights are cast each time."""

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return call()

    return run


def kept(call: Callable[[], Tensor], network: nn.Module) -> float:
    """Megabytes that a call keeps until its backward pass, beside the weights: the most of what training needs."""
    sizes: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = call()
    del out  # until here, so that no two tensors had the same place
    return sum(sizes.values()) / 1e6


def medians(calls: list[Callable[[], None]], rounds: int) -> list[float]:
    """Median seconds of each, the rounds taken in turn after one to warm up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for call, taken in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            if turn:
                taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in seconds]


if __name__ == "__main__":
    main()
