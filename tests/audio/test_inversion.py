"""Sounds from amplitudes: the inverse of mel bands, and phases."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from multidiff_audio.inversion import Hints, griffin_lim, nonnegative_solution
from multidiff_audio.representation import LogMel

R = LogMel(8000, n_fft=256, hop=64, mels=64)
SAMPLES = 8000


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def found(sound: Tensor, iterations: int = 60, hints: Hints | None = None) -> Tensor:
    """From the amplitudes of its spectrogram alone."""
    search = partial(griffin_lim, R._analysis(sound).abs(), R._analysis, R._synthesis, sound.shape[-1], iterations)
    return search() if hints is None else search(hints=hints)


def divergence(target: Tensor, made: Tensor) -> float:
    return float((target * (target / made).log() - target + made).sum())


def test_the_inverse_of_the_mel_bank_is_not_negative_and_fits_better_than_a_clipped_one() -> None:
    r = LogMel(16_000, n_fft=512, hop=256)
    bank = r._mel.mel_scale.fb.T.double()
    spectrum = noise(257, 20, seed=1).double().abs() ** 3  # peaks and valleys
    target = bank @ spectrum
    found = nonnegative_solution(bank, target)
    clipped = (torch.linalg.pinv(bank) @ target).clamp(min=0)
    assert (found >= 0).all()
    assert divergence(target, bank @ found) < 0.1 * divergence(target, bank @ clipped)
    assert error(bank @ found, target) < 0.05


def test_the_divergence_falls_with_each_iteration() -> None:
    """Theorem 2 of Lee and Seung 2001."""
    bank = R._mel.mel_scale.fb.T.double()
    target = bank @ noise(129, 20, seed=1).double().abs() ** 3
    away = [divergence(target, bank @ nonnegative_solution(bank, target, n)) for n in (0, 1, 2, 5, 20, 100)]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 0.01 * away[0]


def test_no_amplitude_stays_none() -> None:
    bank = R._mel.mel_scale.fb.T
    assert not nonnegative_solution(bank, torch.zeros(64, 5)).any()


def test_more_iterations_fit_better() -> None:
    sound = noise(1, 1, SAMPLES)
    away = [error(R._analysis(found(sound, n)).abs(), R._analysis(sound).abs()) for n in (1, 10, 60)]
    assert away[0] > 1.5 * away[1] > 1.5 * away[2]


def test_noise_does_not_buzz() -> None:
    """Its power does not depend on the place within a frame."""
    power = found(noise(1, 1, 16_000))[0, 0, 1024:-1024].unflatten(0, (-1, R.hop)).square().mean(0)
    assert float(power.std() / power.mean()) < 0.2  # 218 frames, each chi-squared: 0.1


def test_what_is_known_is_nearly_found() -> None:
    """To where the rest begins, so that nothing is heard there."""
    t = torch.arange(SAMPLES) / 8000
    tone = torch.sin(2 * torch.pi * 440 * t)[None, None]
    anew = (torch.arange(SAMPLES) >= 3600) & (torch.arange(SAMPLES) < 4400)
    made = found(tone, hints=Hints(known=lambda sounds: torch.where(anew, sounds, tone)))
    assert error(made[..., ~anew], tone[..., ~anew]) < 0.05
    assert error(made[..., 3600:3632], tone[..., 3600:3632]) < 0.2
    assert error(found(tone)[..., ~anew], tone[..., ~anew]) > 0.5


def test_the_start_is_kept_by_few_iterations_and_silence_in_it_does_no_harm() -> None:
    sound = noise(1, 1, SAMPLES)
    near = [error(found(sound, hints=Hints(start=sound, share=share)), sound) for share in (0.01, 1.0)]
    assert near[0] < 1e-3
    silent = found(sound, hints=Hints(start=torch.zeros(1, 1, SAMPLES)))
    assert torch.equal(silent, found(sound))


def test_the_same_each_time_and_no_hidden_random_state() -> None:
    sound = noise(1, 2, SAMPLES)
    before = torch.get_rng_state()
    assert torch.equal(found(sound), found(sound))
    assert torch.equal(before, torch.get_rng_state())
