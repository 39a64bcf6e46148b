"""Sounds from a checkpoint, in three lines of Python or one of the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multidiff import checkpoint
from multidiff.conditioning.text import Vocabulary
from multidiff.denoiser import Denoiser, NetworkDenoiser
from multidiff.draws import Draws, batches
from multidiff.errors import InputError, unknown
from multidiff.guidance import Guided, Inpaint, Negative
from multidiff.pipeline import Pipeline, StepCallback, check_count, check_indices, check_seed
from multidiff.prediction import Prediction
from multidiff.process import Process
from multidiff.prompted import APART, read_vocabulary
from multidiff.random import Rng
from multidiff.schedule import SCHEDULE_CLASSES
from multidiff.space import Masked
from multidiff.state import Parts
from multidiff_audio.configuration import check
from multidiff_audio.curves import by_row
from multidiff_audio.editing import Region, Rolled, decoded, decoded_loop, known_mask, put_back
from multidiff_audio.generated import FILES, AudioOutput, restore, store
from multidiff_audio.job import Job, make_job
from multidiff_audio.layers import CURVES, DURATIONS
from multidiff_audio.representation import REPRESENTATIONS, Representation
from multidiff_audio.takes import related_noise, streams

BATCH_SIZE = {"cpu": 16, "cuda": 128}
OUTPUT_TYPES = ("audio", "np")
_LENGTH_STREAM = 0x1E47


class AudioPipeline(Pipeline):
    """Generates sounds: ``multidiff.load("audio")("seven, spoken by theo", num_samples=4).audios``."""

    files = FILES
    patterns = ("audio-[0-9]*.wav", "audio-[0-9]*.flac")
    bytes_per_sample = 400_000
    store = staticmethod(store)
    restore = staticmethod(restore)

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        config: Mapping[str, Any],
        representation: Representation,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__(denoiser, config)
        self.representation, self.vocabulary = representation, vocabulary
        self.classes: dict[str, list[str]] = config["classes"]
        self.shortest, self.longest = config["durations"]["shortest"], config["durations"]["longest"]
        self._durations: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @classmethod
    def from_checkpoint(
        cls, config: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path = Path("checkpoint")
    ) -> AudioPipeline:
        """Build it from what a checkpoint folder holds.

        Raises:
            InputError: a key is missing or wrong, or the weights do not fit.
        """
        from multidiff_audio import domain

        path = folder / checkpoint.CONFIG
        noise = checkpoint.build(checkpoint.require(config, "schedule", dict, path), SCHEDULE_CLASSES, path, "schedule")
        spelled = checkpoint.require(config, "representation", dict, path)
        representation = checkpoint.build(spelled, REPRESENTATIONS, path, "representation")
        prediction = Prediction(checkpoint.require(config, "prediction", str, path))
        vocabulary = read_vocabulary(config, path)
        check(config, representation, vocabulary, path)
        network = checkpoint.build_module(config["network"], weights, domain.components, folder)
        return cls(NetworkDenoiser(network, Process(noise), prediction), config, representation, vocabulary)

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        num_samples: int | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        duration: float | Sequence[float] | None = None,
        classes: Mapping[str, str] | None = None,
        follow: str | Path | Mapping[str, Sequence[float]] | None = None,
        follow_curves: Sequence[str] = CURVES,
        init: str | Path | np.ndarray | None = None,
        init_rate: int | None = None,
        strength: float | None = None,
        inpaint: Sequence[Region] = (),
        extend: float = 0.0,
        loop: bool = False,
        stereo: bool = False,
        variations_of: int | None = None,
        variation_strength: float = 0.3,
        num_inference_steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        solver_options: Mapping[str, Any] | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
        indices: Sequence[int] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        batch_size: int | None = None,
        callback_on_step_end: StepCallback | None = None,
        output_type: str = "audio",
        format: str | None = None,
        bit_depth: int | str | None = None,
        loudness: float | str | None = None,
    ) -> AudioOutput | list[np.ndarray]:
        """Generate sounds.

        Args:
            prompt: in plain words; several are taken in turn: sample i is made from prompt i modulo their number.
            num_samples: in all; as many as there are prompts by default.
            negative_prompt: what to move away from; one, or one for each prompt.
            duration: seconds; one, or one for each prompt; by default drawn as fits the prompt, or as long as `init`.
            classes: attribute -> class, such as ``{"speaker": "theo"}``; see the checkpoint's card.
            follow: a sound file whose loudness, pitch and brightness are followed, or the curves themselves, each a
                list of numbers evenly spaced over the sound (loudness in dB, the others in Hz).
            follow_curves: which of them are taken from a file.
            init: a sound to start from: a file, or an array (samples,) or (channels, samples).
            init_rate: samples a second of an array; the checkpoint's by default.
            strength: how far from `init`, in (0, 1]; 0.6 by default, and 1 where a part of it is inpainted.
            inpaint: regions of `init` that are made anew, (start, end) in seconds, an end of None for its end.
            extend: seconds that `init` is continued for.
            loop: whether the end is to meet the start; the length is rounded to whole rows of the spectrogram.
            stereo: two channels; a mono checkpoint makes two takes of the same sound from much the same noise.
            variations_of: make variations of this sample of the same seed.
            variation_strength: their share of fresh noise, in [0, 1].
            num_inference_steps: of the solver; the checkpoint's recommendation by default.
            solver, grid: names as in `multidiff list solvers` and `grids`; the checkpoint's by default.
            solver_options: of the solver, such as ``{"eta": 0.5}`` of "ddim".
            guidance_scale: how strongly the prompt counts, 1 is no guidance; the checkpoint's by default.
            seed: in [0, 2**63); drawn afresh by default, and kept in the recipe.
            indices: sample numbers; sample i of a seed is always the same sound. 0, 1, 2... by default.
            generator: torch generators instead of a seed: one for all, or a list with one a sample.
            batch_size: sounds at a time; changes the speed and nothing that is heard; halved where memory does not
                suffice.
            callback_on_step_end: called as ``(pipe, step, t, kwargs)`` after each step, as in diffusers; kwargs holds
                "latents" (the state) and "estimate" (of the clean one), and what it returns under "latents" is used.
            output_type: "audio" for an `AudioOutput`, "np" for a list of arrays (channels, samples).
            format, bit_depth, loudness: of files that are written later; see `AudioOutput.save`. Loudness "keep" leaves
                the levels as they were made, which is the default where there is a sound to start from.

        Raises:
            InputError: an argument is not allowed; says which and why.
        """
        call = {name: value for name, value in dict(locals()).items() if name not in APART}
        if output_type not in OUTPUT_TYPES:
            raise unknown("output_type", output_type, OUTPUT_TYPES)
        if generator is not None and seed is not None:
            raise InputError("give seed or generator, not both")
        job = make_job(self, call)
        count = len(job.request) if num_samples is None else check_count("num_samples", num_samples)
        numbers = check_indices(indices, count)
        draws = Draws(check_seed(seed) if generator is None else None, generator, count)
        if generator is not None and (job.two_takes or job.variations):
            raise InputError("stereo takes and variations are drawn by sample number: give seed instead of generator")
        lengths = self._lengths(job, draws, numbers)
        made: dict[int, tuple[np.ndarray, int]] = {}

        def run(rows: list[int]) -> None:
            mine = [numbers[i] for i in rows]
            sounds = self._batch(job, [lengths[i] for i in rows], mine, draws.rng(mine, rows), draws.seed,
                                 callback_on_step_end)  # fmt: skip
            made.update(zip(rows, sounds, strict=True))

        self.interrupt = False
        self.in_batches(batches(lengths, self._batch_size(batch_size), draws.shared), run)
        rows = sorted(made)
        output = AudioOutput(
            audios=[made[i][0] for i in rows],
            sampling_rate=self.representation.rate,
            prompts=[job.request.prompts[job.request.place(numbers[i])] for i in rows],
            indices=[numbers[i] for i in rows],
            failed={numbers[i]: made[i][1] for i in rows if made[i][1] >= 0},
            recipe=self._recipe(job, draws.seed),
            network_calls=self.network_calls(job.settings),
        )
        return output if output_type == "audio" else list(output.audios)

    # ------------------------------------------------------------------ for large jobs

    def recipe(self, seed: int, **call: Any) -> dict[str, Any]:
        """What a call with these arguments is made with; raises what it would."""
        return self._recipe(make_job(self, call), check_seed(seed))

    def batches(self, num_samples: int, seed: int, batch_size: int | None = None, **call: Any) -> list[list[int]]:
        """The sample numbers of each batch of a call; one of them alone makes the same sounds."""
        job = make_job(self, call)
        if num_samples < len(job.request):
            self.warn(f"{num_samples} samples for {len(job.request)} prompts: the last prompts are not used")
        lengths = self._lengths(job, Draws(seed, None, num_samples), range(num_samples))
        return batches(lengths, self._batch_size(batch_size), in_order=False)

    # ------------------------------------------------------------------ within

    def _batch_size(self, asked: int | None) -> int:
        return BATCH_SIZE.get(self.device.type, 16) if asked is None else check_count("batch_size", asked)

    def _lengths(self, job: Job, draws: Draws, numbers: Sequence[int]) -> list[int]:
        """Samples of each sound."""
        uniform: np.ndarray | None = None
        lengths = []
        for k, number in enumerate(numbers):
            place = job.request.place(number)
            seconds = job.request.seconds[place]
            if job.given is not None and seconds is None:
                seconds = job.given.samples / self.representation.rate
            if seconds is None:
                if uniform is None:  # a variation is as long as what it is one of
                    of = numbers if job.variations is None else [job.variations[0]] * len(numbers)
                    uniform = draws.uniform(of, _LENGTH_STREAM)
                seconds = self._drawn(job.request.prompts[place], float(uniform[k]))
            lengths.append(self._looped(job, max(1, round(seconds * self.representation.rate))))
        return lengths

    def _looped(self, job: Job, samples: int) -> int:
        step = self.representation.fold_time * self.representation.hop
        return max(2, round(samples / step)) * step if job.loop else samples

    def _drawn(self, prompt: str, u: float) -> float:
        """Seconds that fit the prompt: the quantile `u` of what the network has learned of their lengths."""
        if prompt not in self._durations:
            network: Any = self.denoiser.network
            with torch.inference_mode():
                logits = network.conditions.durations(self.vocabulary.batch([prompt]).to(self.device))
            share = logits[0].double().cpu().softmax(0)
            edges = np.exp(np.linspace(math.log(self.shortest), math.log(self.longest), DURATIONS + 1))
            self._durations[prompt] = (np.concatenate([[0.0], share.cumsum(0).numpy()]), edges)
        return float(np.interp(u, *self._durations[prompt]))

    def _batch(
        self, job: Job, lengths: list[int], numbers: list[int], rng: Rng, seed: int | None, callback: Any
    ) -> list[tuple[np.ndarray, int]]:
        """Each sound with the step at which it was not finite, or -1."""
        takes = 2 if job.two_takes else 1
        rows = [n // (self.representation.fold_time * self.representation.hop) if job.loop
                else self.representation.rows(n) for n in lengths]  # fmt: skip
        own = torch.tensor(rows * takes, device=self.device)
        space = Masked(torch.arange(max(rows), device=self.device) < own[:, None])
        like = torch.zeros(len(own), max(rows), *self.representation.shape, device=self.device)
        noise = None
        if job.variations is not None or takes == 2:
            assert seed is not None
            rng = streams(seed, numbers) if takes == 2 else rng
            noise = related_noise(rng, like, space, seed, len(numbers), job.variations)
        cond = self._conditions(job, numbers * takes, max(rows))
        init, denoiser = self._edited(job, lengths * takes, space, self._guided(job, numbers * takes, cond))
        state, failed = self.draw(
            like, rng, job.settings, space=space, cond=cond, denoiser=denoiser, callback_on_step_end=callback,
            init=init, noise=noise,
        )  # fmt: skip
        assert isinstance(state, Tensor)
        steps = failed.view(takes, -1).amax(0).tolist()
        sounds = [self._decoded(job, state[i :: len(numbers), : rows[i]], n) for i, n in enumerate(lengths)]
        return [(sound if step < 0 else np.full_like(sound, np.nan), step)
                for sound, step in zip(sounds, steps, strict=True)]  # fmt: skip

    def _conditions(self, job: Job, numbers: Sequence[int], rows: int) -> Parts:
        """What the network is told of each sample."""
        tokens = self.vocabulary.batch([job.request.prompts[job.request.place(i)] for i in numbers])
        values = np.full((rows * self.representation.fold_time, len(CURVES)), np.nan, np.float32)
        if job.follow is not None:
            count = min(len(values), len(job.follow))
            values[:count] = job.follow[:count]
        followed = by_row(torch.from_numpy(values)[None], self.representation.fold_time)
        parts = {
            "tokens": tokens,
            "classes": job.classes.expand(len(numbers), -1),
            "curves": followed.expand(len(numbers), -1, -1),
        }
        return Parts({name: value.to(self.device) for name, value in parts.items()})

    def _guided(self, job: Job, numbers: Sequence[int], cond: Parts) -> Denoiser:
        denoiser: Denoiser = Rolled(self.denoiser) if job.loop else self.denoiser
        negatives = [job.request.negatives[job.request.place(i)] for i in numbers]
        if job.guidance.scale == 1:
            return denoiser
        tokens = self.vocabulary.batch([text or "" for text in negatives]).to(self.device)
        away = Parts({**cond, "tokens": tokens, "classes": torch.full_like(cond["classes"], -1)})
        return Guided(denoiser, Negative(away), job.guidance.rules())

    def _edited(
        self, job: Job, lengths: Sequence[int], space: Masked, denoiser: Denoiser
    ) -> tuple[Tensor | None, Denoiser]:
        """The states to start from, and the denoiser that keeps what is not made anew."""
        if job.given is None:
            return None, denoiser
        rows, sound = space.mask.shape[1], torch.from_numpy(job.given.levelled)
        sounds = torch.zeros(len(lengths), len(sound), self.representation.samples(rows))
        for own, samples in zip(sounds, lengths, strict=True):
            own[:, : min(samples, sound.shape[1])] = sound[:, :samples]
        state = space.project(self.representation.encode(sounds.to(self.device)))
        assert isinstance(state, Tensor)
        if not job.given.regions:
            return state, denoiser
        mask = known_mask(job.given.regions, rows, self.representation).to(self.device)
        return state, Inpaint(denoiser, state, mask)

    def _decoded(self, job: Job, state: Tensor, samples: int) -> np.ndarray:
        """(takes, rows, C, F) -> (channels, samples) float32."""
        with torch.inference_mode():
            if job.loop:
                sound = decoded_loop(self.representation, state)
            elif job.given is not None:
                sound = decoded(self.representation, state, job.given, samples, job.settings.strength)
            else:
                sound = self.representation.decode(state, samples)
        made: np.ndarray = sound.flatten(0, 1).cpu().numpy()
        if job.given is None:
            return made
        made = made / np.float32(job.given.gain)
        return put_back(made, job.given, self.representation.hop) if job.given.regions else made

    def _recipe(self, job: Job, seed: int | None) -> dict[str, Any]:
        recipe = {"checkpoint": self.name, "sha256": self.config.get("sha256", "")} | job.settings.recipe()
        recipe |= job.recipe(self.representation.rate)
        if self.autocast is not None:
            recipe["dtype"] = str(self.autocast).removeprefix("torch.")
        return recipe if seed is None else {**recipe, "seed": seed}
