"""PESQ and STOI through their packages, and a CLAP network that is built here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchaudio")

from multidiff import domain
from multidiff.errors import InputError
from multidiff_audio.clips import PackedClips

Speech = Callable[..., np.ndarray]


@pytest.mark.parametrize(("rate", "best"), [(8000, 4.5), (16000, 4.6), (22050, 4.6)])
def test_a_sound_is_like_itself_and_less_like_it_the_more_noise(rate: int, best: float, speech: Speech) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    from multidiff_audio.fidelity import fidelity

    sound = speech(rate=rate)
    noise = 0.1 * np.random.default_rng(1).standard_normal(sound.shape).astype(np.float32)
    same, little, much = (fidelity(sound, sound + share * noise, rate) for share in (0, 0.03, 1))
    assert same.pesq > best
    assert same.stoi == pytest.approx(1, abs=1e-4)
    assert same.snr == math.inf
    assert same.pesq >= little.pesq > much.pesq
    assert same.stoi >= little.stoi > much.stoi
    assert little.snr - much.snr == pytest.approx(-20 * math.log10(0.03), abs=1e-2)


def test_what_cannot_be_judged_is_no_number(speech: Speech) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    from multidiff_audio.fidelity import fidelity

    short = fidelity(speech(0.1), speech(0.1), 8000)
    silent = fidelity(np.zeros((1, 8000), np.float32), np.zeros((1, 8000), np.float32), 8000)
    assert math.isnan(short.pesq)
    assert math.isnan(short.stoi)
    assert math.isnan(silent.pesq)


def test_a_missing_package_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch, speech: Speech) -> None:
    from multidiff_audio.fidelity import fidelity

    def gone(reference: str) -> None:
        raise domain.missing(ModuleNotFoundError(name="pesq")) or AssertionError

    monkeypatch.setattr(domain, "load", gone)
    with pytest.raises(InputError, match=r"pesq is not installed.*multidiff\[audio-quality\]"):
        fidelity(speech(), speech(), 8000)


def test_without_transformers_clap_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from multidiff_audio.clap import Clap

    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InputError, match="pip install transformers"):
        Clap.load("nowhere")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLAP of a few thousand weights with a vocabulary of letters, saved as `transformers` saves one."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clap")
    audio = {
        "window_size": 4, "num_mel_bins": 32, "spec_size": 128, "patch_size": 4, "patch_stride": [4, 4],
        "depths": [1, 1], "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 8, "hidden_size": 16,
        "projection_dim": 8, "num_classes": 3,
    }  # fmt: skip
    text = {
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 64, "projection_dim": 8, "pad_token_id": 1,
    }  # fmt: skip
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=8)
    transformers.ClapModel(config).save_pretrained(folder)
    extract = transformers.ClapFeatureExtractor(
        feature_size=32, sampling_rate=16000, hop_length=160, fft_window_size=512, max_length_s=1, frequency_max=8000,
        truncation="rand_trunc", padding="repeatpad",
    )  # fmt: skip
    extract.save_pretrained(folder)
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz", "\u0120"]
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return folder


def test_clap_hears_and_reads(network: Path, speech: Speech) -> None:
    """Cosines are of one sound and its own words, whatever goes beside them; real ones are given too."""
    from multidiff_audio.clap import Clap

    clap = Clap.load(network)
    sounds = [speech(), speech(0.5)[:, ::-1].copy(), np.full((1, 9), np.nan, np.float32)]
    heard, said = clap.hear(sounds[:2], 8000), clap.read(["seven", "a dog barks"])
    np.testing.assert_allclose(np.linalg.norm(heard, axis=1), 1)
    np.testing.assert_allclose(clap.hear(sounds[1:2], 8000)[0], heard[1], atol=1e-5)
    np.testing.assert_allclose(clap.read(["seven"])[0], said[0], atol=1e-5)
    clips = PackedClips.pack(sounds[:1], 8000, [("seven",)], None, [2])
    found = clap.figures(sounds, 8000, ["seven", "a dog barks", "x"], clips)
    assert found["clap/score"] == pytest.approx((heard * said).sum(1).mean())
    assert found["clap/score/n"] == 2
    assert found["clap/score/real"] == pytest.approx(heard[0] @ said[0], abs=1e-3)  # packed at 16 bits
    assert "clap/frechet" not in found


def test_no_network_there_is_said(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from multidiff_audio.clap import Clap

    with pytest.raises(InputError, match="no CLAP network at"):
        Clap.load(tmp_path)
