"""Clips from a checkpoint, in three lines of Python or one of the command line."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

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
from multidiff.prompted import APART, check_network, check_recommended, read_vocabulary
from multidiff.random import Rng
from multidiff.schedule import SCHEDULE_CLASSES
from multidiff.state import Parts
from multidiff_video.generated import FILES, VideoOutput, restore, store
from multidiff_video.given import Source
from multidiff_video.job import Job, default_context, frames_of, make_job
from multidiff_video.memory import fitting
from multidiff_video.network import VideoUNet
from multidiff_video.output import PATTERNS
from multidiff_video.pixels import Pixels

BATCH_SIZE = {"cpu": 8, "cuda": 64}
OUTPUT_TYPES = ("video", "np")


class VideoPipeline(Pipeline):
    """Generates clips: ``multidiff.load("video")("a 3 moving left", num_samples=4).frames``."""

    files = FILES
    patterns = PATTERNS
    bytes_per_sample = 200_000
    store = staticmethod(store)
    restore = staticmethod(restore)

    def __init__(
        self, denoiser: NetworkDenoiser, config: Mapping[str, Any], pixels: Pixels, vocabulary: Vocabulary
    ) -> None:
        super().__init__(denoiser, config)
        self.pixels, self.vocabulary = pixels, vocabulary
        self.window: int = config["frames"]
        self.fps = float(config["fps"])
        self.network = cast(VideoUNet, denoiser.network)
        self.multiple = self.network.multiple

    @classmethod
    def from_checkpoint(
        cls, config: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path = Path("checkpoint")
    ) -> VideoPipeline:
        """Build it from what a checkpoint folder holds.

        Raises:
            InputError: a key is missing or wrong, or the weights do not fit.
        """
        from multidiff_video import domain

        path = folder / checkpoint.CONFIG
        noise = checkpoint.build(checkpoint.require(config, "schedule", dict, path), SCHEDULE_CLASSES, path, "schedule")
        spelled = {"class": "Pixels", **checkpoint.require(config, "pixels", dict, path)}
        pixels = checkpoint.build(spelled, {"Pixels": Pixels}, path, "pixels")
        prediction = Prediction(checkpoint.require(config, "prediction", str, path))
        vocabulary = read_vocabulary(config, path)
        if not 1 <= checkpoint.require(config, "frames", int, path) <= 4096:
            raise InputError(f"{path}: 'frames' must be from 1 to 4096")
        if not 0.01 <= checkpoint.require(config, "fps", (int, float), path) <= 1000:
            raise InputError(f"{path}: 'fps' must be from 0.01 to 1000")
        check_recommended(config, path)
        expected = {"channels": pixels.channels, "text_size": len(vocabulary), "text_longest": vocabulary.longest}
        check_network(config, expected, path)
        network: Any = checkpoint.build_module(config["network"], weights, domain.components, folder)
        if pixels.height % network.multiple or pixels.width % network.multiple:
            raise InputError(f"{path}: sides of 'pixels' must be multiples of {network.multiple} for this network")
        return cls(NetworkDenoiser(network, Process(noise), prediction), config, pixels, vocabulary)

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        num_samples: int | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        frames: int | Sequence[int] | None = None,
        size: int | tuple[int, int] | None = None,
        init: Source | None = None,
        keyframes: Sequence[tuple[Source, int]] = (),
        context: int | None = None,
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
        output_type: str = "video",
        fps: float | None = None,
        format: str | None = None,
        scale: int | None = None,
    ) -> VideoOutput | list[np.ndarray]:
        """Generate clips.

        What is longer than the window that the network was trained on is made window by window, each of which begins
        with the last `context` frames of the one before.

        Args:
            prompt: in plain words; several are taken in turn: sample i is made from prompt i modulo their number.
            num_samples: in all; as many as there are prompts by default.
            negative_prompt: what to move away from; one, or one for each prompt.
            frames: of a clip; one, or one for each prompt; the checkpoint's window by default; 1 makes a picture.
            size: pixels a side, or (height, width); the checkpoint's by default.
            init: a picture to begin with, or a clip, whose last `context` frames the new one begins with: a file, or an
                array (H, W), (H, W, C) or (frames, H, W, C) uint8.
            keyframes: (picture, place) pairs: frames at chosen places, counted from 0, or from the end where negative;
                what lies between is made.
            context: see above; half a window by default.
            num_inference_steps: of the solver; the checkpoint's recommendation by default.
            solver, grid: names as in `multidiff list solvers` and `grids`; the checkpoint's by default.
            solver_options: of the solver, such as ``{"eta": 0.5}`` of "ddim".
            guidance_scale: how strongly the prompt counts, 1 is no guidance; the checkpoint's by default.
            seed: in [0, 2**63); drawn afresh by default, and kept in the recipe.
            indices: sample numbers; sample i of a seed is always the same clip. 0, 1, 2... by default.
            generator: torch generators instead of a seed: one for all, or a list with one a sample.
            batch_size: clips at a time; changes the speed and nothing else; halved where memory does not suffice.
            callback_on_step_end: called as ``(pipe, step, t, kwargs)`` after each step of each window, as in diffusers;
                kwargs holds "latents" (the state) and "estimate" (of the clean one), and what it returns under
                "latents" is used.
            output_type: "video" for a `VideoOutput`, "np" for a list of arrays (frames, H, W, C) uint8.
            fps: frames a second that the files are played at; the checkpoint's by default.
            format, scale: of files that are written later; see `VideoOutput.save`.

        Raises:
            InputError: an argument is not allowed, or memory does not suffice; says which and why.
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
        lengths = [frames_of(self, job, number) for number in numbers]
        made: dict[int, tuple[np.ndarray, int]] = {}

        def run(rows: list[int]) -> None:
            mine = [numbers[i] for i in rows]
            clips = self._batch(job, lengths[rows[0]], mine, draws.rng(mine, rows), callback_on_step_end)
            made.update(zip(rows, clips, strict=True))

        self.interrupt = False
        self.in_batches(self._fitting(job, lengths, self._rows(lengths, batch_size, draws.shared)), run)
        rows = sorted(made)
        recipe = self._recipe(job, draws.seed)
        output = VideoOutput(
            frames=[made[i][0] for i in rows],
            fps=job.fps,
            prompts=[job.request.prompts[job.request.place(numbers[i])] for i in rows],
            indices=[numbers[i] for i in rows],
            failed={numbers[i]: made[i][1] for i in rows if made[i][1] >= 0},
            recipe=recipe,
            network_calls=self.calls_of(recipe),
        )
        return output if output_type == "video" else list(output.frames)

    # ------------------------------------------------------------------ for large jobs

    def recipe(self, seed: int, **call: Any) -> dict[str, Any]:
        """What a call with these arguments is made with; raises what it would."""
        return self._recipe(make_job(self, call), check_seed(seed))

    def batches(self, num_samples: int, seed: int, batch_size: int | None = None, **call: Any) -> list[list[int]]:
        """The sample numbers of each batch of a call; one of them alone makes the same clips."""
        job = make_job(self, call)
        if num_samples < len(job.request):
            self.warn(f"{num_samples} samples for {len(job.request)} prompts: the last prompts are not used")
        return self._rows([frames_of(self, job, number) for number in range(num_samples)], batch_size, in_order=False)

    def calls_of(self, recipe: Mapping[str, Any]) -> int:
        """Of the longest clip; see `Pipeline.calls_of`."""
        asked = [n for n in recipe.get("frames", []) if n is not None]
        count = len(
            windows(max([self.window, *asked]), self.window, recipe.get("context", default_context(self.window)))
        )
        return count * super().calls_of(recipe)

    def preview(self, folder: Path, estimate: Tensor, step: int, steps: int) -> None:
        """Show in preview.png what is being made.

        Args:
            estimate: (B, T, C, H, W) of the clean clips.
        """
        from multidiff_video.output import write_preview

        clips = list(self.pixels.decode(estimate[:4]))
        write_preview(folder, clips, self.fps, [""] * len(clips), step, steps)

    # ------------------------------------------------------------------ within

    def _rows(self, lengths: Sequence[int], batch_size: int | None, in_order: bool) -> list[list[int]]:
        """Rows of each batch, all of whose clips have as many frames."""
        size = BATCH_SIZE.get(self.device.type, 8) if batch_size is None else check_count("batch_size", batch_size)
        together = batches(lengths, size, in_order)
        return [list(rows) for batch in together for _, rows in itertools.groupby(batch, key=lambda i: lengths[i])]

    def _fitting(self, job: Job, lengths: Sequence[int], batches: Sequence[list[int]]) -> list[list[int]]:
        """The same, those divided that memory would not suffice for: a CPU's ends the process where it runs out."""
        parts = []
        for rows in batches:
            most = fitting(self, lengths[rows[0]], job.size, job.estimates)
            parts += [rows[k : k + most] for k in range(0, len(rows), most)]
        return parts

    def _batch(
        self, job: Job, total: int, numbers: Sequence[int], rng: Rng, callback: StepCallback | None
    ) -> list[tuple[np.ndarray, int]]:
        """Each clip with the step at which it was not finite, or -1."""
        shape = (self.pixels.channels, *job.size)
        places = {} if job.given is None else job.given.places(total)
        known = torch.tensor([place in places for place in range(total)], device=self.device)
        state = torch.zeros(len(numbers), total, *shape, device=self.device)
        for place, frame in places.items():
            state[:, place] = self.pixels.encode(frame).to(self.device)
        failed = torch.full((len(numbers),), -1, device=self.device)
        for first in windows(total, self.window, job.context):
            part = slice(first, min(first + self.window, total))
            made, steps = self._window(job, numbers, state[:, part], known[part], rng, callback)
            failed = torch.where(failed < 0, steps, failed)
            # What is not finite would be what the next window begins with.
            state[:, part] = torch.where(failed.view(-1, 1, 1, 1, 1) < 0, made, 0.0)
            known[part] = True
            if self.interrupt:
                state = state[:, : part.stop]
                break
        clips = self.pixels.decode(state)
        for place, frame in places.items():
            if place < clips.shape[1]:
                clips[:, place] = frame
        return list(zip(clips, failed.tolist(), strict=True))

    def _window(
        self, job: Job, numbers: Sequence[int], frames: Tensor, known: Tensor, rng: Rng, callback: StepCallback | None
    ) -> tuple[Tensor, Tensor]:
        """One window: (B, T, C, H, W) frames, and (T,) bool which of them are known -> all of them."""
        request, count = job.request, len(numbers)
        tokens = self.vocabulary.batch([request.prompts[request.place(i)] for i in numbers]).to(self.device)
        cond = Parts(tokens=tokens, known=known.expand(count, -1), frames=frames)
        denoiser: Denoiser = self.denoiser
        if job.guidance.scale != 1:
            texts = [request.negatives[request.place(i)] or "" for i in numbers]
            away = Parts({**cond, "tokens": self.vocabulary.batch(texts).to(self.device)})
            denoiser = Guided(denoiser, Negative(away), job.guidance.rules())
        if bool(known.any()):
            denoiser = Inpaint(denoiser, frames.clone(), known[None, :, None, None, None])
        made, failed = self.draw(frames, rng, job.settings, cond=cond, denoiser=denoiser, callback_on_step_end=callback)
        assert isinstance(made, Tensor)
        return made, failed

    def _recipe(self, job: Job, seed: int | None) -> dict[str, Any]:
        recipe = {"checkpoint": self.name, "sha256": self.config.get("sha256", "")} | job.settings.recipe()
        recipe |= job.recipe()
        if self.autocast is not None:
            recipe["dtype"] = str(self.autocast).removeprefix("torch.")
        return recipe if seed is None else {**recipe, "seed": seed}


def windows(total: int, window: int, context: int) -> list[int]:
    """Where windows begin: each shares `context` frames with the one before, the last as many as it takes to fit.

    Example: ``windows(40, 16, 8)`` is ``[0, 8, 16, 24]``.
    """
    starts = [0]
    while starts[-1] + window < total:
        starts.append(min(starts[-1] + window - context, total - window))
    return starts
