"""What the network is trained to say, and how the clean state follows from it.

The target is F = p x0 + q eps. With x_t = alpha x0 + sigma eps that gives

    x0 = (q x_t - sigma F) / (alpha q - sigma p)

for epsilon (p, q) = (0, 1), x0 (1, 0), v (-sigma, alpha), flow (-1, 1). EDM (Karras et al. 2022, section 5) is the pair
that keeps input and target at unit variance for data of unit deviation; on a variance-preserving schedule it is v.
`Categorical` is the odd one: F are logits over a code book, added to what the noisy code says by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multidiff.errors import unknown


@dataclass(frozen=True)
class Prediction:
    """A linear target F = p x0 + q eps.

    Attributes:
        kind: "epsilon", "x0", "v", "flow" or "edm".
    """

    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("prediction", self.kind, KINDS)

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """p and q at a noise level."""
        one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
        if self.kind == "edm":
            scale = (alpha.square() + sigma.square()).rsqrt()
            return -sigma * scale, alpha * scale
        return {"epsilon": (zero, one), "x0": (one, zero), "v": (-sigma, alpha), "flow": (-one, one)}[self.kind]

    def input_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The factor on x_t before the network sees it: unit variance for EDM, 1 for the others."""
        if self.kind == "edm":
            return (alpha.square() + sigma.square()).rsqrt()
        return torch.ones_like(alpha)

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """F for a known clean state and noise; alpha and sigma broadcast against the state."""
        p, q = self.coefficients(alpha, sigma)
        return p * x0 + q * eps

    def x0(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The clean state that the network's output stands for."""
        p, q = self.coefficients(alpha, sigma)
        return (q * x - sigma * output) / (alpha * q - sigma * p)

    def error_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """|dx0 / dF|: an error of F times this is the error of x0."""
        p, q = self.coefficients(alpha, sigma)
        return (sigma / (alpha * q - sigma * p)).abs()


_STRONGEST = 1e4
"""Of the evidence of a noisy code: far beyond certainty, and finite at the clean end."""

KINDS = ("epsilon", "x0", "v", "flow", "edm")


class Categorical:
    """F are logits over K classes, on top of what the noisy code itself says; x0 is the expected code.

    p(class | x_t) is a prior from the surroundings times the likelihood N(x_t; alpha code, sigma^2) of the noisy code.
    The likelihood is known exactly, so the network is left with the prior: near the clean end, where the noisy code
    alone decides, it cannot be wrong however little it has learned. The expected code minimises the squared error.

    Args:
        codes: (K, C) code of each class, all of one length.
    """

    kind = "categorical"

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes

    def logits(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p(class | x_t) up to a constant: F + (alpha / sigma^2) <x_t, code>; float32."""
        strength = (alpha / sigma.square()).clamp(max=_STRONGEST).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return output.float() + (strength * (x @ self.codes.to(x).T)).float()

    def x0(self, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The expected code under `logits`."""
        share = self.logits(output, x, alpha, sigma).softmax(-1).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return share @ self.codes.to(x)

    def classes(self, x: Tensor) -> Tensor:
        """The class whose code is nearest, (..., C) -> (...) int64."""
        codes = self.codes.to(x)
        return (x @ codes.T - 0.5 * codes.square().sum(-1)).argmax(-1)
