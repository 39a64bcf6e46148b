"""What does the molecule network cost beside an EGNN of the EDM paper's size and e3nn's tensor products?

One row a network: weights, arithmetic, time of a forward pass and of a training step, all a molecule.

    python benchmarks/network.py
    python benchmarks/network.py --device cuda --precision bf16 --batch-size 1024 --peak-tflops 989
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peers.e3nn_layer import RADIAL, TensorProductLayer
from peers.egnn import EGNN, TYPES
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from multidiff.random import Rng
from multidiff.state import Parts
from multidiff_molecules.network import Layer, MoleculeNetwork, RadialBasis
from multidiff_molecules.representation import space

Outputs = list[Tensor]


@dataclass(frozen=True)
class Case:
    """A network and a call of it."""

    name: str
    module: nn.Module
    call: Callable[[], Outputs]


def main() -> None:
    """Measure every network in turn, several rounds, and print the fastest round of each."""
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    groups = {"whole networks": networks(args), "one layer, 64 scalars and 64 vectors": layers(args)}
    if args.device != "cpu":
        del groups["one layer, 64 scalars and 64 vectors"]
    print(f"{args.batch_size} molecules of {args.atoms} atoms, {args.precision}, {args.device}, {args.threads} threads")
    for title, cases in groups.items():
        print(f"\n{title}\n" + "\n".join(table(cases, args)))


def networks(args: argparse.Namespace) -> list[Case]:
    """Ours in several sizes, and the EGNN."""
    sizes: dict[str, dict[str, Any]] = {
        "ours, as shipped": {"width": 128, "vectors": 32, "pair_width": 48, "layers": 6},
        "ours, small": {"width": 112, "vectors": 24, "pair_width": 48, "layers": 5},
        "ours, large": {"width": 256, "vectors": 48, "pair_width": 64, "layers": 8},
        "ours, as shipped, degree 2": {"width": 128, "vectors": 32, "pair_width": 48, "layers": 6, "degree": 2},
    }
    cases = [ours(name, size, args) for name, size in sizes.items()]
    return [*cases, egnn(args)]


def ours(name: str, size: dict[str, Any], args: argparse.Namespace) -> Case:
    """The molecule network with a last estimate to look at."""
    network = MoleculeNetwork(4, **size).to(args.device)
    b, n = args.batch_size, args.atoms
    where = space(torch.full((b,), n, device=args.device), n)
    shapes = {"positions": (b, n, 3), "atoms": (b, n, 4), "charges": (b, n, 3), "bonds": (b, n, n, 4)}
    like = Parts({part: torch.zeros(shape, device=args.device) for part, shape in shapes.items()})
    x, previous = (where.noise(Rng.batch(seed, args.device), like) for seed in (0, 1))
    level = torch.linspace(-3, 3, b, device=args.device)
    return Case(name, network, lambda: list(network(x, level, space=where, previous=previous).values()))


def egnn(args: argparse.Namespace) -> Case:
    """The EDM paper's network at its size for QM9."""
    network = EGNN().to(args.device)
    x = torch.randn(args.batch_size, args.atoms, 3, device=args.device)
    h = torch.randn(args.batch_size, args.atoms, TYPES + 1, device=args.device)
    mask = torch.ones(args.batch_size, args.atoms, dtype=torch.bool, device=args.device)
    return Case("EGNN 9 x 256 (EDM)", network, lambda: list(network(x, h, mask)))


def layers(args: argparse.Namespace) -> list[Case]:
    """One layer of each kind at 64 scalars and 64 vectors."""
    b, n, channels = args.batch_size, args.atoms, 64
    x = torch.randn(b, n, 3)
    radial = RadialBasis(RADIAL)((x[:, :, None] - x[:, None]).norm(dim=-1) + 0.3)
    h = torch.randn(b, n, 4 * channels)
    cases = [layer_of_ours(b, n, channels)]
    for depthwise in (True, False) if args.full else (True,):
        module = TensorProductLayer(channels, depthwise)
        name = "e3nn, depthwise" if depthwise else "e3nn, fully connected"
        cases.append(Case(name, module, lambda module=module: [module(x, h, radial)]))  # type: ignore[misc]
    return cases


