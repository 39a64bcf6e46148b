"""A small checkpoint of the molecules, with random weights."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background, which processes of tests inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # networks here are tiny, and threads of two test processes would wait for each other

NETWORK = {
    "class": "MoleculeNetwork",
    "num_elements": 4,
    "num_charges": 3,
    "width": 16,
    "vectors": 4,
    "pair_width": 8,
    "layers": 2,
    "heads": 2,
}
CONFIG: dict[str, Any] = {
    "domain": "molecules",
    "network": NETWORK,
    "schedule": {"class": "Cosine"},
    "vocabulary": {"elements": [1, 6, 7, 8], "charges": [-1, 0, 1], "position_scale": 1.72},
    "sizes": {"3": 1, "5": 3, "6": 2},
    "recommended": {"solver": "dpm++2m", "grid": "uniform", "num_inference_steps": 3, "steps_range": [2, 50]},
}


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Any]:
    """Builds a pipeline; keywords replace keys of its configuration."""

    def make(**changed: Any) -> Any:
        pytest.importorskip("rdkit")
        from multidiff_molecules.network import MoleculeNetwork
        from multidiff_molecules.pipeline import MoleculePipeline

        torch.manual_seed(0)
        network = MoleculeNetwork(**{key: value for key, value in NETWORK.items() if key != "class"})
        with torch.no_grad():  # the last layers begin at zero, which would hide much
            for weight in network.parameters():
                if not weight.any():
                    weight.normal_(std=0.05)
        pipe = MoleculePipeline.from_checkpoint({**CONFIG, **changed}, network.state_dict())
        pipe.card = "# Tiny\n"
        return pipe

    return make


@pytest.fixture(scope="session")
def tiny(make_tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder."""
    folder: Path = make_tiny().save_pretrained(tmp_path_factory.mktemp("checkpoints") / "tiny")
    return folder


@pytest.fixture
def pipe(tiny: Path) -> Any:
    """Its pipeline, fresh."""
    import multidiff

    return multidiff.load(tiny)
