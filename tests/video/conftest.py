"""A small checkpoint of clips with random weights, and clips made in code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SIZE, WINDOW, RATE = 16, 8, 10.0
SIZES: dict[str, Any] = {"patch": 2, "widths": [8, 16], "width": 48, "layers": 2, "heads": 2}
SIZES |= {"text_width": 16, "text_layers": 1}
NETWORK: dict[str, Any] = {"class": "VideoUNet", **SIZES}
RECOMMENDED = {
    "solver": "unipc2",
    "grid": "uniform",
    "num_inference_steps": 3,
    "steps_range": [2, 50],
    "guidance_scale": 2.0,
    "guidance_range": [1.0, 8.0],
}


def config(**changed: Any) -> dict[str, Any]:
    """Of a tiny checkpoint; keywords replace keys of it, of the network's and the pixels' those that are given."""
    from multidiff.conditioning.text import Vocabulary
    from multidiff_video.digits import words

    vocabulary = Vocabulary.of(words(), 20)
    pixels = {"channels": 1, "height": SIZE, "width": SIZE, "mean": 0.1, "deviation": 0.25, **changed.get("pixels", {})}
    network = {**NETWORK, "channels": pixels["channels"], "text_size": len(vocabulary), "text_longest": 20}
    return {
        "domain": "video",
        "schedule": {"class": "Shifted", "schedule": {"class": "Cosine"}, "shift": 4.0},
        "prediction": "v",
        "frames": WINDOW,
        "fps": RATE,
        "vocabulary": {"words": list(vocabulary.known), "longest": 20},
        "recommended": RECOMMENDED,
        **changed,
        "pixels": pixels,
        "network": {**network, **changed.get("network", {})},
    }


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Any]:
    """Builds a pipeline; keywords replace keys of its configuration."""

    def make(**changed: Any) -> Any:
        from multidiff import checkpoint
        from multidiff_video import domain
        from multidiff_video.pipeline import VideoPipeline

        spelled = config(**changed)
        torch.manual_seed(0)
        network = checkpoint.build(spelled["network"], domain.components, "tiny", "network")
        with torch.no_grad():  # the last layers begin at zero, which would hide much
            for weight in network.parameters():
                if not weight.any():
                    weight.normal_(std=0.1)
        pipe = VideoPipeline.from_checkpoint(spelled, network.state_dict())
        pipe.card, pipe.name = "# Tiny\n", "tiny"
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


@pytest.fixture(scope="session")
def clip() -> np.ndarray:
    """(10, 16, 16, 1): a digit that moves by a pixel a frame."""
    from multidiff_video.digits import Actor, MovingDigits, drawn_glyphs

    scenes = MovingDigits(drawn_glyphs(), SIZE)
    return scenes.render((Actor(3, 20, "right", (0.0, 0.5), 1 / 9),), 10)


@pytest.fixture(scope="session")
def picture(clip: np.ndarray) -> np.ndarray:
    """(16, 16), one frame of it."""
    return clip[5, ..., 0]


@pytest.fixture(scope="session")
def picture_file(picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a gray PNG."""
    from PIL import Image

    path = tmp_path_factory.mktemp("pictures") / "three.png"
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture(scope="session")
def frames_folder(clip: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as a folder of PNG files, which lose nothing."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("frames")
    for k, frame in enumerate(clip):
        Image.fromarray(frame[..., 0]).save(folder / f"frame-{k:03d}.png")
    return folder
