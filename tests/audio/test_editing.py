"""Sounds that are given: what is read, what of them is kept, and loops."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multidiff.denoiser import Denoiser
from multidiff.errors import InputError
from multidiff.random import Rng
from multidiff.space import Masked
from multidiff.state import Parts
from multidiff_audio.editing import Given, Rolled, checked, decoded, decoded_loop, given, known_mask, put_back
from multidiff_audio.representation import ComplexSTFT, LogMel, Representation

RATE, LEVEL, LONGEST = 8000, -23.0, 1.0
R = ComplexSTFT(RATE, n_fft=64, hop=32)


def read(init: Any, rate: int | None = None, representation: Representation = R, **more: Any) -> Given:
    return given(init, rate, representation, LEVEL, LONGEST, **more)


def tone(pitch: float = 200, seconds: float = 0.5, rate: int = RATE, channels: int = 1) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.3 * 0.8**k * np.sin(2 * np.pi * pitch * t) for k in range(channels)]).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------- reading


def test_an_array_is_taken_as_it_is(sound: np.ndarray) -> None:
    found = read(sound)
    assert np.array_equal(found.sound, sound)
    assert (found.samples, found.regions, found.told, found.name) == (sound.shape[1], (), "", "")
    level = 10 * np.log10(np.square(found.levelled, dtype=np.float64).mean())
    assert level == pytest.approx(LEVEL, abs=1e-3)
    assert np.array_equal(read(sound[0]).sound, sound)
    assert np.array_equal(read(torch.from_numpy(sound)).sound, sound)
    assert np.array_equal(read(sound[0].tolist()).sound, sound)


@pytest.mark.parametrize("kind", [np.int16, np.int32])
def test_whole_numbers_are_of_so_many_bits(kind: Any, sound: np.ndarray) -> None:
    top = -float(np.iinfo(kind).min)
    found = read((sound.astype(np.float64) * top).astype(kind))
    np.testing.assert_allclose(found.sound, sound, atol=2**-15)


def test_a_file(sound_file: Path, sound: np.ndarray) -> None:
    for init in (sound_file, str(sound_file)):
        found = read(init)
        np.testing.assert_allclose(found.sound, sound, atol=2**-15)
        assert (found.told, found.name) == ("", str(sound_file))


@pytest.mark.parametrize("rate", [4000, 16_000, 11_025, 44_100])
def test_another_rate_is_converted_and_said(rate: int) -> None:
    found = read(tone(rate=rate), rate)
    assert found.told == f"{rate} Hz to 8000 Hz"
    assert found.samples == 4000
    inner = slice(300, -300)
    np.testing.assert_allclose(found.sound[:, inner], tone()[:, inner], atol=2e-3)


@pytest.mark.parametrize(("have", "want"), [(2, 1), (6, 1), (1, 2), (6, 2)])
def test_other_channels_are_converted_and_said(have: int, want: int) -> None:
    found = read(tone(channels=have), representation=ComplexSTFT(RATE, want))
    assert found.sound.shape == (want, 4000)
    assert found.told == f"{have} channel{'s' if have > 1 else ''} to {want}"


def test_of_several_conversions_each_is_said() -> None:
    assert read(tone(rate=16_000, channels=2), 16_000).told == "16000 Hz to 8000 Hz, 2 channels to 1"


@pytest.mark.parametrize(
    ("init", "says"),
    [
        (np.zeros((1, 100)), "init is silent"),
        (np.full((1, 100), 1e-6), "init is silent"),
        (np.zeros((1, 0)), r"shape \(1, 0\)"),
        (np.zeros((1, 1, 5)), r"shape \(1, 1, 5\)"),
        (np.array([0.1, np.nan]), "finite"),
        (np.array([0.1, np.inf]), "finite"),
        (["a", "b"], "give a file, or an array of numbers"),
        ([[1.0, 2.0], [1.0]], "give a file, or an array of numbers"),
        ({"a": 1}, "give a file, or an array of numbers"),
        ("/no/such/file.wav", "/no/such/file.wav"),
    ],
)
def test_what_is_no_sound(init: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read(init)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [0, -8000, 8000.5, "8000", True, 10**7])
def test_what_is_no_rate(rate: Any) -> None:
    with pytest.raises(InputError, match=r"init_rate .* is not allowed"):
        read(tone(), rate)


def test_files_that_are_no_sound(tmp_path: Path) -> None:
    for name, content in (("empty.wav", b""), ("text.wav", b"not sound at all"), ("cut.wav", b"RIFF\x24\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extend", [-1.0, float("nan"), float("inf"), "1", None])
def test_what_is_no_extension(extend: Any) -> None:
    with pytest.raises(InputError, match=r"extend .* is not allowed"):
        read(tone(), extend=extend)


def test_absurd_lengths_are_refused_before_memory_is_taken() -> None:
    with pytest.raises(InputError, match=r"far beyond the 1 s .* at most 10 s"):
        read(tone(), extend=1e12)
    with pytest.raises(InputError, match=r"init, what extends it included: 10.5 s"):
        read(tone(), extend=10.0)
    with pytest.raises(InputError, match="far beyond"):
        read(tone(seconds=11))
    assert read(tone(), extend=9.5).samples == 80_000


def test_a_recipe_tells_sounds_apart(sound: np.ndarray) -> None:
    one, other = read(sound, inpaint=[(0.1, 0.2)]), read(0.5 * sound, inpaint=[(0.1, 0.2)])
    told = one.recipe(RATE)
    assert told["inpaint"] == [[0.1, 0.2]]
    assert told["init_sha256"] != other.recipe(RATE)["init_sha256"]
    assert read(sound, extend=0.25).recipe(RATE).keys() == {"init", "init_sha256", "extend"}


# ---------------------------------------------------------------------------------------------------------- regions


def test_regions_in_order_and_closed() -> None:
    assert checked([(0.5, None), (0.1, 0.2), (0, 0.1)], 1.0) == [(0.0, 0.1), (0.1, 0.2), (0.5, 1.0)]
    assert checked([(0.5, 1.0)], 1.0, 0.25) == [(0.5, 1.0), (1.0, 1.25)]
    assert checked([], 1.0) == []


@pytest.mark.parametrize(
    ("regions", "says"),
    [
        ([(0.5, 0.4)], "the end must come after the start"),
        ([(0.5, 0.5)], "the end must come after the start"),
        ([(float("nan"), 0.5)], "must come after"),
        ([(0.1, float("nan"))], "must come after"),
        ([(-0.1, 0.5)], "lies outside the sound, which is 1.000 s long"),
        ([(0.5, 1.1)], "lies outside"),
        ([(0.5, float("inf"))], "lies outside"),
        ([(1.0, None)], "lies outside"),
        ([(7.0, None)], "lies outside"),
        ([(0.1, 0.5), (0.4, 0.6)], "inpaint 0.4:0.6 overlaps the region before it, which ends at 0.5"),
        ([(0.4, 0.6), (0.1, 0.5)], "overlaps"),
        ([(0.1, 0.5), (0.1, 0.5)], "overlaps"),
        ([(0.1, None), (0.9, 1.0)], "overlaps"),
        ((0.1, 0.2), "a list of"),
        ([(0.1, 0.2, 0.3)], "a list of"),
        ([("a", "b")], "a list of"),
        ([None], "a list of"),
    ],
)
def test_regions_that_are_wrong(regions: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        checked(regions, 1.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "representation", [R, ComplexSTFT(RATE, 2, fold_time=3), LogMel(RATE, fold_time=1), LogMel(RATE, 2, fold_time=4)]
)
def test_what_is_known_does_not_depend_on_the_regions(representation: Representation) -> None:
    """States of two sounds that differ in the regions alone agree where the mask is true, and differ elsewhere."""
    regions, samples = [(700, 900), (1500, 1501)], 2500
    sound = torch.from_numpy(np.random.default_rng(0).normal(size=(1, representation.channels, samples))).float()
    other = sound.clone()
    for start, end in regions:
        other[..., start:end] = 0.0
    one, two = representation.encode(sound), representation.encode(other)
    mask = known_mask(regions, one.shape[1], representation)
    assert mask.shape == (1, one.shape[1], representation.shape[0], 1)
    assert torch.equal(torch.where(mask, one, 0.0), torch.where(mask, two, 0.0))
    changed = (one != two).any(-1)[0]
    assert (mask[0, ..., 0] | changed).float().mean() > 0.99  # nothing is given up that could be known
    assert known_mask([], 5, representation).all()


def test_what_is_put_back() -> None:
    rng = np.random.default_rng(0)
    held, made = (rng.normal(size=(2, 1000)).astype(np.float32) for _ in range(2))
    regions = ((0, 10), (300, 400), (420, 425), (990, 1000))
    out = put_back(made, Given(held, 1.0, regions), 32)
    inside, near = np.zeros(1000, bool), np.zeros(1000, bool)
    for start, end in regions:
        inside[start:end] = True
        near[max(0, start - 32) : end + 32] = True
    assert np.array_equal(out[:, ~near], held[:, ~near])
    assert np.array_equal(out[:, inside], made[:, inside])
    weight = (out - held) / (made - held)
    assert (weight > -1e-4).all()
    assert (weight < 1 + 1e-4).all()
    assert np.abs(np.diff(weight[0])).max() < 1 / 32  # fades, no steps


MEL = LogMel(RATE, n_fft=256, hop=64, mels=32, fold_time=4)


def strayed(sound: np.ndarray, state: Tensor, first: int = 0) -> Tensor:
    """(frames,) how far the log-mel amplitudes of a sound, from a row of it on, are from those of a state."""
    off = MEL.encode(torch.from_numpy(sound)[None])[:, first : first + state.shape[1]] - state
    return MEL._unfold(off).abs().mean((0, 1, 2))


def test_phases_of_what_is_made_anew_fit_what_is_kept() -> None:
    """A tone whose midst is made again has neither a gap nor a click where that begins and ends."""
    held = Given(tone() + tone(1230), 1.0, ((1600, 2400),))
    state = MEL.encode(torch.from_numpy(held.sound)[None])
    fitted = put_back(decoded(MEL, state, held, held.samples, 1.0)[0].numpy(), held, MEL.hop)
    loose = put_back(MEL.decode(state, held.samples)[0].numpy(), held, MEL.hop)
    ends = [*range(23, 28), *range(35, 40)]  # frames about 1600 and 2400
    assert float(strayed(fitted, state)[ends].mean()) < 0.5 * float(strayed(loose, state)[ends].mean())
    assert np.array_equal(fitted[:, :1536], held.sound[:, :1536])
    assert np.array_equal(fitted[:, 2464:], held.sound[:, 2464:])


def test_phases_are_near_those_of_the_sound_where_the_strength_is_low() -> None:
    held = Given(tone() + tone(1230), 1.0)
    state = MEL.encode(torch.from_numpy(held.sound)[None])
    away = [
        float(np.abs(decoded(MEL, state, held, held.samples, s)[0].numpy() - held.sound).mean()) for s in (0.02, 1.0)
    ]
    assert away[0] < 0.2 * away[1]
    assert torch.equal(decoded(MEL, state, held, held.samples, 1.0), MEL.decode(state, held.samples))


def test_a_complex_state_needs_no_phases() -> None:
    held = Given(tone(), 1.0, ((1600, 2400),))
    state = torch.randn(1, 10, *R.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decoded(R, state, held, 500, 0.5), R.decode(state, 500))


# ------------------------------------------------------------------------------------------------------------ loops


class Local(Denoiser):
    """Of each row an own function, and of its curves: what it gives turns with what it is given."""

    def forward(self, x: Any, t: Tensor, cond: Any = None, space: Any = None, previous: Any = None) -> Any:
        out = x.sin() + (0 if cond is None else cond["curves"].mean(-1)[..., None, None])
        return out * space.mask[..., None, None]


class Places(Denoiser):
    """Says of each row where it stands."""

    def forward(self, x: Any, t: Tensor, cond: Any = None, space: Any = None, previous: Any = None) -> Any:
        return torch.arange(x.shape[1]).float()[:, None, None].expand(x.shape)


def circle(lengths: tuple[int, ...] = (5, 8, 3)) -> tuple[Tensor, Parts, Masked]:
    space = Masked(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])
    x = space.noise(Rng(0, range(len(lengths))), torch.zeros(len(lengths), max(lengths), *R.shape))
    assert isinstance(x, Tensor)
    return x, Parts(curves=x[..., 0, :6]), space


@pytest.mark.parametrize("t", [0.0, 0.1234, 0.5, 0.99, 1.0])
def test_what_is_turned_is_turned_back(t: float) -> None:
    x, cond, space = circle()
    time = torch.full((3,), t, dtype=torch.float64)
    for given_cond in (None, cond):
        plain = Local()(x, time, given_cond, space)
        assert torch.equal(Rolled(Local())(x, time, given_cond, space), plain)


def test_no_place_is_the_end_for_long() -> None:
    x, _, space = circle()
    ends = []
    for t in np.linspace(0.05, 1, 20):
        seen = Rolled(Places())(x, torch.full((3,), float(t), dtype=torch.float64), None, space)[..., 0, 0]
        for row, n in zip(seen, space.lengths, strict=True):
            assert row[:n].sort().values.tolist() == list(range(n))
            assert all((b - a) % n == 1 for a, b in itertools.pairwise(row[:n]))  # a circle in its order
        ends.append(int(seen[1].argmax()))
    assert set(ends) == set(range(8))


def test_where_it_is_cut_does_not_depend_on_the_batch() -> None:
    x, _, space = circle()
    time = torch.full((3,), 0.37, dtype=torch.float64)
    whole = Rolled(Places())(x, time, None, space)
    for i, n in enumerate(space.lengths):
        alone = Rolled(Places())(x[i : i + 1, :n], time[:1], None, Masked(space.mask[i : i + 1, :n]))
        assert torch.equal(alone[0], whole[i, :n])


@pytest.mark.parametrize("sizes", [{}, {"n_fft": 256, "hop": 64}, {"fold_time": 4}, {"n_fft": 32, "hop": 16}])
@pytest.mark.parametrize("rows", [2, 3, 10])
def test_a_periodic_sound_is_decoded_to_itself(sizes: dict[str, int], rows: int) -> None:
    """Frames of a sound that repeats, taken from its midst: one turn of them gives one turn of it."""
    r = ComplexSTFT(RATE, **{"n_fft": 64, "hop": 32, **sizes})
    step = r.fold_time * r.hop
    period = rows * step
    t = torch.arange(9 * period) / period
    sound = 0.3 * torch.sin(2 * torch.pi * 2 * t) + 0.1 * torch.cos(2 * torch.pi * 5 * t + 1)
    states = r.encode(sound[None, None])[:, 4 * rows : 5 * rows]
    loop = decoded_loop(r, states)
    assert loop.shape == (1, 1, period)
    torch.testing.assert_close(loop[0, 0], sound[4 * period : 5 * period], atol=1e-4, rtol=0)


def test_a_loop_has_no_seam() -> None:
    """Whatever the state is: cut open elsewhere it is the same sound, turned."""
    state = torch.randn(1, 9, *R.shape, generator=torch.Generator().manual_seed(0))
    loop = decoded_loop(R, state)
    for by in (1, 4, 8):
        turned = decoded_loop(R, state.roll(by, 1))
        torch.testing.assert_close(turned, loop.roll(by * 64, -1), atol=1e-4, rtol=1e-4)


def test_a_loop_of_log_mel_has_no_seam() -> None:
    """Played round and round, it is as near to its state at the seam as anywhere."""
    period = 8 * MEL.fold_time * MEL.hop
    t = np.arange(3 * period) / period
    sound = (0.3 * np.sin(2 * np.pi * 57 * t) + 0.1 * np.cos(2 * np.pi * 211 * t)).astype(np.float32)[None]
    state = MEL.encode(torch.from_numpy(sound)[None])[:, 8:16]
    loop = decoded_loop(MEL, state)[0].numpy()
    assert loop.shape == (1, period)
    away = strayed(np.tile(loop, (1, 3)), state, 8)
    assert float(torch.cat([away[:4], away[-4:]]).mean()) < 2 * float(away[4:-4].mean())
    bends = np.abs(np.diff(np.tile(loop[0], 2), 2))
    assert bends[period - 3 : period + 1].max() <= bends[: period - 3].max()
