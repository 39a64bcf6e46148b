"""What `multidiff fit` needs to train on clips."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from multidiff import checkpoint
from multidiff.conditioning.text import Vocabulary
from multidiff.errors import InputError
from multidiff.lightning.data import TRAIN
from multidiff.lightning.exporting import CONFIG
from multidiff.lightning.module import Batch
from multidiff.lightning.prompted import RECOMMENDED, PromptedModule
from multidiff.random import Rng
from multidiff.train import times as densities
from multidiff.train import weighting as weightings
from multidiff.train.ema import EMA
from multidiff.train.objective import Objective
from multidiff_video import domain
from multidiff_video.generated import VideoOutput
from multidiff_video.grounding import PIECES, WEIGHTS, Grounding
from multidiff_video.loading import Chances, VideoData, Videos
from multidiff_video.network import VideoUNet
from multidiff_video.pipeline import VideoPipeline
from multidiff_video.pixels import Pixels
from multidiff_video.reading import teach

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
        weights: a checkpoint to begin from, a name or a folder; its words and the units of its frames are kept.
        reading: steps in which the text encoder is first taught, on captions alone, which digit has which motion; for
            moving digits.
        grounding: weight of the losses that tie words to what is seen (`Grounding`); for moving digits.
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
        weights: str | None = None,
        reading: int = 0,
        grounding: float = 0.0,
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
        if reading < 0 or not 0 <= grounding < math.inf:
            raise InputError(f"model.reading {reading} and model.grounding {grounding} must be 0 or more")
        self.weights, self.reading, self.grounding_weight = weights, reading, grounding
        self.grounding: Grounding | None = None
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

    @property
    def square(self) -> int:
        """Pixels on a side of the squares that the truth is asked about; 0 where it is not."""
        return cast(VideoUNet, self.denoiser.network).multiple // PIECES if self.grounding_weight else 0

    def learn_about(self, videos: Videos, frames: int) -> None:
        """Take up what the data holds, and build the network for it."""
        self.vocabulary = Vocabulary.of(videos.texts(), self.vocabulary.longest)
        self.fps, self.frames = videos.fps, frames
        self.pixels = measured(videos, frames)
        weights = None if self.weights is None else self._begin_from(self.weights)
        self.denoiser = self.built()
        network = cast(VideoUNet, self.denoiser.network)
        height, width, _ = videos.shape
        if height % network.multiple or width % network.multiple:
            raise InputError(
                f"frames of {height} x {width} pixels do not suit this network: sides must be multiples of "
                f"{network.multiple}; prepare them at another size, or change model.network.patch or widths"
            )
        if weights is not None:
            network.load_state_dict(weights)
        if self.grounding_weight:
            self.grounding = Grounding(network)
        self.ema = EMA(network, self.ema.decay)

    def _begin_from(self, name: str) -> Mapping[str, Tensor]:
        """Take up the words of a checkpoint and the units of its frames, and hand over its weights.

        Raises:
            InputError: it is none of videos, or of another network.
        """
        config, weights = checkpoint.read(name)
        folder = checkpoint.resolve(name)
        pipe = VideoPipeline.from_checkpoint(config, weights, folder)
        self.vocabulary = pipe.vocabulary
        self.pixels = replace(self.pixels, mean=pipe.pixels.mean, deviation=pipe.pixels.deviation)
        built = self.network_config()
        for key in sorted({*built, *config["network"]}):
            if built.get(key) != config["network"].get(key):
                raise InputError(
                    f"model.weights {name}: its network has {key} {config['network'].get(key)!r}, and the one to be "
                    f"trained {built.get(key)!r}; both must be of one shape"
                )
        return pipe.network.state_dict()

    def on_train_start(self) -> None:
        """Teach the text encoder to read, before the first step alone."""
        if self.reading and not self.global_step:
            network = cast(VideoUNet, self.denoiser.network)
            share = teach(network.text, self.vocabulary, self.reading, self.seed)
            print(f"{100 * share:.0f} % of the digits' motions are read from captions after {self.reading} steps")
            self.ema.network.load_state_dict(network.state_dict())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As of every domain; where words are tied to what is seen, with the losses of that."""
        if self.grounding is None or "ink" not in batch[2]:
            return super().training_step(batch, batch_idx)
        with self.grounding.listening(cast(VideoUNet, self.denoiser.network)):
            loss = super().training_step(batch, batch_idx)
            parts = self.grounding(batch[2])
        self.log_dict({f"train/{name}": value for name, value in parts.items()})
        return loss + self.grounding_weight * sum(WEIGHTS[name] * value for name, value in parts.items())

    def _trained(self) -> Iterator[torch.nn.Parameter]:
        yield from super()._trained()
        if self.grounding is not None:
            yield from self.grounding.parameters()

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
        return [videos.window(TRAIN, row, 1, np.random.default_rng(row), False).said for row in numbers]


def measured(videos: Videos, frames: int) -> Pixels:
    """The mean and deviation of brightness over a part of the training data."""
    rows = videos.count(TRAIN)
    sums = np.zeros(3)
    for row in range(0, rows, max(1, rows // _MEASURED)):
        clip = videos.window(TRAIN, row, frames, np.random.default_rng(row), False).clip
        bright = clip.astype(np.float64) / 255
        sums += [bright.size, bright.sum(), np.square(bright).sum()]
    mean, square = sums[1] / sums[0], sums[2] / sums[0]
    if not square > mean**2:
        raise InputError("the frames of the training split all have one and the same brightness")
    height, width, channels = videos.shape
    return Pixels(channels, height, width, float(mean), math.sqrt(square - mean**2))
