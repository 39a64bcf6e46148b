"""A checkpoint ready to be used: load it, call it, save it."""

from __future__ import annotations

import contextlib
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from multidiff import checkpoint, domain
from multidiff.denoiser import NetworkDenoiser
from multidiff.errors import InputError
from multidiff.grid import make as make_grid
from multidiff.plan import Plan
from multidiff.process import Level
from multidiff.random import Rng
from multidiff.sample import sample
from multidiff.solver import Solver
from multidiff.solver import make as make_solver
from multidiff.space import Space
from multidiff.state import State, batch_size, lincomb, tensors

GRID = "log-snr"
"""Where a checkpoint recommends no grid."""


class SettingWarning(UserWarning):
    """A setting lies outside what the checkpoint is recommended with; the command line shows it as one line."""


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
    pipe = domain.load(domain.find(config["domain"]).pipeline)(config, weights, folder)
    card = folder / checkpoint.CARD
    pipe.name = folder.absolute().name
    pipe.card = card.read_text(encoding="utf-8") if card.is_file() else ""
    return pipe


@dataclass(frozen=True)
class Settings:
    """How a run is made, after the checkpoint's recommendations have filled in what was not asked for.

    Attributes:
        solver, grid: names.
        num_inference_steps: from pure noise.
        options: of the solver.
        strength: share of the steps that are run where a run starts from a given state, the last ones.
    """

    solver: str
    grid: str
    num_inference_steps: int
    options: Mapping[str, Any]
    strength: float = 1.0

    def make_solver(self) -> Solver:
        """The solver with its options."""
        return make_solver(self.solver, **self.options)

    def recipe(self) -> dict[str, Any]:
        """As plain values, for the files."""
        plain = {"solver": self.solver, "grid": self.grid, "num_inference_steps": self.num_inference_steps}
        plain |= {"solver_options": dict(self.options)} if self.options else {}
        return plain | ({"strength": self.strength} if self.strength < 1 else {})

    @classmethod
    def read(cls, recipe: Mapping[str, Any]) -> Self:
        """The settings in a recipe."""
        steps, options = recipe["num_inference_steps"], recipe.get("solver_options", {})
        return cls(recipe["solver"], recipe["grid"], steps, options, recipe.get("strength", 1.0))


