"""Sounds that are given: as a start, as what is kept around what is made anew, as a loop."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multidiff.denoiser import Denoiser
from multidiff.errors import InputError
from multidiff.state import Parts
from multidiff_audio.inversion import Hints
from multidiff_audio.representation import Representation
from multidiff_audio.request import refuse_absurd

Region = tuple[float, float | None]
"""Start and end in seconds; None is the end of the sound."""

DAMAGE = {"not finite": "has samples that are not finite, which count as 0", "cut short": "is cut short"}
"""Notes of `sound.load` that a user should know of."""


@dataclass(frozen=True, eq=False)
class Given:
    """A sound that a call starts from, as the representation wants it.

    Attributes:
        sound: (channels, samples) at the representation's rate and with its channels, silent where it is extended.
        gain: what brings it to the level of the training data.
        regions: what is made anew, (start, end) in samples; empty where all of it is.
        extend: seconds at the end that are an extension, the last of the regions.
        name: of the file; empty where it was an array.
        told: what was converted, for a warning.
        damage: what is wrong with its file, likewise.
    """

    sound: np.ndarray
    gain: float
    regions: tuple[tuple[int, int], ...] = ()
    extend: float = 0.0
    name: str = ""
    told: str = ""
    damage: str = ""

    @property
    def samples(self) -> int:
        """Its length."""
        return int(self.sound.shape[1])

    @property
    def levelled(self) -> np.ndarray:
        """(channels, samples) at the level of the training data."""
        return (self.sound * self.gain).astype(np.float32)

    def recipe(self, rate: int) -> dict[str, Any]:
        """As plain values, for the files."""
        told: dict[str, Any] = {"init": self.name}
        told["init_sha256"] = hashlib.sha256(self.sound.tobytes()).hexdigest()[:16]
        asked = self.regions[:-1] if self.extend else self.regions
        told |= {"inpaint": [[start / rate, end / rate] for start, end in asked]} if asked else {}
        return told | ({"extend": self.extend} if self.extend else {})


def given(
    init: str | Path | np.ndarray,
    rate: int | None,
    representation: Representation,
    level: float,
    longest: float,
    inpaint: Sequence[Region] = (),
    extend: float = 0.0,
) -> Given:
    """Read a sound and bring it to the representation's rate and channels.

    Args:
        init: a file, or an array (samples,) or (channels, samples), of numbers in [-1, 1] or of 16 or 32 bits.
        rate: of the array; the representation's by default.
        representation: of the checkpoint.
        level: dB re full scale, root mean square, of the training data.
        longest: seconds, of the training data.
        inpaint: regions to make anew.
        extend: seconds to go on for after its end.

    Raises:
        InputError: it cannot be read, is silent or absurdly long; a region is reversed, outside or overlaps another.
    """
    from multidiff_audio import sound as sounds

    damage: list[str] = []
    if isinstance(init, str | Path):
        reading = sounds.load(Path(init))
        found, own_rate, name = reading.sound, reading.rate, str(init)
        damage = [says for note, says in DAMAGE.items() if note in reading.notes]
    else:
        found, own_rate, name = _array(init), representation.rate if rate is None else rate, ""
        if isinstance(own_rate, bool) or not isinstance(own_rate, int) or not 1000 <= own_rate <= 768_000:
            raise InputError(f"init_rate {own_rate!r} is not allowed: a whole number of Hz, from 1000 to 768000")
    if not (isinstance(extend, int | float) and math.isfinite(extend) and extend >= 0):
        raise InputError(f"extend {extend!r} is not allowed: seconds, 0 or more")
    refuse_absurd(f"{name or 'init'}, what extends it included:", found.shape[1] / own_rate + extend, longest)
    told = []
    if own_rate != representation.rate:
        told.append(f"{own_rate} Hz to {representation.rate} Hz")
    if found.shape[0] != representation.channels:
        told.append(f"{found.shape[0]} channel{'s' * (found.shape[0] > 1)} to {representation.channels}")
    sound = sounds.mix(sounds.resample(found, own_rate, representation.rate), representation.channels)
    power = float(np.square(sound, dtype=np.float64).mean())
    if power < 1e-10:
        raise InputError(f"{name or 'init'} is silent; give a sound to start from")
    gain = 10 ** (level / 20) / math.sqrt(power)
    regions = checked(inpaint, sound.shape[1] / representation.rate, extend)
    sound = np.pad(sound, ((0, 0), (0, round(extend * representation.rate))))
    spans = tuple((round(a * representation.rate), round(b * representation.rate)) for a, b in regions)
    return Given(sound, gain, spans, extend, name, ", ".join(told), " and ".join(damage))


def _array(init: Any) -> np.ndarray:
    """(channels, samples) float32."""
    try:
        found = np.atleast_2d(np.asarray(init))
        bits = 8 * found.itemsize if found.dtype in (np.int16, np.int32) else 1
        found = found.astype(np.float32) / np.float32(2 ** (bits - 1))
    except (TypeError, ValueError):
        raise InputError("init: give a file, or an array of numbers (samples,) or (channels, samples)") from None
    if found.ndim != 2 or not found.size or not np.isfinite(found).all():
        raise InputError(f"init: an array of shape {found.shape}; give finite (samples,) or (channels, samples)")
    return found


def checked(inpaint: Sequence[Region], seconds: float, extend: float = 0.0) -> list[tuple[float, float]]:
    """Regions in order, open ends closed, the extension among them.

    Raises:
        InputError: a region is reversed, outside the sound, or overlaps another.
    """
    try:
        regions = [(float(start), seconds if end is None else float(end)) for start, end in inpaint]
    except (TypeError, ValueError):
        raise InputError(f"inpaint {inpaint!r} is not allowed: a list of (start, end) in seconds") from None
    for start, end in regions:
        if start < 0 or end > seconds + 1e-6 or start >= seconds:
            raise InputError(f"inpaint {start:g}:{end:g} lies outside the sound, which is {seconds:.3f} s long")
        if not end > start:
            raise InputError(f"inpaint {start:g}:{end:g} is not allowed: the end must come after the start")
    if extend:
        regions.append((seconds, seconds + extend))
    regions.sort()
    for (_, end), (start, later) in itertools.pairwise(regions):
        if start < end:
            raise InputError(f"inpaint {start:g}:{later:g} overlaps the region before it, which ends at {end:g}")
    return regions


def known_mask(regions: Sequence[tuple[int, int]], rows: int, representation: Representation) -> Tensor:
    """(1, rows, C, 1) bool: true for frames that lie outside all regions with their whole window."""
    r = representation
    centre = torch.arange(rows * r.fold_time) * r.hop
    known = torch.ones(rows * r.fold_time, dtype=torch.bool)
    for start, end in regions:
        known &= (centre + r.n_fft // 2 <= start) | (centre - r.n_fft // 2 >= end)
    channels = r.shape[0] // r.fold_time
    return known.view(rows, 1, r.fold_time).expand(-1, channels, -1).reshape(1, rows, -1, 1)


def put_back(made: np.ndarray, given: Given, fade: int) -> np.ndarray:
    """The given samples outside the regions, with a linear fade of `fade` samples just before and after each."""
    weight = np.zeros(given.samples, np.float32)
    ramp = (np.arange(fade, dtype=np.float32) + 1) / (fade + 1)
    for start, end in given.regions:
        weight[start:end] = 1
        before, after = weight[max(0, start - fade) : start], weight[end : end + fade]
        np.maximum(before, ramp[fade - len(before) :], out=before)
        np.maximum(after, ramp[::-1][: len(after)], out=after)
    return made * weight + given.sound * (1 - weight)


class Rolled(Denoiser):
    """A denoiser that sees the sound as a circle, cut open at another place at every noise level.

    No place is then the end for long, and what is made can be played round and round (compare the shifted windows of
    Bar-Tal et al. 2023). The place follows from the time, so that a sample does not depend on its batch.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.process: Any = getattr(denoiser, "process", None)

    def forward(self, x: Any, t: Tensor, cond: Any = None, space: Any = None, previous: Any = None) -> Any:
        lengths = space.mask.sum(1)
        shift = ((t * 7919.0 * (math.sqrt(5) - 1) / 2 % 1) * lengths).long().to(lengths.device)
        place = torch.arange(x.shape[1], device=x.device)
        there = place < lengths[:, None]
        to = torch.where(there, (place + shift[:, None]) % lengths[:, None], place)
        back = torch.where(there, (place - shift[:, None]) % lengths[:, None], place)
        if isinstance(cond, Parts) and "curves" in cond:
            cond = Parts({**cond, "curves": _taken(cond["curves"], to)})
        return _taken(self.denoiser(_taken(x, to), t, cond, space), back)


