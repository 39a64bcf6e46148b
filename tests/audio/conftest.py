"""A small checkpoint of sounds with random weights, and sounds made in code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

RATE = 8000
REPRESENTATIONS: dict[str, dict[str, Any]] = {
    "complex": {"class": "ComplexSTFT", "rate": RATE, "n_fft": 64, "hop": 32, "fold_time": 2},
    "mel": {"class": "LogMel", "rate": RATE, "n_fft": 128, "hop": 32, "mels": 16, "fold_time": 4, "offset": -4.0},
}
WORDS = ["a", "by", "dog", "rain", "seven", "spoken", "theo", "two"]
SIZES: dict[str, Any] = {"widths": [8], "width": 16, "layers": 1, "heads": 2, "text_width": 8, "text_layers": 1}
CLASSES = {"speaker": ["jackson", "theo"], "word": ["seven", "two"]}
RECOMMENDED = {
    "solver": "dpm++2m",
    "grid": "log-snr",
    "num_inference_steps": 3,
    "steps_range": [2, 50],
    "guidance_scale": 1.5,
    "guidance_range": [1.0, 4.0],
}


def config(channels: int = 1, kind: str = "complex", **changed: Any) -> dict[str, Any]:
    """Of a tiny checkpoint; keywords replace keys of it, of the network's those that are given."""
    from multidiff import checkpoint
    from multidiff_audio import representation

    spelled = {**REPRESENTATIONS[kind], "channels": channels}
    shape = checkpoint.build(spelled, representation.REPRESENTATIONS, Path("tiny"), "representation").shape
    network = {"class": "SpectrogramUNet", "channels": shape[0], "bands": shape[1], **SIZES}
    network |= {"text_size": len(WORDS) + 2, "text_longest": 6, "classes": [2, 2], "fold_time": spelled["fold_time"]}
    return {
        "domain": "audio",
        "schedule": {"class": "Cosine"},
        "prediction": "v",
        "representation": spelled,
        "vocabulary": {"words": WORDS, "longest": 6},
        "classes": CLASSES,
        "durations": {"shortest": 0.05, "longest": 0.5},
        "recommended": RECOMMENDED,
        **changed,
        "network": {**network, **changed.get("network", {})},
    }


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Any]:
    """Builds a pipeline; `channels` 2 makes it stereo, `kind` "mel" one of log-mel, further keywords replace keys of
    its configuration."""

    def make(**changed: Any) -> Any:
        from multidiff import checkpoint
        from multidiff_audio import domain
        from multidiff_audio.pipeline import AudioPipeline

        spelled = config(**changed)
        torch.manual_seed(0)
        network = checkpoint.build(spelled["network"], domain.components, "tiny", "network")
        with torch.no_grad():  # the last layers begin at zero, which would hide much
            for weight in network.parameters():
                if not weight.any():
                    weight.normal_(std=0.1)
        pipe = AudioPipeline.from_checkpoint(spelled, network.state_dict())
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


@pytest.fixture(params=list(REPRESENTATIONS))
def either(request: pytest.FixtureRequest, make_tiny: Callable[..., Any]) -> Any:
    """A fresh pipeline of each representation."""
    return make_tiny(kind=request.param)


@pytest.fixture(scope="session")
def sound() -> np.ndarray:
    """(1, 3001) at RATE: a gliding tone with a fade, the length of no whole frame."""
    t = np.arange(3001) / RATE
    glide = np.sin(2 * np.pi * (300 * t + 900 * t**2)) * np.exp(-2 * t)
    return (0.4 * glide[None]).astype(np.float32)


@pytest.fixture(scope="session")
def sound_file(sound: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a WAV file of 16 bits."""
    import soundfile

    path = tmp_path_factory.mktemp("sounds") / "glide.wav"
    soundfile.write(path, sound.T, RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def speech() -> Callable[..., np.ndarray]:
    """Makes (1, samples) like speech: a buzz with formants that move, in bursts, and a little noise; each seed another
    voice."""

    def make(seconds: float = 1.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        t = np.arange(round(seconds * rate)) / rate
        buzz = np.sign(np.sin(2 * np.pi * (120 + 37 * seed % 110) * t))
        voice = buzz * (1.1 + np.sin(2 * np.pi * (500 + 161 * seed % 900 + 300 * np.sin(5 * t)) * t))
        bursts = np.sin(2 * np.pi * 3 * t + 0.1) > -0.3
        return (0.1 * voice * bursts + 0.001 * rng.standard_normal(len(t))).astype(np.float32)[None]

    return make


@pytest.fixture(scope="session")
def make_clips(speech: Callable[..., np.ndarray]) -> Callable[..., Any]:
    """Packs short sounds, a class of each attribute a sound, the last `test` of them to test on.

    Those of the same classes have the same voice, which says something else.
    """

    def make(attributes: dict[str, list[str]], test: int, rate: int = RATE, seconds: float = 0.4) -> Any:
        from multidiff_audio.clips import PackedClips

        kinds = list(zip(*attributes.values(), strict=True))
        voices = sorted(set(kinds))
        starts = [0.013 * i for i in range(len(kinds))]
        sounds = [
            speech(start + seconds, rate, 100 + voices.index(kind))[:, round(start * rate) :]
            for start, kind in zip(starts, kinds, strict=True)
        ]
        return PackedClips.pack(sounds, rate, None, attributes, [0] * (len(kinds) - test) + [2] * test)

    return make
