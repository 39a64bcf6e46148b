"""Frames as what is diffused, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multidiff.errors import InputError


@dataclass(frozen=True)
class Pixels:
    """Brightness from 0 to 1 about its mean over the training data, in units of its deviation there.

    The same for every frame and every pixel, so that a clip cannot flicker because its frames were scaled one by one.

    Attributes:
        channels: 1 gray, 3 red, green and blue.
        height, width: of the frames trained on.
        mean, deviation: of brightness over the training data.
    """

    channels: int
    height: int
    width: int
    mean: float = 0.5
    deviation: float = 0.5

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or min(self.height, self.width) < 1:
            raise InputError(f"frames have 1 or 3 channels and a pixel or more a side, not {self}")
        if not (math.isfinite(self.mean) and math.isfinite(self.deviation) and self.deviation > 0):
            raise InputError(f"brightness needs a finite mean and a deviation above 0, not {self}")

    def encode(self, clips: np.ndarray | Tensor) -> Tensor:
        """(..., H, W, C) uint8 -> (..., C, H, W) float32."""
        brightness = torch.as_tensor(clips).movedim(-1, -3).float() / 255
        return (brightness - self.mean) / self.deviation

    def decode(self, state: Tensor) -> np.ndarray:
        """(..., C, H, W) -> (..., H, W, C) uint8; what lies beyond black and white is black and white."""
        brightness = (state.float() * self.deviation).add_(self.mean)
        bytes_ = brightness.mul_(255).round_().clamp_(0, 255).byte()  # in place: long clips are large
        pixels: np.ndarray = bytes_.movedim(-3, -1).cpu().numpy()
        return pixels
