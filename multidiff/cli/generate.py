"""multidiff generate: samples into a folder."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from multidiff import domain as domains
from multidiff.cli import options
from multidiff.errors import InputError

if TYPE_CHECKING:
    import torch

DESCRIPTION = """Make samples and write them into a folder.

The same command run again continues a job that was interrupted. A sample depends on the seed and its number alone:
not on the batch size, the device's neighbours or an interruption."""

EXAMPLES = """\
  multidiff generate molecules --num-samples 100 --seed 0 --out out/
  multidiff generate molecules --num-samples 100 --num-atoms 18 --steps 50 --out big/
  multidiff generate audio "seven, spoken by theo" --num-samples 4 --out seven/
  multidiff generate video "a 3 moving left" --num-samples 4 --out clips/
  multidiff generate molecules --checkpoint runs/mine/export --out mine/

'multidiff generate DOMAIN --help' lists what the domain adds."""

OWN = (
    "domain", "num_samples", "seed", "out", "checkpoint", "steps",
    "solver", "guidance_scale", "batch_size", "device",
)  # fmt: skip


def run(command: str, args: list[str]) -> int:
    """Load the checkpoint and hand the job over."""
    started = time.perf_counter()
    if not args or args[0] in ("-h", "--help"):
        _parser(None).print_help()
        return 0
    domain = domains.find(options.domain_of(args, _add_arguments, command))
    parsed = _parser(domain).parse(args)
    call = options.extras(parsed, OWN)
    for name, value in (
        ("num_inference_steps", parsed.steps),
        ("solver", parsed.solver),
        ("guidance_scale", parsed.guidance_scale),
    ):
        if value is not None:
            call[name] = value

    from multidiff import checkpoint, files

    out = files.writable_folder(parsed.out)
    folder = checkpoint.resolve(parsed.checkpoint or domain.default_checkpoint)
    made_for = checkpoint.read_config(folder)["domain"]
    if made_for != domain.name:
        raise InputError(f"{folder} is a checkpoint for {made_for}; use 'multidiff generate {made_for}'")

    from multidiff import generation, load

    device = _device(parsed.device)
    with _one_line_warnings():
        pipe = load(folder).to(device)
        return generation.run_job(
            pipe,
            out,
            num_samples=parsed.num_samples,
            seed=parsed.seed,
            batch_size=parsed.batch_size,
            call=call,
            load_seconds=time.perf_counter() - started,
        )


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Show what concerns the user's settings, a line each; what libraries say to programmers is not for here."""
    from multidiff.pipeline import SettingWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SettingWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"multidiff: warning: {message}", file=sys.stderr)
        yield


def _parser(domain: domains.Domain | None) -> options.Parser:
    return options.domain_parser("generate", DESCRIPTION, EXAMPLES, _add_arguments, domain)


def _add_arguments(parser: options.Parser) -> None:
    add = parser.add_argument
    add(
        "domain",
        nargs=None if parser.add_help else "?",
        metavar="DOMAIN",
        help="molecules, audio, video: 'multidiff list domains'",
    )
    add("-n", "--num-samples", type=options.whole(1), default=16, metavar="N", help="how many (default 16)")
    add("--seed", type=options.seed, default=0, metavar="S", help="0 <= S < 2**63 (default 0)")
    add("-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write into; made if need be")
    add("--checkpoint", metavar="NAME|FOLDER", help="what to generate with (default: the one that ships)")
    steps = options.whole(1, options.MOST_STEPS)
    add("--steps", type=steps, metavar="N", help="steps of the solver (default: the checkpoint's)")
    add("--solver", metavar="NAME", help="see 'multidiff list solvers' (default: the checkpoint's)")
    add("--guidance-scale", type=options.scale, metavar="W", help="1 is none (default: the checkpoint's)")
    add("--batch-size", type=options.whole(1), metavar="N", help="samples at a time; changes the speed alone")
    devices = options.one_of("device", ["auto", "cpu", "cuda"])
    add("--device", type=devices, default="auto", metavar="cpu|cuda|auto", help="default auto: a GPU if there is one")


def _device(name: str) -> torch.device:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no CUDA device that torch can use here; use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
