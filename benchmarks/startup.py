"""How long until something happens: the command's help, the import, 16 molecules from a cold start?

    python benchmarks/startup.py [--checkpoint FOLDER] [--rounds 5]

Each command is a process of its own; the medians of its processor time and of the wall clock are printed.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run every command some times in turn and print a Markdown table."""
    args = arguments()
    tasks = commands(args)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for _ in range(args.rounds):
        for name, command in tasks.items():
            with tempfile.TemporaryDirectory() as folder:
                spent[name].append(run([part.replace("OUT", folder) for part in command]))
    cpu, wall = ({name: statistics.median(t[k] for t in times) for name, times in spent.items()} for k in (0, 1))
    print("| what | processor time, s | wall clock, s |\n| --- | --- | --- |")
    for name in tasks:
        print(f"| {name} | {cpu[name]:.3f} | {wall[name]:.3f} |")
    beyond = [1e3 * (clock["import multidiff"] - clock["import torch"]) for clock in (cpu, wall)]
    print(
        f"\n`import multidiff` beyond `import torch`: {beyond[0]:.0f} ms of processor time, {beyond[1]:.0f} ms of wall"
    )


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """What is measured; OUT stands for an empty folder."""
    python, tool = [sys.executable, "-c"], [sys.executable, "-m", "multidiff"]
    tasks = {
        "import torch": [*python, "import torch"],
        "import multidiff": [*python, "import torch, multidiff"],
        "multidiff --help": [*tool, "--help"],
    }
    if args.checkpoint != "none":
        generate = [*tool, "generate", "molecules", "--num-samples", "16", "--seed", "0"]
        tasks["generate 16 molecules"] = [*generate, "--checkpoint", args.checkpoint, "--out", str(Path("OUT") / "out")]
    return tasks


def run(command: list[str]) -> tuple[float, float]:
    """Processor and wall seconds of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="molecules-qm9", help="name, folder, or 'none' to leave it out")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is run (default: 3)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
