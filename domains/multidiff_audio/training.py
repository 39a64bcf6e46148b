"""What `multidiff fit` needs to train on sounds."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from multidiff import checkpoint
from multidiff.captions import TRAIN
from multidiff.conditioning.text import Vocabulary
from multidiff.errors import InputError
from multidiff.lightning.module import Batch
from multidiff.lightning.prompted import RECOMMENDED, PromptedModule
from multidiff.train import times as densities
from multidiff.train import weighting as weightings
from multidiff.train.ema import EMA
from multidiff.train.objective import Objective
from multidiff_audio import domain
from multidiff_audio.clips import PackedClips
from multidiff_audio.generated import AudioOutput
from multidiff_audio.layers import DURATIONS
from multidiff_audio.loading import AudioData, Chances
from multidiff_audio.representation import REPRESENTATIONS, ComplexSTFT, LogMel, Representation

__all__ = ["AudioData", "AudioModule"]

SHORTEST = 0.1
"""Seconds; the least length that a prompt's own can be."""

_MEASURED = 512
"""Sounds that the deviation of the data is measured on."""


class AudioModule(PromptedModule):
    """A network over spectrograms, its process and its loss.

    The rate, the channels, the words and the classes are those of the data set, and the network is built for them when
    the data set has been read.

    Args:
        network: ``{class: SpectrogramUNet, ...}`` with the sizes that the class takes.
        representation: ``{class: ComplexSTFT | LogMel, ...}`` likewise; rate, channels and scale are the data's.
        recommended: settings for the checkpoint's users: solver, grid, num_inference_steps, steps_range,
            guidance_scale, guidance_above.
        rate: samples a second to which a folder of sounds is brought; by default the commonest in it.
        channels: of a folder of sounds: 1 or 2.
        text_longest: words that a prompt can have.
        drop: share of the samples that are given no condition at all, for guidance.
        drop_text: share of the others that are given no text.
        tell_classes, tell_curves: share of the samples that are given each class and each curve.
        crop: share of the samples of which a random part is taken: for sounds that may begin and end anywhere.
        durations_weight: factor of the loss of the length that a prompt stands for.
        shift: times the noise of the cosine schedule at every time: the more numbers a sound has, the more noise it
            takes to hide what happens in it (Hoogeboom et al. 2023, section 3.1).
        times: how noise levels are drawn: uniform, power, log-normal or logit-normal.
        weighting: of the error: edm, min-snr, sigmoid or uniform.
        learning_rate, warmup_steps, decay_fraction, weight_decay, ema_decay, seed: see `DiffusionModule`.
    """

    domain = domain
    noun = "sounds"

    def __init__(
        self,
        network: dict[str, Any],
        representation: dict[str, Any],
        recommended: dict[str, Any] | None = None,
        rate: int | None = None,
        channels: int = 1,
        text_longest: int = 16,
        drop: float = 0.1,
        drop_text: float = 0.1,
        tell_classes: float = 0.2,
        tell_curves: float = 0.1,
        crop: float = 0.0,
        durations_weight: float = 0.1,
        shift: float = 1.0,
        times: str = "uniform",
        weighting: str = "edm",
        learning_rate: float = 1e-3,
        warmup_steps: int = 200,
        decay_fraction: float = 0.6,
        weight_decay: float = 1e-4,
        ema_decay: float = 0.999,
        seed: int = 0,
    ) -> None:
        spelled = {"class": "ComplexSTFT", **representation, "rate": rate or 16000, "channels": channels}
        self.representation: Representation = checkpoint.build(spelled, REPRESENTATIONS, "model", "representation")
        self.vocabulary = Vocabulary((), text_longest)
        self.classes: dict[str, list[str]] = {}
        self.longest = 1.0
        self.network_spec = dict(network)
        self.schedule_spec: dict[str, Any] = {"class": "Cosine"}
        if shift != 1:
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
        self.chances = Chances(drop, 1 - drop_text, tell_classes, tell_curves, crop)
        self.recommended = {**RECOMMENDED, **(recommended or {})}
        self.durations_weight = durations_weight
        self.save_hyperparameters()

    def learn_about(self, clips: PackedClips, max_seconds: float) -> None:
        """Take up what a data set holds, and build the network for it.

        Raises:
            InputError: it has another number of channels than the model.
        """
        train = clips.rows(TRAIN)
        said = [phrasing for row in train for phrasing in clips.captions[row]]
        self.vocabulary = Vocabulary.of(said, self.vocabulary.longest)
        self.classes = {name: list(attribute.classes) for name, attribute in clips.attributes.items()}
        longest = float(clips.lengths[train].max()) / clips.rate if len(train) else max_seconds
        self.longest = max(min(longest, max_seconds), 2 * SHORTEST)
        self.representation = measured(
            replace(self.representation, rate=clips.rate, channels=clips.channels), clips, train
        )
        self.denoiser = self.built()
        self.ema = EMA(self.denoiser.network, self.ema.decay)

    def network_config(self) -> dict[str, Any]:
        """The network as config.json spells it."""
        channels, bands = self.representation.shape
        return {
            **self.network_spec,
            "channels": channels,
            "bands": bands,
            "text_size": len(self.vocabulary),
            "text_longest": self.vocabulary.longest,
            "classes": [len(names) for names in self.classes.values()],
            "fold_time": self.representation.fold_time,
        }

    # ------------------------------------------------------------------------------------------------- the steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The denoising loss, and that of the lengths that prompts stand for."""
        loss = super().training_step(batch, batch_idx)
        durations = self._durations_loss(batch)
        self.log("train/durations", durations)
        return loss + self.durations_weight * durations

    def _durations_loss(self, batch: Batch) -> Tensor:
        _, _, cond = batch
        network: Any = self.denoiser.network
        share = (cond["seconds"] / SHORTEST).log() / math.log(self.longest / SHORTEST)
        logits = network.conditions.durations(cond["tokens"])
        return F.cross_entropy(logits, (share * DURATIONS).long().clamp(0, DURATIONS - 1))

    # --------------------------------------------------------------------------------------------------- results

    def export_config(self) -> dict[str, Any]:
        """What config.json of a checkpoint folder says."""
        representation = {"class": type(self.representation).__name__, **asdict(self.representation)}
        return {
            "domain": "audio",
            "network": self.network_config(),
            "schedule": self.schedule_spec,
            "prediction": "v",
            "representation": representation,
            "vocabulary": {"words": list(self.vocabulary.known), "longest": self.vocabulary.longest},
            "classes": self.classes,
            "durations": {"shortest": SHORTEST, "longest": self.longest},
            "recommended": dict(self.recommended),
        }

    def picture(self, count: int) -> bytes | None:
        """Spectrograms of `count` samples, their prompts taken from the data set in turn."""
        from multidiff_audio.render import spectrograms_png

        made = self.pipeline()(self.prompts(count), seed=self.seed)
        assert isinstance(made, AudioOutput)
        return spectrograms_png(made.audios, made.sampling_rate, made.prompts)

    def prompts(self, count: int) -> list[str]:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        known = data.clips.phrasings() or [""]
        return [known[i * len(known) // count] for i in range(count)]


def measured(representation: Representation, clips: PackedClips, rows: np.ndarray) -> Representation:
    """The representation with the scale (and the offset of log-mel) at which the data has unit deviation."""
    plain = replace(representation, scale=1.0)
    if isinstance(plain, LogMel):
        plain = replace(plain, offset=0.0)
    sums = np.zeros(3)
    for row in rows[:: max(1, len(rows) // _MEASURED)]:
        state = plain.encode(torch.from_numpy(clips.sound(int(row)))[None])
        sums += [state.numel(), float(state.double().sum()), float(state.double().square().sum())]
    if not sums[2] > 0:
        raise InputError("the sounds of the training split are all silent")
    mean, square = sums[1] / sums[0], sums[2] / sums[0]
    if isinstance(plain, ComplexSTFT):
        return replace(plain, scale=math.sqrt(square))
    return replace(plain, offset=mean, scale=math.sqrt(square - mean**2))
