"""The one thing that solvers and guidance see: a function from a noisy state to E[x0 | x_t]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multidiff.prediction import Categorical, Prediction
from multidiff.process import Level, Process
from multidiff.space import Space
from multidiff.state import State, expand_to, map_state


class Denoiser(nn.Module):
    """Base of all denoisers: networks, exact solutions, guidance that wraps another denoiser.

    A denoiser whose `self_conditioning` is true also takes `previous`, the last estimate of the same run, or None.
    """

    self_conditioning: bool = False
    turn: Any = None
    """Guidance has this method: the loop's `Ask` -> a `Turn`, which may say more than the estimate."""

    def forward(
        self, x: State, t: Tensor, cond: Any = None, space: Space | None = None, previous: State | None = None
    ) -> State:
        """E[x0 | x_t].

        Args:
            x: noisy states, batch first.
            t: (B,) times in [0, 1]; a network may also take (B, N), a time for each row of a state (B, N, ...).
            cond: what the samples are conditioned on, in the domain's own terms.
            space: the subspace of this batch (its masks).
            previous: the last estimate, where `self_conditioning` is true.
        """
        raise NotImplementedError


class NetworkDenoiser(Denoiser):
    """A network together with the process it was trained for and what it predicts.

    Args:
        network: called as ``network(x, log_snr, cond, space, previous)``; x with unit-variance scaling applied where
            the prediction asks for it, log_snr (B,) float32, or (B, P) with a column a part where the parts have
            schedules of their own.
        process: schedule(s) and space.
        prediction: what the output means; one for the state, or one a part.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        prediction: Prediction | Mapping[str, Prediction | Categorical],
    ) -> None:
        super().__init__()
        self.network = network
        self.process = process
        self.prediction = prediction
        self.self_conditioning = bool(getattr(network, "self_conditioning", False))

    def forward(
        self, x: State, t: Tensor, cond: Any = None, space: Space | None = None, previous: State | None = None
    ) -> State:
        return self.estimate(self.output(x, t, cond, space, previous), x, t)

    def output(
        self, x: State, t: Tensor, cond: Any = None, space: Space | None = None, previous: State | None = None
    ) -> State:
        """What the network says, before it is turned into a clean state."""
        scaled = map_state(_scale_input, x, self.prediction, self.process.alpha(t), self.process.sigma(t))
        return self.network(scaled, self.noise_condition(t), cond, space, previous)

    def estimate(self, output: State, x: State, t: Tensor) -> State:
        """The clean state that the network's output stands for."""
        return map_state(_estimate, output, x, self.prediction, self.process.alpha(t), self.process.sigma(t))

    def noise_condition(self, t: Tensor) -> Tensor:
        """The noise level as the network is told it: log(alpha / sigma) in float32."""
        log_snr = self.process.log_snr(t)
        if isinstance(log_snr, Mapping):
            log_snr = torch.stack(list(log_snr.values()), dim=-1)
        return log_snr.float()


def _scale_input(x: Tensor, prediction: Prediction | Categorical, alpha: Tensor, sigma: Tensor) -> Tensor:
    if isinstance(prediction, Categorical) or prediction.kind != "edm":
        return x
    return x * expand_to(prediction.input_scale(alpha, sigma), x)


def _estimate(output: Tensor, x: Tensor, prediction: Prediction | Categorical, alpha: Tensor, sigma: Tensor) -> Tensor:
    return prediction.x0(output, x, expand_to(alpha, x), expand_to(sigma, x))


class Ask(NamedTuple):
    """One call as the sampling loop puts it; guidance may want more than an estimate needs.

    `level` is the level of the whole batch in Python numbers, None where the samples' times differ: what is decided
    with it does not wait for the device. `carry` is what the last turn of the same run left, None in the first.
    """

    x: State
    t: Tensor
    cond: Any = None
    space: Space | None = None
    previous: State | None = None
    level: Level | None = None
    carry: Any = None


class Turn(NamedTuple):
    """The answer: the state that the step starts from (usually the one asked about), E[x0 | x_t], what to carry on."""

    x: State
    x0: State
    carry: Any = None


def take_turn(denoiser: Callable[..., State], ask: Ask) -> Turn:
    """One call of a denoiser, whether it has a `turn` of its own or gives the estimate alone."""
    turn = getattr(denoiser, "turn", None)
    if turn is not None:
        answer: Turn = turn(ask)
        return answer
    extra = {"previous": ask.previous} if getattr(denoiser, "self_conditioning", False) else {}
    return Turn(ask.x, denoiser(ask.x, ask.t, cond=ask.cond, space=ask.space, **extra))
