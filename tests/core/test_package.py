"""What `import multidiff` offers, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import multidiff


def test_names_and_modules_are_there_when_asked_for() -> None:
    assert multidiff.solver.DDIM().plan
    assert multidiff.grid.Karras(rho=7)
    for name in multidiff.__all__:
        assert getattr(multidiff, name) is not None
    assert callable(multidiff.sample)


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys, multidiff, multidiff.sample, multidiff.solver, multidiff.guidance, multidiff.pipeline\n"
        "heavy = {'lightning', 'diffusers', 'transformers', 'e3nn', 'rdkit', 'scipy', 'torchmetrics', 'torchaudio'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
