"""The Fréchet video distance of Unterthiner et al. 2018, through an I3D network that the user has as TorchScript.

Its numbers are comparable with published ones where network, resolution, frames and the number of clips are theirs,
and never with distances on the features of a judge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from tqdm import tqdm

from multidiff.errors import InputError
from multidiff_video.judge import Clips
from multidiff_video.metrics import Array, frechet_distance
from multidiff_video.real import Asked, Real

SIDE = 224  # pixels that I3D was trained at
FEWEST = 10  # frames that its strides leave something of
_RESIZES = ("rescale", "resize", "return_features")  # arguments of the TorchScript file that most projects use


def load(path: str | Path) -> torch.jit.ScriptModule:
    """A TorchScript file.

    Raises:
        InputError: there is none, or it is not one.
    """
    if not Path(path).is_file():
        raise InputError(f"no file {path}; --i3d is an I3D network as TorchScript")
    try:
        module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        first = (str(error).strip() or "damaged").splitlines()[0]
        raise InputError(f"{path} is no TorchScript file ({first}); torch.jit.save writes one") from error
    return module


def features(network: torch.jit.ScriptModule, clips: Clips, progress: bool = True) -> Array:
    """(n, d), one clip at a time.

    A network with arguments of the names in ``_RESIZES`` is given brightness from 0 to 255 and told to resize; any
    other is given (1, 3, frames, SIDE, SIDE) from -1 to 1.

    Args:
        clips: (frames, height, width, channels) uint8 each, FEWEST frames or more.

    Raises:
        InputError: a clip is too short, or the network does not take it.
    """
    short = min((len(clip) for clip in clips), default=FEWEST)
    if short < FEWEST:
        raise InputError(f"I3D needs clips of {FEWEST} frames or more, not of {short}")
    forward: Any = network.forward
    names = {argument.name for argument in forward.schema.arguments}
    own = dict.fromkeys(_RESIZES, True) if names.issuperset(_RESIZES) else {}
    rows = []
    with torch.inference_mode():
        for clip in tqdm(clips, "I3D", unit="clip", delay=2, disable=None if progress else True):
            try:
                found = network(_shown(clip, bool(own)), **own)
            except RuntimeError as error:
                raise InputError(f"the I3D network does not take a clip of {clip.shape}: {_last(error)}") from error
            rows.append(found.flatten().double().numpy())
    return np.stack(rows)


def _shown(clip: NDArray[np.uint8], whole: bool) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(clip)).permute(3, 0, 1, 2).float()  # channels, frames, height, width
    x = x.expand(3, -1, -1, -1) if len(x) == 1 else x
    if whole:
        return x[None]
    x = F.interpolate(x.transpose(0, 1), (SIDE, SIDE), mode="bilinear", align_corners=False).transpose(0, 1)
    return x[None] / 127.5 - 1


def _last(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[-1]


def measure(
    network: torch.jit.ScriptModule, clips: Clips, asked: list[Asked], real: Real, seed: int = 0, progress: bool = True
) -> dict[str, Any]:
    """``fvd`` to real clips; ``fvd/real``: of as many other real clips to them; ``fvd/n``: how many."""
    shapes = [clip.shape for clip in clips]
    halves = [real.draw(asked, shapes, half, seed) for half in (0, 1)]
    n = min(len(clips), *map(len, halves))
    mine, first, second = (features(network, part[:n], progress) for part in (clips, *halves))
    value, own = frechet_distance(mine, first), frechet_distance(second, first)
    return {"fvd": value, "fvd/n": n, "fvd/real": own, "fvd/of_real": value / own if own else float("nan")}
