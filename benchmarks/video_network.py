"""What does a call, and a training step, of the video network cost beside two of diffusers?

UNet3DConditionModel and UNetMotionModel have about the same number of weights and see the same input: clips of the
recipe's size and as many text vectors as the prompt has words. They have their usual four levels and two layers a
level, but do not attend at full resolution, which would double their cost. Rounds alternate between the networks;
medians are printed, and ours over theirs.

Memory is what one training step holds at its peak beside the weights, their moments and all that the program itself
takes, in a process of its own for each network.

    python benchmarks/video_network.py
    python benchmarks/video_network.py --frames 2 --size 32 --rounds 1    # a glance, no measurement
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

import multidiff_video
from multidiff.conditioning.text import Vocabulary
from multidiff.state import Parts
from multidiff_video.digits import caption, words
from multidiff_video.network import VideoUNet

RECIPE = Path(multidiff_video.__file__).parent / "configs/video-digits.yaml"
PEERS = {"UNet3DConditionModel": (32, 56, 80, 96), "UNetMotionModel": (32, 48, 80, 104)}
"""Channels of the levels; together with four heads they have as many weights as the recipe's network."""
PRECISIONS = ("float32", "bfloat16")
TEXT = 128
PROMPT = caption([(3, "left"), (7, "up then down")])

Step = Callable[[], None]


def main() -> None:
    """Measure and print a table."""
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.memory_of:
        print(peak_memory(args.memory_of, args))
        return
    names = ["ours", *args.peer]
    networks = {name: built(name).to(args.device) for name in names}
    check_sizes(networks)
    steps = {name: prepared(name, network, args) for name, network in networks.items()}
    print(f"batch {args.batch_size}, {args.frames} frames of {args.size} x {args.size}, {args.device}")
    print("\n| precision | what | " + " | ".join([*names, *(f"ours / {name}" for name in args.peer)]) + " |")
    print("|" + " --- |" * (2 + len(names) + len(args.peer)))
    for precision in args.precision:
        for i, what in enumerate(("forward", "training step")):
            if what in args.what:
                rounds = [within(steps[name][i], precision, args.device) for name in names]
                print(row(precision, f"{what}, s", medians(rounds, args.rounds), "{:.3f}"), flush=True)
        if "memory" in args.what:
            found = [in_its_own_process(name, precision) for name in names]
            print(row(precision, "peak memory of a training step, MB", found, "{:.0f}"), flush=True)


def check_sizes(networks: dict[str, nn.Module]) -> None:
    """Print how many weights there are; leave if they are not comparable."""
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    print("weights: " + ", ".join(f"{name} {size / 1e6:.2f} M" for name, size in sizes.items()))
    far = [name for name, size in sizes.items() if abs(size / sizes["ours"] - 1) > 0.1]
    if far:
        sys.exit(f"{', '.join(far)}: more than 10 % from ours; change its channels in PEERS")


# --------------------------------------------------------------------------------------------------------- networks


def built(name: str) -> nn.Module:
    """A network of that name. Weights that begin at zero are drawn: a trained network has none."""
    network = recipe_network() if name == "ours" else peer(name)
    for weight in network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.02)
    return network


def recipe_network() -> VideoUNet:
    """As the recipe trains it, for gray clips and the words of moving digits."""
    spec = yaml.safe_load(RECIPE.read_text())["model"]["init_args"]["network"]
    sizes = {"text_width": TEXT, **{key: value for key, value in spec.items() if key != "class"}}
    return VideoUNet(channels=1, text_size=len(Vocabulary.of(words())), **sizes)


