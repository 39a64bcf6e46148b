"""A checkpoint ready to be used: load it, call it, save it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from multidiff import checkpoint, domain
from multidiff.denoiser import NetworkDenoiser
from multidiff.errors import InputError
from multidiff.grid import make as make_grid
from multidiff.process import Level
from multidiff.random import Rng
from multidiff.sample import sample
from multidiff.solver import Solver
from multidiff.solver import make as make_solver
from multidiff.space import Space
from multidiff.state import State, batch_size, tensors

StepCallback = Callable[["Pipeline", int, float, dict[str, Any]], Mapping[str, Any] | None]


def load(name: str | Path) -> Any:
    """The pipeline of a checkpoint.

    Args:
        name: a shipped checkpoint or a domain's name ("molecules"), a folder, or a hub id "owner/name".

    Raises:
        InputError: there is no such checkpoint, or it is damaged.
    """
    folder = checkpoint.resolve(name)
    config, weights = checkpoint.read(folder)
    pipe = domain.load(domain.find(config["domain"]).pipeline)(config, weights)
    card = folder / checkpoint.CARD
    pipe.name = folder.name
    pipe.card = card.read_text(encoding="utf-8") if card.is_file() else ""
    return pipe


@dataclass(frozen=True)
class Settings:
    """How a run is made, after the checkpoint's recommendations have filled in what was not asked for."""

    solver: str
    grid: str
    num_inference_steps: int
    options: Mapping[str, Any]

    def make_solver(self) -> Solver:
        """The solver with its options."""
        return make_solver(self.solver, **self.options)


class Pipeline:
    """Base of every domain's pipeline: settings, the sampling loop with its callback, saving.

    Attributes:
        interrupt: set it to true in a callback to end the run with what there is.
        name: of the checkpoint.
        card: the model card, Markdown.
        config: the checkpoint's configuration.
    """

    def __init__(self, denoiser: NetworkDenoiser, config: Mapping[str, Any]) -> None:
        self.denoiser = denoiser.eval()
        self.config = dict(config)
        self.name, self.card = "", ""
        self.interrupt = False
        self.autocast: torch.dtype | None = None
        self._warned: set[str] = set()

    # ------------------------------------------------------------------ what diffusers' users expect

    @property
    def components(self) -> dict[str, Any]:
        """The parts a pipeline is made of."""
        return {
            "network": self.denoiser.network,
            "process": self.denoiser.process,
            "prediction": self.denoiser.prediction,
        }

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.denoiser.parameters()).device

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the network; with `dtype` bfloat16 or float16 it computes in that precision, the state stays float32.

        Raises:
            InputError: a dtype that is not one of the three, or a device that is not there.
        """
        allowed = (torch.float32, torch.bfloat16, torch.float16)
        if dtype is not None and dtype not in allowed:
            raise InputError(f"dtype {dtype} is not supported: use one of {', '.join(map(str, allowed))}")
        if device is not None and torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"device {str(device)!r} asked for, but torch finds no CUDA device here; use 'cpu'")
        self.denoiser.to(device)
        if dtype is not None:
            self.autocast = None if dtype == torch.float32 else dtype
        return self

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config.json, model.safetensors and the card, so that `multidiff.load(folder)` gives this pipeline."""
        return checkpoint.save(folder, self.config, self.denoiser.network.state_dict(), self.card)

    # ------------------------------------------------------------------ for the domains

    def settings(
        self, solver: str | None, grid: str | None, num_inference_steps: int | None, options: Mapping[str, Any]
    ) -> Settings:
        """Fill in the checkpoint's recommendations, and warn once where a choice lies outside of them.

        Raises:
            InputError: an unknown solver, grid or option, or a number of steps below 1.
        """
        known = self.config["recommended"]
        same_solver = solver in (None, known["solver"])
        chosen = Settings(
            solver=solver or known["solver"],
            grid=grid or known["grid"],
            num_inference_steps=known["num_inference_steps"] if num_inference_steps is None else num_inference_steps,
            options={**(known.get("solver_options", {}) if same_solver else {}), **options},
        )
        chosen.make_solver()
        make_grid(chosen.grid)
        low, high = known.get("steps_range", (1, 10_000))
        if not low <= chosen.num_inference_steps <= high:
            self.warn(f"{chosen.num_inference_steps} steps: this checkpoint is recommended with {low} to {high}")
        return chosen

    def network_calls(self, settings: Settings) -> int:
        """Calls of the denoiser that a run of these settings makes."""
        levels = make_grid(settings.grid)(self.denoiser.process, settings.num_inference_steps)
        return len(settings.make_solver().plan(levels).calls)

    def warn(self, message: str) -> None:
        """Warn once a pipeline."""
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=3)

    def draw(
        self,
        like: State,
        rng: Rng,
        settings: Settings,
        *,
        space: Space | None = None,
        cond: Any = None,
        denoiser: nn.Module | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> tuple[State, Tensor]:
        """Run the solver from fresh noise of the shape of `like`.

        Returns:
            The clean states, and (B,) int64 the first step at which a sample was not finite, or -1.
        """
        process = self.denoiser.process
        levels = make_grid(settings.grid)(process, settings.num_inference_steps)
        plan = settings.make_solver().plan(levels)
        x = process.prior(rng, like, space, levels[0].t)
        watch = _Watch(self, x, callback_on_step_end)
        model = denoiser or self.denoiser
        with torch.inference_mode(), self._precision():
            try:
                x = sample(model, plan, x, space=space, cond=cond, rng=rng, on_step=watch)
            except _Interrupted as stop:
                x = stop.state
        return x, watch.failed_at

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        if self.autocast is None:
            yield
            return
        with torch.autocast(self.device.type, self.autocast):
            yield


class _Interrupted(Exception):
    def __init__(self, state: State) -> None:
        self.state = state


class _Watch:
    """The pipeline's own look at each step: non-finite samples, the user's callback, interruption."""

    def __init__(self, pipe: Pipeline, x: State, callback: StepCallback | None) -> None:
        self.pipe, self.callback = pipe, callback
        self.failed_at = torch.full((batch_size(x),), -1, dtype=torch.int64, device=tensors(x)[0].device)

    def __call__(self, step: int, level: Level, x: State, estimate: State) -> State | None:
        # A sum is finite only if all its terms are: one cheap number a sample, and nothing waits for the device.
        finite = sum(part.flatten(1).sum(1) for part in tensors(x)).isfinite()  # type: ignore[union-attr]
        self.failed_at = torch.where((self.failed_at < 0) & ~finite, step, self.failed_at)
        changed = None
        if self.callback is not None:
            answer = self.callback(self.pipe, step, level.t, {"latents": x, "estimate": estimate}) or {}
            changed = answer.get("latents")
        if self.pipe.interrupt:
            raise _Interrupted(estimate)
        return changed


def check_seed(seed: int | None) -> int:
    """The seed, or a fresh one for None.

    Raises:
        InputError: it is not a whole number in [0, 2**63).
    """
    if seed is None:
        return torch.seed() & (2**63 - 1)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"seed {seed!r} is not allowed: a whole number from 0 to 2**63 - 1")
    return seed
