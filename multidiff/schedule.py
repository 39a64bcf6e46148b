"""How much signal and how much noise at a time t in [0, 1]: x_t = alpha(t) x_0 + sigma(t) eps.

t = 0 is clean, t = 1 is noise. Everything is float64; log_snr(t) = log(alpha / sigma) falls strictly and `time` is its
inverse. The ends are finite: where a formula would reach alpha = 0 or sigma = 0 it is followed up to a log-SNR of
`LOG_SNR_MAX` in absolute value, far beyond what a network resolves, and from there to the end of the axis (the last
millionth or less) the log-SNR goes one more unit in a straight line.

The exactly clean end, sigma = 0, belongs to no schedule: it is `Process.level(0)`, where every sampler ends and no
network is called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from multidiff.errors import InputError
from multidiff.registry import Entry, build

LOG_SNR_MAX = 14.0
"""|log(alpha / sigma)| up to which formulas hold: a noise of 8e-7 of the signal, or the reverse."""


class NoiseSchedule:
    """Base of all schedules.

    A schedule gives either a formula and its inverse (`_formula`, `_inverse`), cut at the ends by this class, or its
    own `log_snr` and `time`. Those that do not preserve the variance override `alpha`, `sigma` and `norm` as well.
    """

    _cut = LOG_SNR_MAX

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha / sigma) at `t`; strictly falling."""
        t = t.double()
        first, last = self._ends
        value = self._formula(t.clamp(first, last))
        if first > 0:
            value = value + (first - t).clamp(min=0) / first
        if last < 1:
            value = value - (t - last).clamp(min=0) / (1 - last)
        return value

    def time(self, log_snr: Tensor) -> Tensor:
        """The t in [0, 1] at which log(alpha / sigma) is `log_snr`."""
        log_snr = log_snr.double()
        first, last = self._ends
        t = self._inverse(log_snr.clamp(-self._cut, self._cut)).clamp(first, last)
        return t - first * (log_snr - self._cut).clamp(0, 1) + (1 - last) * (-self._cut - log_snr).clamp(0, 1)

    def alpha(self, t: Tensor) -> Tensor:
        """The factor of the signal."""
        return torch.sigmoid(2 * self.log_snr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """The factor of the noise."""
        return torch.sigmoid(-2 * self.log_snr(t)).sqrt()

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The combination of alpha and sigma that is 1 at every time."""
        return torch.hypot(alpha, sigma)

    def _formula(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def _inverse(self, log_snr: Tensor) -> Tensor:
        raise NotImplementedError

    @cached_property
    def _ends(self) -> tuple[float, float]:
        """The times between which the formula is followed."""
        cut = torch.tensor([self._cut, -self._cut], dtype=torch.float64)
        first, last = self._inverse(cut).clamp(0, 1).tolist()
        return first, last


@dataclass(frozen=True)
class Cosine(NoiseSchedule):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Nichol and Dhariwal 2021, without their offset)."""

    def _formula(self, t: Tensor) -> Tensor:
        return torch.cos(t * math.pi / 2).log() - torch.sin(t * math.pi / 2).log()

    def _inverse(self, log_snr: Tensor) -> Tensor:
        return torch.atan(torch.exp(-log_snr)) * 2 / math.pi


@dataclass(frozen=True)
class LinearVP(NoiseSchedule):
    """d log(alpha) / dt = -beta / 2, beta linear in t (Song et al. 2021, equation 32; DDPM's betas times 1000)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _formula(self, t: Tensor) -> Tensor:
        return _log_snr_of_decay(t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t))

    def _inverse(self, log_snr: Tensor) -> Tensor:
        decay, slope = _decay_of_log_snr(log_snr), self.beta_max - self.beta_min
        return 2 * decay / (self.beta_min + (self.beta_min**2 + 2 * slope * decay).sqrt())


@dataclass(frozen=True)
class ScaledLinearVP(NoiseSchedule):
    """As `LinearVP` with sqrt(beta) linear in t (Stable Diffusion's betas times 1000)."""

    beta_min: float = 0.85
    beta_max: float = 12.0

    @property
    def _root(self) -> tuple[float, float]:
        """sqrt(beta) at t = 0 and its slope."""
        return math.sqrt(self.beta_min), math.sqrt(self.beta_max) - math.sqrt(self.beta_min)

    def _formula(self, t: Tensor) -> Tensor:
        a, b = self._root
        return _log_snr_of_decay(t * (a * a + t * (a * b + t * b * b / 3)))

    def _inverse(self, log_snr: Tensor) -> Tensor:
        a, b = self._root
        decay = _decay_of_log_snr(log_snr)
        cube = a**3 + 3 * b * decay
        root = cube.pow(1 / 3)
        return 3 * decay / (root * root + a * root + a * a)


@dataclass(frozen=True)
class Sigmoid(NoiseSchedule):
    """alpha^2 falls from 1 to 0 as sigmoid(-u) does for u from `start` to `end` (Jabri et al. 2022, tau = 1)."""

    start: float = -3.0
    end: float = 3.0

    def _formula(self, t: Tensor) -> Tensor:
        half = 0.5 * (self.end - self.start)
        return 0.5 * ((half * (1 - t)).sinh().log() - (half * t).sinh().log() + self._offset)

    def _inverse(self, log_snr: Tensor) -> Tensor:
        half = 0.5 * (self.end - self.start)
        ratio = torch.exp(2 * log_snr - self._offset)
        return torch.atanh(math.sinh(half) / (ratio + math.cosh(half))) / half

    @property
    def _offset(self) -> float:
        return math.log(math.cosh(self.start / 2) / math.cosh(self.end / 2))


@dataclass(frozen=True)
class Polynomial(NoiseSchedule):
    """alpha = 1 - t^power, kept away from 0 and 1 by `precision` (Hoogeboom et al. 2022, appendix)."""

    power: float = 2.0
    precision: float = 1e-5

    def _formula(self, t: Tensor) -> Tensor:
        fall, s = t**self.power, self.precision
        signal = (1 - 2 * s) * (1 - fall).square() + s
        noise = (1 - 2 * s) * fall * (2 - fall) + s
        return 0.5 * (signal / noise).log()

    def _inverse(self, log_snr: Tensor) -> Tensor:
        s = self.precision
        signal = ((torch.sigmoid(2 * log_snr) - s) / (1 - 2 * s)).clamp(min=0)
        noise = ((torch.sigmoid(-2 * log_snr) - s) / (1 - 2 * s)).clamp(min=0)
        return (noise / (1 + signal.sqrt())).pow(1 / self.power)


@dataclass(frozen=True)
class Laplace(NoiseSchedule):
    """Times drawn evenly give log(alpha^2 / sigma^2) a Laplace density (Hang et al. 2024).

    Args:
        mean: centre of log(alpha^2 / sigma^2).
        scale: its mean absolute deviation.
    """

    mean: float = 0.0
    scale: float = 0.5

    _cut = 7.0  # beyond it lies less than 1e-12 of the time axis

    def _formula(self, t: Tensor) -> Tensor:
        tail = torch.minimum(t, 1 - t)
        return 0.5 * (self.mean + self.scale * torch.sign(t - 0.5) * (2 * tail).log())

    def _inverse(self, log_snr: Tensor) -> Tensor:
        z = (2 * log_snr - self.mean) / self.scale
        tail = 0.5 * torch.exp(-z.abs())
        return torch.where(z > 0, tail, 1 - tail)


@dataclass(frozen=True)
class VE(NoiseSchedule):
    """alpha = 1, sigma from `sigma_min` to `sigma_max` in a geometric series (Song et al. 2021)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.exp(-self.log_snr(t))

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha

    def log_snr(self, t: Tensor) -> Tensor:
        t = t.double()
        return -(math.log(self.sigma_min) * (1 - t) + math.log(self.sigma_max) * t)

    def time(self, log_snr: Tensor) -> Tensor:
        low = math.log(self.sigma_min)
        return ((-log_snr.double() - low) / (math.log(self.sigma_max) - low)).clamp(0, 1)


@dataclass(frozen=True)
class RectifiedFlow(NoiseSchedule):
    """alpha = 1 - t, sigma = t (Liu et al. 2022; Lipman et al. 2022)."""

    def alpha(self, t: Tensor) -> Tensor:
        return (1 - t.double()).clamp(min=0)

    def sigma(self, t: Tensor) -> Tensor:
        return t.double()

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha + sigma

    def _formula(self, t: Tensor) -> Tensor:
        return torch.log1p(-t) - t.log()

    def _inverse(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr)


class Discrete(NoiseSchedule):
    """A table of N levels, as networks of the integer-timestep kind were trained on, interpolated in log-SNR.

    Step i of the table (0 the cleanest) is t = (i + 1) / N; a network trained on integers is told t N - 1.

    Args:
        alphas_cumprod: (N,) alpha^2, strictly falling, within [0, 1).

    Raises:
        InputError: the table does not fall strictly, or leaves [0, 1).
    """

    def __init__(self, alphas_cumprod: Tensor | Sequence[float]) -> None:
        square = torch.as_tensor(alphas_cumprod, dtype=torch.float64).flatten()
        if not ((square >= 0) & (square < 1)).all() or not (square.diff() < 0).all() or len(square) < 2:
            raise InputError("a table of alphas_cumprod must fall strictly within [0, 1); for betas: from_betas")
        levels = (0.5 * (square.log() - torch.log1p(-square))).clamp(-LOG_SNR_MAX, LOG_SNR_MAX)
        clean = torch.tensor([max(LOG_SNR_MAX, float(levels[0]) + 1)], dtype=torch.float64)
        self.table = torch.cat([clean, levels])
        """(N + 1,) log-SNR at t = i / N."""

    @classmethod
    def from_betas(cls, betas: Tensor | Sequence[float]) -> Discrete:
        """From 1 - alpha_i^2 / alpha_(i-1)^2."""
        return cls((1 - torch.as_tensor(betas, dtype=torch.float64)).cumprod(0))

    @property
    def steps(self) -> int:
        """N, the steps of the table."""
        return len(self.table) - 1

    def log_snr(self, t: Tensor) -> Tensor:
        place = t.double() * self.steps
        i = place.long().clamp(0, self.steps - 1)
        table = self.table.to(t.device)
        return torch.lerp(table[i], table[i + 1], place - i)

    def time(self, log_snr: Tensor) -> Tensor:
        value, table = log_snr.double(), self.table.to(log_snr.device)
        i = (torch.searchsorted(-table, -value, right=True) - 1).clamp(0, self.steps - 1)
        return ((i + (value - table[i]) / (table[i + 1] - table[i])) / self.steps).clamp(0, 1)


@dataclass(frozen=True)
class Shifted(NoiseSchedule):
    """Another schedule with `shift` times its noise-to-signal ratio at every time.

    For larger states (Hoogeboom et al. 2023); on rectified flow it is t -> shift t / (1 + (shift - 1) t)
    (Esser et al. 2024, equation 23).
    """

    schedule: NoiseSchedule
    shift: float

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise InputError(f"the shift of a schedule must be above 0, not {self.shift!r}")

    def log_snr(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr(t) - math.log(self.shift)

    def time(self, log_snr: Tensor) -> Tensor:
        return self.schedule.time(log_snr + math.log(self.shift))

    def alpha(self, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.shift * self.schedule.sigma(t)
        return alpha / self.norm(alpha, sigma)

    def sigma(self, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.shift * self.schedule.sigma(t)
        return sigma / self.norm(alpha, sigma)

    def norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.schedule.norm(alpha, sigma)


def _log_snr_of_decay(decay: Tensor) -> Tensor:
    """log(alpha / sigma) where alpha^2 = exp(-decay), sigma^2 = 1 - alpha^2."""
    return -0.5 * decay.expm1().log()


def _decay_of_log_snr(log_snr: Tensor) -> Tensor:
    return torch.nn.functional.softplus(-2 * log_snr, threshold=1e9)


SCHEDULES = {
    "cosine": Entry(Cosine, summary="variance-preserving, alpha = cos(pi t / 2)"),
    "linear": Entry(LinearVP, summary="variance-preserving, beta linear in t: DDPM"),
    "scaled-linear": Entry(ScaledLinearVP, summary="variance-preserving, sqrt(beta) linear in t: Stable Diffusion"),
    "sigmoid": Entry(Sigmoid, summary="variance-preserving, alpha^2 a sigmoid of t"),
    "polynomial": Entry(Polynomial, summary="variance-preserving, alpha = 1 - t^2: molecules in the literature"),
    "laplace": Entry(Laplace, summary="variance-preserving, most of the time near log-SNR 0"),
    "ve": Entry(VE, summary="variance-exploding, sigma from 0.002 to 80: EDM"),
    "rectified-flow": Entry(RectifiedFlow, summary="straight lines from noise to data: flow matching"),
    "discrete": Entry(Discrete, summary="a table of alphas_cumprod from another library"),
    "shifted": Entry(Shifted, summary="another schedule with more noise at every time"),
}
"""Name -> schedule, for `make` and `multidiff list schedules`."""

SCHEDULE_CLASSES = {entry.factory.__name__: entry.factory for entry in SCHEDULES.values()}
"""Class name -> class, as the configuration of a checkpoint spells schedules."""


def make(name: str, **options: object) -> NoiseSchedule:
    """The schedule of that name.

    Raises:
        InputError: the name or an option is unknown.
    """
    schedule: NoiseSchedule = build("schedule", SCHEDULES, name, options)
    return schedule