def peer(name: str) -> nn.Module:
    """One of diffusers'; its `attention_head_dim` is the number of heads, under a wrong name."""
    import diffusers

    kind = "3D" if name == "UNet3DConditionModel" else "Motion"
    heads: dict[str, Any] = {"attention_head_dim": 4}
    if kind == "Motion":
        heads = {"num_attention_heads": 4, "motion_num_attention_heads": 4}
    return getattr(diffusers, name)(
        in_channels=1,
        out_channels=1,
        block_out_channels=PEERS[name],
        down_block_types=(f"DownBlock{kind}", *(f"CrossAttnDownBlock{kind}",) * 2, f"DownBlock{kind}"),
        up_block_types=(f"UpBlock{kind}", *(f"CrossAttnUpBlock{kind}",) * 2, f"UpBlock{kind}"),
        layers_per_block=2,
        cross_attention_dim=TEXT,
        norm_num_groups=8,
        **heads,
    )


def called(name: str, network: nn.Module, args: argparse.Namespace) -> Callable[[], Tensor]:
    """A call on noise. Encoding the words is a part of ours; the peers are given vectors."""
    batch, device = args.batch_size, args.device
    x = torch.randn(batch, args.frames, 1, args.size, args.size, device=device)
    tokens = Vocabulary.of(words()).batch([PROMPT] * batch).to(device)
    if name == "ours":
        cond, level = Parts(tokens=tokens), torch.zeros(batch, device=device)
        return lambda: network(x, level, cond)
    text = torch.randn(batch, tokens.shape[1], TEXT, device=device)
    if name == "UNetMotionModel":  # which wants them once a frame
        text = text.repeat_interleave(args.frames, 0)
    t, channels_first = torch.full((batch,), 500, device=device), x.transpose(1, 2).contiguous()
    return lambda: network(channels_first, t, text).sample


# ------------------------------------------------------------------------------------------------------------- time


def prepared(name: str, network: nn.Module, args: argparse.Namespace) -> tuple[Step, Step]:
    """A forward call without gradients, and a training step with AdamW, whose moments are there already."""
    call = called(name, network, args)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5)
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    optimiser.step()
    optimiser.zero_grad()

    def forward() -> None:
        with torch.inference_mode():
            call()

    def training_step() -> None:
        call().float().square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    return forward, training_step


def within(step: Step, precision: str, device: str) -> Step:
    """A step under autocast, entered anew each time as in training, so that the weights are cast each time."""

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def medians(calls: list[Step], rounds: int) -> list[float]:
    """Median seconds of each, the rounds taken in turn after one to warm up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for call, taken in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            if turn:
                taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in seconds]


# ----------------------------------------------------------------------------------------------------------- memory


def in_its_own_process(name: str, precision: str) -> float:
    """`peak_memory`, with the options that this process was given."""
    command = [sys.executable, __file__, *sys.argv[1:], "--precision", precision, "--memory-of", name]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def peak_memory(name: str, args: argparse.Namespace) -> float:
    """Megabytes that a training step takes at its peak beside what there was before it."""
    step = within(prepared(name, built(name).to(args.device), args)[1], args.precision[0], args.device)
    if args.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is the step's, not the imports'
    before, _ = resident()
    step()
    return resident()[1] - before


def resident() -> tuple[float, float]:
    """Megabytes of this process in memory, now and at their peak.

    On Linux `ru_maxrss` begins at that of the process that started this one, and is of no use; elsewhere it is what
    there is, and both numbers are the peak.
    """
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        now, peak = (int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    except (OSError, KeyError):
        now = peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return now / 1e6, peak / 1e6


def row(precision: str, what: str, values: list[float], form: str) -> str:
    """A row of the table."""
    cells = [precision, what, *(form.format(v) for v in values), *(f"{values[0] / v:.3f}" for v in values[1:])]
    return "| " + " | ".join(cells) + " |"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("forward", "training step", "memory")
    parser.add_argument("--what", choices=kinds, nargs="+", default=kinds)
    parser.add_argument("--peer", choices=PEERS, nargs="+", default=list(PEERS))
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="pixels a side, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=3, help="beside one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # what a process of its own measures
    return parser.parse_args()


if __name__ == "__main__":
    main()