class Pipeline:
    """Base of every domain's pipeline: settings, the sampling loop with its callback, saving.

    For `multidiff generate` a domain's pipeline has, beside ``__call__`` with `num_samples`, `seed`, `indices`,
    `batch_size` and `callback_on_step_end`:

    - ``recipe(seed, **call)``: what a run of these arguments is made with, plain values; raises what the call would;
    - ``batches(num_samples, seed, batch_size, **call)``: the sample numbers of each batch, the same every time;
    - ``store(outputs, path)`` and ``restore(paths)``: a job's unfinished results, to files that begin with `path` and
      back into one output; what the output holds may be read when it is used;
    - where it takes ``preview_every``, ``preview(folder, estimate, step, steps)``: shows what is being made;
    - an output with `indices`, `failed` (sample -> step), `network_calls` and ``save(folder, records)``, which writes
      the files, adds a record of each sample to the list, with its number under "sample", and returns counts.

    Attributes:
        files: what an output's `save` writes, the one to open first in front.
        patterns: globs of the files that it writes one a sample, named by its number.
        bytes_per_sample: that a job needs on disk, about.
        interrupt: set it to true in a callback to end the run with what there is.
        name: of the checkpoint.
        card: the model card, Markdown.
        config: the checkpoint's configuration.
    """

    files: ClassVar[tuple[str, ...]] = ()
    patterns: ClassVar[tuple[str, ...]] = ()
    bytes_per_sample: ClassVar[int] = 0

    def __init__(self, denoiser: NetworkDenoiser, config: Mapping[str, Any]) -> None:
        self.denoiser = denoiser.eval()
        self.config = dict(config)
        self.name, self.card = "", ""
        self.interrupt = False
        self.autocast: torch.dtype | None = None
        self._warned: set[str] = set()
        self._fits: int | None = None  # samples that memory suffices for, once it did not

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
        if device is not None:
            self.denoiser.to(_device(device))
        if dtype is not None:
            self.autocast = None if dtype == torch.float32 else dtype
        return self

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config.json, model.safetensors and the card, so that `multidiff.load(folder)` gives this pipeline."""
        return checkpoint.save(folder, self.config, self.denoiser.network.state_dict(), self.card)

    # ------------------------------------------------------------------ for the domains

    def settings(
        self,
        solver: str | None,
        grid: str | None,
        num_inference_steps: int | None,
        options: Mapping[str, Any],
        strength: float = 1.0,
    ) -> Settings:
        """Fill in the checkpoint's recommendations, and warn once where a choice lies outside of them.

        Raises:
            InputError: an unknown solver, grid or option, a number of steps below 1, or a strength outside (0, 1].
        """
        known = self.config.get("recommended", {})
        same_solver = solver in (None, known.get("solver"))
        chosen = Settings(
            solver=known.get("solver", "dpm++2m") if solver is None else solver,
            grid=known.get("grid", GRID) if grid is None else grid,
            num_inference_steps=known["num_inference_steps"] if num_inference_steps is None else num_inference_steps,
            options={**(known.get("solver_options", {}) if same_solver else {}), **options},
            strength=_strength(strength),
        )
        self.plan(chosen)
        low, high = known.get("steps_range", (1, 10_000))
        if not low <= chosen.num_inference_steps <= high:
            self.warn(f"{chosen.num_inference_steps} steps: {self._this} is recommended with {low} to {high}")
        return chosen

    @property
    def _this(self) -> str:
        return self.name or "this checkpoint"

    def plan(self, settings: Settings) -> Plan:
        """What a run of these settings does, as far as is known beforehand."""
        return settings.make_solver().plan(self.levels(settings))

    def levels(self, settings: Settings) -> tuple[Level, ...]:
        """The noise levels that the grid of these settings gives, the last ones where the strength is below 1."""
        levels = make_grid(settings.grid)(self.denoiser.process, settings.num_inference_steps)
        return levels[-1 - max(1, round(settings.strength * settings.num_inference_steps)) :]

    def network_calls(self, settings: Settings) -> int:
        """Calls of the denoiser that a run of these settings makes."""
        return len(self.plan(settings).calls)

    def calls_of(self, recipe: Mapping[str, Any]) -> int:
        """Calls of the denoiser that a sample takes, from what it is made with."""
        return self.network_calls(Settings.read(recipe))

    def warn(self, message: str) -> None:
        """Warn once a pipeline."""
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, SettingWarning, stacklevel=3)

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
        init: State | None = None,
        noise: State | None = None,
    ) -> tuple[State, Tensor]:
        """Run the solver from fresh noise of the shape of `like`.

        Args:
            like: a state of the shape, dtype and device wanted.
            rng: of all noise.
            settings: of the run.
            space: of this batch.
            cond: handed to the denoiser.
            denoiser: the checkpoint's own by default; guidance around it otherwise.
            callback_on_step_end: see the pipelines' calls.
            init: a clean state that the noise is put on, where `settings.strength` is below 1 (Meng et al. 2022).
            noise: to start from, of unit deviation, instead of fresh one.

        Returns:
            The clean states, and (B,) int64 the first step at which a sample was not finite, or -1.
        """
        levels = self.levels(settings)
        plan = settings.make_solver().plan(levels)
        x = self._start(levels[0], like, rng, space, init if settings.strength < 1 else None, noise)
        watch = _Watch(self, x, callback_on_step_end)
        model = denoiser or self.denoiser
        with torch.inference_mode(), self._precision():
            try:
                x = sample(model, plan, x, space=space, cond=cond, rng=rng, on_step=watch)
            except _Interrupted as stop:
                x = stop.state
        return x, watch.failed_at

    def _start(
        self, level: Level, like: State, rng: Rng, space: Space | None, init: State | None, noise: State | None
    ) -> State:
        """The state at the first level of a run."""
        if noise is None:
            noise = (space or self.denoiser.process.space).noise(rng, like)
        signal = [] if init is None else [(level.alpha, init)]
        return lincomb([*signal, (level.sigma, noise)])

    def in_batches(self, batches: Iterable[list[int]], run: Callable[[list[int]], None]) -> None:
        """Call `run` with each batch; one that memory does not suffice for is halved and tried again.

        Args:
            run: makes the same of a sample whatever else is in its batch, however often it is asked.

        Raises:
            InputError: memory does not suffice for a single sample.
        """
        waiting = list(batches)[::-1]
        while waiting and not self.interrupt:
            batch = waiting.pop()
            if self._fits is not None and len(batch) > self._fits:
                waiting += [batch[self._fits :], batch[: self._fits]]
            elif not _fitted(run, batch):
                if len(batch) == 1:
                    raise InputError(
                        f"not enough memory on {self.device} for a single sample; ask for a smaller one or free some"
                    )
                self._fits = len(batch) // 2
                waiting.append(batch)

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
        changed = None
        if self.callback is not None:
            answer = self.callback(self.pipe, step, level.t, {"latents": x, "estimate": estimate}) or {}
            changed = answer.get("latents")
        # A sum is finite only if all its terms are: one cheap number a sample, and nothing waits for the device.
        sums = [part.flatten(1).sum(1) for part in tensors(x if changed is None else changed)]
        finite = torch.stack(sums).isfinite().all(0)
        self.failed_at = torch.where((self.failed_at < 0) & ~finite, step, self.failed_at)
        if self.pipe.interrupt:
            raise _Interrupted(estimate)
        return changed


_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory has run out, on whichever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def _fitted(run: Callable[[list[int]], None], batch: list[int]) -> bool:
    """Whether memory sufficed; outside of the handler, whose traceback would keep the tensors alive."""
    try:
        run(batch)
        return True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def _device(device: torch.device | str) -> torch.device:
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {str(device)!r} is not known to torch; use 'cpu' or 'cuda'") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {str(device)!r} asked for, but torch finds no such CUDA device here; use 'cpu'")
    return found


def _strength(value: object) -> float:
    if not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"strength {value!r} is not allowed: above 0 (nearly as it was) up to 1 (made anew)")
    return float(value)


def check_count(name: str, value: object) -> int:
    """`value` as an int.

    Raises:
        InputError: it is not a whole number of at least 1.
    """
    number = _whole(value)
    if number is None or number < 1:
        raise InputError(f"{name} {value!r} is not allowed: a whole number, at least 1")
    return number


def check_seed(seed: int | None) -> int:
    """The seed, or a fresh one for None.

    Raises:
        InputError: it is not a whole number in [0, 2**63).
    """
    if seed is None:
        return torch.seed() & (2**63 - 1)
    number = _whole(seed)
    if number is None or not 0 <= number < 2**63:
        raise InputError(f"seed {seed!r} is not allowed: a whole number from 0 to 2**63 - 1")
    return number


def check_indices(indices: Sequence[int] | None, num_samples: int) -> list[int]:
    """The sample numbers, 0 to num_samples - 1 by default.

    Raises:
        InputError: not one a sample, or not whole numbers in [0, 2**63), each once.
    """
    if indices is None:
        return list(range(num_samples))
    numbers = [_whole(i) for i in indices]
    if len(numbers) != num_samples:
        raise InputError(f"indices: {len(numbers)} of them for {num_samples} samples; give one for each")
    known = [i for i in numbers if i is not None and 0 <= i < 2**63]
    if len(set(known)) != num_samples:
        raise InputError("indices must be whole numbers from 0 to 2**63 - 1, each once")
    return known


def _whole(value: object) -> int | None:
    """An int, NumPy's too; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
