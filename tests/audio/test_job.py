"""A call's arguments: what is refused before any work, what is said, what is filled in."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multidiff.errors import InputError
from multidiff.pipeline import SettingWarning
from multidiff_audio.curves import curves
from multidiff_audio.job import Job, make_job

RATE = 8000


@pytest.fixture(autouse=True)
def _no_work(monkeypatch: pytest.MonkeyPatch, pipe: Any) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was called before all arguments were checked")

    monkeypatch.setattr(pipe.denoiser.network, "forward", never)


def job(pipe: Any, **call: Any) -> Job:
    """Without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return make_job(pipe, call)


def said(pipe: Any, **call: Any) -> list[str]:
    """What is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_job(pipe, call)
    assert all(issubclass(warning.category, SettingWarning) for warning in caught)
    assert not any("\n" in str(warning.message) for warning in caught)
    return [str(warning.message) for warning in caught]


def test_what_the_checkpoint_recommends_is_filled_in(pipe: Any) -> None:
    made = job(pipe, prompt="seven")
    assert made.settings.recipe() == {"solver": "dpm++2m", "grid": "log-snr", "num_inference_steps": 3}
    assert made.guidance.scale == 1.5
    assert made.classes.tolist() == [[-1, -1]]
    assert made.recipe(RATE) == {"guidance_scale": 1.5, "prompt": ["seven"]}


def test_nothing_has_to_be_asked_for(pipe: Any) -> None:
    assert job(pipe).request.prompts == ("",)
    assert job(pipe, prompt="", duration=0.3, negative_prompt="", guidance_scale=1.0).request.prompts == ("",)


# ---------------------------------------------------------------------------------------------------------- warnings


def test_words_that_are_not_known_are_named(pipe: Any) -> None:
    assert said(pipe, prompt="a wolf") == ["the checkpoint never saw 'wolf', which is left out of the prompt"]
    (line,) = said(pipe, prompt=["the Fox, a fox", "seven"], negative_prompt="howls")[:1]
    assert line == "the checkpoint never saw 'the', 'fox', which are left out of the prompt"
    (line,) = said(pipe, prompt=" ".join(f"w{i}" for i in range(99)))
    assert line.count("'") == 16
    assert "..." in line


def test_those_of_negative_prompts_too(pipe: Any) -> None:
    assert "'howls'" in said(pipe, prompt="seven", negative_prompt="howls")[0]


def test_words_beyond_what_is_read_are_named(pipe: Any) -> None:
    assert said(pipe, prompt="seven two seven two seven two rain dog") == [
        "a prompt has more than the 6 words that are read; left out: rain dog"
    ]


@pytest.mark.parametrize("prompt", ["\U0001f436", "?!", "\x00", "--"])
def test_a_prompt_without_a_word_is_told_of(pipe: Any, prompt: str) -> None:
    assert "holds no word" in said(pipe, prompt=prompt)[0]


def test_a_length_beyond_the_training_data_is_told_of(pipe: Any, sound: np.ndarray) -> None:
    assert said(pipe, duration=0.6) == ["0.6 s: tiny was trained on up to 0.5 s"]
    assert said(pipe, duration=[0.3, 0.5]) == []
    assert said(pipe, init=sound, extend=0.3) == ["0.675125 s: tiny was trained on up to 0.5 s"]


def test_guidance_beyond_what_is_recommended_or_in_vain_is_told_of(pipe: Any) -> None:
    assert "guidance scale 9: tiny is recommended with 1 to 4" in said(pipe, guidance_scale=9)
    assert said(pipe, guidance_scale=1, negative_prompt="rain") == [
        "a negative prompt has no effect at guidance scale 1; give a larger one"
    ]
    assert said(pipe, guidance_scale=1, negative_prompt="") == []


def test_what_is_converted_is_told_of(pipe: Any, tmp_path: Path) -> None:
    import soundfile

    path = tmp_path / "six.wav"
    noise = 0.1 * np.random.default_rng(0).normal(size=(16_000 // 4, 6))
    soundfile.write(path, noise, 16_000)
    assert said(pipe, init=path) == [f"{path} was converted: 16000 Hz to 8000 Hz, 6 channels to 1"]
    assert said(pipe, init=noise[:, 0]) == []


def test_damage_is_told_of(pipe: Any, tmp_path: Path, sound_file: Path, sound: np.ndarray) -> None:
    import soundfile

    (tmp_path / "cut.wav").write_bytes(sound_file.read_bytes()[:2000])
    assert said(pipe, init=tmp_path / "cut.wav") == [f"{tmp_path / 'cut.wav'} is cut short"]
    holes = sound.T.copy()
    holes[100:110] = np.nan
    soundfile.write(tmp_path / "nan.wav", holes, RATE, subtype="FLOAT")
    assert said(pipe, init=tmp_path / "nan.wav") == [
        f"{tmp_path / 'nan.wav'} has samples that are not finite, which count as 0"
    ]


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")
@pytest.mark.skipif("MULTIDIFF_DATA" not in os.environ, reason="MULTIDIFF_DATA is not set")
def test_each_messy_file_is_a_sound_or_an_error_of_one_line(make_tiny: Any) -> None:
    pipe = make_tiny(durations={"shortest": 0.05, "longest": 30.0})
    refused: list[str] = []
    for path in sorted((Path(os.environ["MULTIDIFF_DATA"]) / "messy" / "audio").iterdir()):
        try:
            start = make_job(pipe, {"init": path}).given
        except InputError as error:
            refused.append(str(error))
            continue
        assert start is not None
        assert start.sound.shape == (1, start.samples)
        assert np.isfinite(start.levelled).all()
    assert len(refused) == 6  # silence, text, no samples
    assert not any("\n" in line for line in refused)


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")
@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"prompt": "x" * 10_001}, "a prompt of 10001 characters is too long"),
        ({"prompt": "a", "negative_prompt": "x" * 10_001}, "a prompt of 10001 characters is too long"),
        ({"prompt": ["a", "b", "c"], "duration": [1, 2]}, "duration: 2 of them for 3 prompts"),
        ({"duration": 0}, "duration 0.0 is not allowed"),
        ({"duration": 1e9}, "far beyond the 0.5 s"),
        ({"duration": 5.1}, "far beyond the 0.5 s"),
        ({"strength": 0.5}, "need a sound to start from"),
        ({"inpaint": [(0, 1)]}, "need a sound to start from"),
        ({"extend": 1}, "need a sound to start from"),
        ({"init": "SOUND", "strength": 0}, "strength 0 is not allowed"),
        ({"init": "SOUND", "strength": 1.5}, "strength 1.5 is not allowed"),
        ({"init": "SOUND", "strength": float("nan")}, "strength nan is not allowed"),
        ({"init": "SOUND", "strength": "half"}, "strength 'half' is not allowed"),
        ({"init": "SOUND", "inpaint": [(0.1, 0.5)]}, "lies outside the sound, which is 0.375 s long"),
        ({"init": "SOUND", "inpaint": [(0.2, 0.1)]}, "the end must come after the start"),
        ({"init": "SOUND", "inpaint": [(0.0, 0.2), (0.1, 0.3)]}, "overlaps"),
        ({"init": "SOUND", "inpaint": [(0.1, 0.2)], "duration": 0.5}, "duration follows from init"),
        ({"init": "SOUND", "extend": 0.1, "duration": 0.5}, "duration follows from init"),
        ({"init": "SOUND", "extend": 100.0}, "far beyond"),
        ({"init": "SOUND", "loop": True}, "cannot be combined with init"),
        ({"init": "SILENCE"}, "init is silent"),
        ({"init": "/no/such.wav"}, "/no/such.wav"),
        ({"classes": {"speakr": "theo"}}, "did you mean 'speaker'"),
        ({"classes": {"speaker": "teo"}}, "did you mean 'theo'"),
        ({"variations_of": -1}, "variations_of -1"),
        ({"variations_of": 1.5}, "variations_of 1.5"),
        ({"variations_of": True}, "variations_of True"),
        ({"variations_of": 1, "variation_strength": 1.1}, "variation_strength 1.1"),
        ({"variations_of": 1, "variation_strength": float("nan")}, "variation_strength nan"),
        ({"guidance_scale": float("inf")}, "guidance_scale inf"),
        ({"guidance_scale": True}, "guidance_scale True"),
        ({"follow": {"pich": [100]}, "duration": 0.3}, "did you mean 'pitch'"),
        ({"follow": "/no/such.wav"}, "/no/such.wav"),
        ({"follow": [100, 200], "duration": 0.3}, "give a sound file, or a mapping"),
        ({"follow": {"pitch": [100, 200]}}, "need one duration for all"),
        ({"follow": {"pitch": [100, 200]}, "duration": [0.3, 0.4]}, "need one duration for all"),
        ({"follow": {"pitch": []}, "duration": 0.3}, "pitch must be a list of finite numbers"),
        ({"follow": {"pitch": [[1, 2]]}, "duration": 0.3}, "pitch must be a list of finite numbers"),
        ({"follow": {"pitch": [float("nan")]}, "duration": 0.3}, "pitch must be a list of finite numbers"),
        ({"follow": {"pitch": ["high"]}, "duration": 0.3}, "pitch must be a list of finite numbers"),
        ({"solver": "dmp++2m"}, "did you mean"),
        ({"solver_options": {"etta": 1}}, "etta|option"),
        ({"format": "mp3"}, "format"),
        ({"loudness": 3.0}, "loudness 3.0"),
        ({"promt": "seven"}, "unknown argument 'promt'; did you mean 'prompt'"),
        ({"indices": [1]}, "unknown argument 'indices'"),
    ],
    ids=str,
)
def test_bad_arguments(pipe: Any, sound: np.ndarray, call: dict[str, Any], says: str) -> None:
    arrays = {"SOUND": sound, "SILENCE": np.zeros_like(sound)}
    call = {name: arrays.get(value, value) if isinstance(value, str) else value for name, value in call.items()}
    with pytest.raises(InputError, match=says) as caught:
        make_job(pipe, call)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_names_of_curves_of_a_file(pipe: Any, sound_file: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'loudness'"):
        make_job(pipe, {"follow": sound_file, "follow_curves": ["loudnes"]})


# ------------------------------------------------------------------------------------------------------ what follows


def test_strength_where_none_is_asked_for(pipe: Any, sound: np.ndarray) -> None:
    assert job(pipe, init=sound).settings.strength == 0.6
    assert job(pipe, init=sound, inpaint=[(0.1, 0.2)]).settings.strength == 1.0
    assert job(pipe, init=sound, extend=0.1).settings.strength == 1.0
    assert job(pipe, init=sound, strength=0.25).settings.strength == 0.25
    assert job(pipe).settings.strength == 1.0


def test_strength_is_the_share_of_the_steps(pipe: Any, sound: np.ndarray) -> None:
    for strength, calls in ((1.0, 40), (0.5, 20), (0.25, 10), (0.001, 1)):
        settings = job(pipe, init=sound, strength=strength, num_inference_steps=40).settings
        assert pipe.network_calls(settings) == calls
        levels = pipe.levels(settings)
        assert levels[-1].t == 0
        assert levels == pipe.levels(job(pipe, num_inference_steps=40).settings)[-calls - 1 :]


def test_classes_by_name(pipe: Any) -> None:
    assert job(pipe, classes={"speaker": "theo"}).classes.tolist() == [[1, -1]]
    assert job(pipe, classes={"word": "seven", "speaker": "jackson"}).classes.tolist() == [[0, 0]]


def test_a_followed_file(pipe: Any, sound_file: Path) -> None:
    made = job(pipe, prompt=["seven", "two"], follow=sound_file, follow_curves=["pitch"])
    assert made.request.seconds == (3001 / RATE,) * 2
    assert made.follow is not None
    assert np.isnan(made.follow[:, [0, 2]]).all()
    assert np.isfinite(made.follow[:, 1]).all()
    assert len(made.follow) == 95  # a frame every 32 samples, from the first to the last
    json.dumps(made.recipe(RATE))


def test_numbers_are_followed_as_a_sound_that_has_them_is(pipe: Any) -> None:
    t = torch.arange(2400) / RATE
    tone = 0.25 * torch.sin(2 * torch.pi * 250 * t)
    measured = curves(tone[None], RATE, 32, 76)[0, 20:-20].numpy()
    loudness = 20 * np.log10(0.25) - 3.01
    follow = {"loudness": [loudness, loudness], "pitch": [250.0], "brightness": [250, 250, 250]}
    made = job(pipe, follow=follow, duration=0.3)
    assert made.follow is not None
    assert made.follow.shape == (76, 3)
    np.testing.assert_allclose(made.follow[20:-20], measured, atol=0.03)


def test_numbers_are_spread_evenly(pipe: Any) -> None:
    made = job(pipe, follow={"loudness": [-60, 0]}, duration=0.3)
    assert made.follow is not None
    np.testing.assert_allclose(made.follow[:, 0], np.linspace(-1, 1, 76), atol=1e-6)
    assert np.isnan(made.follow[:, 1:]).all()


def test_numbers_over_a_sound_to_start_from(pipe: Any, sound: np.ndarray) -> None:
    made = job(pipe, init=sound, follow={"pitch": [100, 200]})
    assert made.follow is not None
    assert len(made.follow) == 95
