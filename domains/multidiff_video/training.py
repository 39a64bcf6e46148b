"""What `multidiff fit` needs to train on clips."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from multidiff.conditioning.text import Vocabulary
from multidiff.errors import InputError
from multidiff.lightning.data import TRAIN
from multidiff.lightning.exporting import CONFIG
from multidiff.lightning.prompted import RECOMMENDED, PromptedModule
from multidiff.random import Rng
from multidiff.train import times as densities
from multidiff.train import weighting as weightings
from multidiff.train.ema import EMA
from multidiff.train.objective import Objective
from multidiff_video import domain
from multidiff_video.generated import VideoOutput
from multidiff_video.loading import Chances, VideoData, Videos
from multidiff_video.network import VideoUNet
from multidiff_video.pixels import Pixels

__all__ = ["VideoData", "VideoModule"]

_MEASURED = 256
"""Clips that the mean and deviation of brightness are measured on."""


class VideoModule(PromptedModule):
    """A network over clips, its process and its loss.

    The size of the frames and the words are those of the data, and the network is built for them when the data has
    been opened.

    Args:
        network: ``{class: VideoUNet, ...}`` with the sizes that the class takes.
        recommended: settings for the checkpoint's users: solver, grid, num_inference_steps, steps_range,
            guidance_scale, guidance_above.
        text_longest: words that a prompt can have.
        text: share of the samples that are given their prompt; the others teach what guidance moves away from.
        first, some, ends: share of the clips of which the first frame, the first few, or the first and last (for half
            of them two or three anywhere) are given.
        pictures: share of the steps that are taken on single frames, eight for each clip.
        forcing: share of the clips each of whose frames has a noise level of its own (Chen et al. 2024, "Diffusion
            Forcing").
        shift: times the noise of the cosine schedule at every time: the more alike frames are, the more noise it takes
            to hide what happens in them (Hoogeboom et al. 2023, section 3.1).
        times: how noise levels are drawn: uniform, power, log-normal or logit-normal.
        weighting: of the error: edm, min-snr, sigmoid or uniform.
        learning_rate, warmup_steps, decay_fraction, weight_decay, ema_decay, seed: see `DiffusionModule`.
    """

    domain = domain
    noun = "clips"

    def __init__(
        self,
        network: dict[str, Any],
        recommended: dict[str, Any] | None = None,
        text_longest: int = 20,
        text: float = 0.88,
        first: float = 0.2,
        some: float = 0.15,
        ends: float = 0.15,
        pictures: float = 0.25,
        forcing: float = 0.15,
        shift: float = 4.0,
        times: str = "uniform",
        weighting: str = "edm",
        learning_rate: float = 1e-3,
        warmup_steps: int = 200,
        decay_fraction: float = 0.6,
        weight_decay: float = 1e-4,
        ema_decay: float = 0.999,
        seed: int = 0,
    ) -> None:
        if min(first, some, ends, pictures) < 0 or first + some + ends > 1 or pictures > 1:
            raise InputError(
                "model.first, some, ends and pictures are shares: 0 or more, the first three at most 1 in all"
            )
        self.pixels = Pixels(1, 64, 64)
        self.vocabulary = Vocabulary((), text_longest)
        self.fps, self.frames = 10.0, 16
        self.network_spec = dict(network)
        self.schedule_spec = {"class": "Shifted", "schedule": {"class": "Cosine"}, "shift": shift}
        objective = Objective(weighting=weightings.make(weighting), times=densities.make(times), self_conditioning=0.0)
        super().__init__(
            self.built(),
            objective,
            learning_rate,
            warmup_steps,
            decay_fraction,
            weight_decay,
            ema_decay,
            seed,
        )
        self.chances = Chances(text, first, some, ends, pictures)
        self.forcing = forcing
        self.recommended = {**RECOMMENDED, **(recommended or {})}
        self.save_hyperparameters()

    def learn_about(self, videos: Videos, frames: int) -> None:
        """Take up what the data holds, and build the network for it."""
        self.vocabulary = Vocabulary.of(videos.texts(), self.vocabulary.longest)
        self.fps, self.frames = videos.fps, frames
        self.pixels = measured(videos, frames)
        self.denoiser = self.built()
        multiple = cast(VideoUNet, self.denoiser.network).multiple
        height, width, _ = videos.shape
        if height % multiple or width % multiple:
            raise InputError(
                f"frames of {height} x {width} pixels do not suit this network: sides must be multiples of {multiple}; "
                "prepare them at another size, or change model.network.patch or widths"
            )
        self.ema = EMA(self.denoiser.network, self.ema.decay)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The frames stay in the units that the weights were trained in, whatever is trained on from here."""
        super().on_load_checkpoint(checkpoint)
        if CONFIG in checkpoint:
            self.pixels = Pixels(**checkpoint[CONFIG]["pixels"])

    def network_config(self) -> dict[str, Any]:
        """The network as config.json spells it."""
        return {
            **self.network_spec,
            "channels": self.pixels.channels,
            "text_size": len(self.vocabulary),
            "text_longest": self.vocabulary.longest,
        }

    def times(self, x0: Tensor, rng: Rng) -> Tensor:
        """(B, T): one time for all frames of most clips, a time a frame for a share of them."""
        process, device = self.denoiser.process, x0.device
        whole = self.objective.times.draw(len(x0), process, rng, device)[:, None]
        each = self.objective.times.draw(x0.shape[0] * x0.shape[1], process, rng, device).view(x0.shape[:2])
        apart = rng.uniform(len(x0), device) < self.forcing
        return torch.where(apart[:, None], each, whole)

    # --------------------------------------------------------------------------------------------------- results

    def export_config(self) -> dict[str, Any]:
        """What config.json of a checkpoint folder says."""
        return {
            "domain": "video",
            "network": self.network_config(),
            "schedule": self.schedule_spec,
            "prediction": "v",
            "pixels": asdict(self.pixels),
            "frames": self.frames,
            "fps": self.fps,
            "vocabulary": {"words": list(self.vocabulary.known), "longest": self.vocabulary.longest},
            "recommended": dict(self.recommended),
        }

    def picture(self, count: int) -> bytes | None:
        """A contact sheet of `count` samples, their prompts taken from the data."""
        from multidiff_video.render import contact_sheet

        made = self.pipeline()(self.prompts(count), seed=self.seed)
        assert isinstance(made, VideoOutput)
        return contact_sheet(made.frames, made.fps, made.prompts)

    def prompts(self, count: int) -> list[str]:
        videos: Videos = self.trainer.datamodule.videos  # type: ignore[attr-defined]
        rows = videos.count(TRAIN)
        numbers = [i * rows // count for i in range(count)]
        return [videos.window(TRAIN, row, 1, np.random.default_rng(row), False)[1] for row in numbers]


def measured(videos: Videos, frames: int) -> Pixels:
    """The mean and deviation of brightness over a part of the training data."""
    rows = videos.count(TRAIN)
    sums = np.zeros(3)
    for row in range(0, rows, max(1, rows // _MEASURED)):
        clip, _ = videos.window(TRAIN, row, frames, np.random.default_rng(row), False)
        bright = clip.astype(np.float64) / 255
        sums += [bright.size, bright.sum(), np.square(bright).sum()]
    mean, square = sums[1] / sums[0], sums[2] / sums[0]
    if not square > mean**2:
        raise InputError("the frames of the training split all have one and the same brightness")
    height, width, channels = videos.shape
    return Pixels(channels, height, width, float(mean), math.sqrt(square - mean**2))