def _taken(x: Tensor, rows: Tensor) -> Tensor:
    """x[b, rows[b, n]] for every b and n."""
    return x[torch.arange(len(x), device=x.device)[:, None], rows]


def decoded(representation: Representation, state: Tensor, given: Given, samples: int, strength: float) -> Tensor:
    """(B, rows, C, F) made from a given sound -> (B, channels, samples) at the level of the training data.

    Phases that the state does not hold fit those of the given sound outside its regions, so that no click or gap is
    heard at their ends, and are near them everywhere where the strength is low.
    """
    whole = representation.samples(state.shape[1])
    sound = torch.from_numpy(given.levelled[None, :, :whole]).to(state.device)
    sound = torch.nn.functional.pad(sound, (0, whole - sound.shape[-1]))
    anew = torch.zeros(whole, dtype=torch.bool, device=state.device)
    for start, end in given.regions:
        anew[start:end] = True
    hints = Hints(
        known=(lambda sounds: torch.where(anew, sounds, sound)) if given.regions else None,
        start=sound if strength < 1 else None,
        share=strength,
    )
    return representation.decode(state, samples, hints)


def decoded_loop(representation: Representation, state: Tensor) -> Tensor:
    """(B, rows, C, F), a circle of rows -> (B, channels, samples); the end meets the start."""
    rows = state.shape[1]
    margin = math.ceil(representation.n_fft / (representation.hop * representation.fold_time)) + 1
    around = torch.arange(-margin, rows + margin, device=state.device) % rows
    step = representation.fold_time * representation.hop
    first, period = margin * step, rows * step
    place = torch.arange(representation.samples(rows + 2 * margin), device=state.device)
    place = (place - first) % period + first
    whole = representation.decode(state[:, around], hints=Hints(known=lambda sounds: sounds[..., place]))
    return whole[..., first : first + period]