def layer_of_ours(b: int, n: int, channels: int) -> Case:
    """A layer with its pair stream, on random inputs."""
    layer = Layer(channels, channels, 48, 8, RADIAL)
    scalars, vectors, pair = torch.randn(b, n, channels), torch.randn(b, n, 3, channels), torch.randn(b, n, n, 48)
    geometry = (torch.randn(b, n, 4, n) / n**0.5, torch.rand(b, n, n, RADIAL))
    noise, hidden = torch.randn(b, channels), torch.zeros(b, 1, 1, n)
    return Case("ours", layer, lambda: list(layer(scalars, vectors, pair, noise, geometry, hidden)))


def table(cases: list[Case], args: argparse.Namespace) -> list[str]:
    """Lines of a Markdown table; times are of the fastest round, ratios to the first row."""
    forward, training = (fastest([step(case, args) for case in cases], args) for step in (forward_step, training_step))
    clock = "ms" if args.device != "cpu" else "CPU ms"
    heads = [
        "network",
        "weights, M",
        "forward, MFLOP",
        f"forward, {clock}",
        f"training step, {clock}",
        "ratio, forward",
    ]
    heads += ["ratio, training", "trained a second"] + (["share of the peak"] if args.peak_tflops else [])
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for case, f, t in zip(cases, forward, training, strict=True):
        weights = sum(weight.numel() for weight in case.module.parameters()) / 1e6
        flops, learned = flop_count(case, args)
        cells = [case.name, f"{weights:.2f}", f"{flops / 1e6:.0f}", f"{1e3 * f:.3g}", f"{1e3 * t:.3g}"]
        cells += [f"{f / forward[0]:.2f}", f"{t / training[0]:.2f}", f"{1 / t:,.0f}"]
        cells += [f"{learned / t / args.peak_tflops / 1e12:.1%}"] if args.peak_tflops else []
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def flop_count(case: Case, args: argparse.Namespace) -> tuple[float, float]:
    """Floating-point operations of the matrix products, a molecule: of a forward pass, and of a training step."""
    with FlopCounterMode(display=False) as forward:
        outputs = case.call()
    with FlopCounterMode(display=False) as backward:
        loss(outputs).backward()
    one, both = forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops()
    return one / args.batch_size, both / args.batch_size


def forward_step(case: Case, args: argparse.Namespace) -> Callable[[], None]:
    """A call as sampling makes it."""

    def run() -> None:
        with torch.inference_mode(), autocast(args):
            case.call()

    return run


def training_step(case: Case, args: argparse.Namespace) -> Callable[[], None]:
    """Forward and backward; no optimiser, which every network needs alike."""

    def run() -> None:
        case.module.zero_grad()
        with autocast(args):
            outputs = case.call()
        loss(outputs).backward()

    return run


def loss(outputs: Outputs) -> Tensor:
    """Any number that every output enters."""
    return torch.stack([out.float().square().mean() for out in outputs]).sum()


def autocast(args: argparse.Namespace) -> torch.autocast:
    """The precision asked for."""
    return torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16")


def fastest(runs: list[Callable[[], None]], args: argparse.Namespace) -> list[float]:
    """Seconds a molecule of each run; rounds are interleaved, so that a busy machine is busy for all alike."""
    for run in runs:
        run()
    best = [float("inf")] * len(runs)
    for _ in range(args.rounds):
        best = [min(old, seconds(run, args) / args.batch_size) for old, run in zip(best, runs, strict=True)]
    return best


def seconds(run: Callable[[], None], args: argparse.Namespace) -> float:
    """Process time on a CPU, where other programs may be running; wall time on a GPU, over ten runs."""
    if args.device == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / 10


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=18, help="of each molecule (default: 18)")
    parser.add_argument("--batch-size", type=int, default=64, help="molecules (default: 64)")
    parser.add_argument("--rounds", type=int, default=2, help="the fastest counts (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--peak-tflops", type=float, help="of the device: adds the share of it that training reaches")
    parser.add_argument("--full", action="store_true", help="also e3nn's fully connected product: slow, 2 GB")
    return parser.parse_args()


if __name__ == "__main__":
    main()
