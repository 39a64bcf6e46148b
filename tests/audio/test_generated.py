"""What a call gives: saving, keeping a large job's results, notebooks."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from multidiff.errors import InputError
from multidiff.pipeline import SettingWarning
from multidiff_audio.generated import AudioOutput, restore, store

RATE = 8000
RECIPE = {
    "checkpoint": "some",
    "sha256": "00",
    "solver": "ddim",
    "grid": "log-snr",
    "num_inference_steps": 4,
    "seed": 3,
}


def output(indices: list[int], channels: int = 1, failed: dict[int, int] | None = None, **recipe: Any) -> AudioOutput:
    """Sounds that depend on the sample number alone, of different lengths."""
    sounds = []
    for i in indices:
        time = np.arange(1000 + 500 * i) / RATE
        phases = np.arange(channels)[:, None]
        sounds.append((0.1 * np.sin(2 * np.pi * (200 + 50 * i) * time + phases)).astype(np.float32))
    prompts = [f"sound {i}" for i in indices]
    return AudioOutput(sounds, RATE, prompts, indices, failed or {}, RECIPE | recipe, 4)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("options", [{}, {"format": "flac", "bit_depth": 24}, {"bit_depth": "float", "loudness": None}])
def test_what_was_stored_is_what_comes_back(tmp_path: Path, channels: int, options: dict[str, Any]) -> None:
    whole = output([0, 1, 2, 3, 4], channels, **options)
    store([output([3], channels), output([0, 4], channels)], tmp_path / "000000")
    store([output([2, 1], channels)], tmp_path / "000001")
    back = restore([tmp_path / "000000", tmp_path / "000001"], whole.recipe, 4)
    assert (back.indices, back.prompts, back.sampling_rate, len(back)) == (whole.indices, whole.prompts, RATE, 5)
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(back.audios, whole.audios, strict=True))
    assert np.array_equal(back.audios[-2:][1], whole.audios[4])
    records: dict[str, list[dict[str, Any]]] = {"made": [], "restored": []}
    counts = [made.save(tmp_path / name, records[name]) for name, made in (("made", whole), ("restored", back))]
    assert counts[0] == counts[1]
    assert records["made"] == records["restored"]
    assert files(tmp_path / "made") == files(tmp_path / "restored")


def test_what_failed_is_known_again_and_said(tmp_path: Path) -> None:
    made = output([4, 2], failed={2: 17})
    made.audios[1][:] = np.nan
    store([made], tmp_path / "chunk")
    back = restore([tmp_path / "chunk"], RECIPE, 4)
    assert back.failed == {2: 17}
    records: list[dict[str, Any]] = []
    with pytest.warns(SettingWarning, match="2 not finite"):
        counts = back.save(tmp_path / "out", records)
    assert (counts["samples"], counts["written"]) == (2, 1)
    assert [record.get("not_finite_at_step") for record in records] == [17, None]
    assert set(files(tmp_path / "out")) == {"audio-00004.wav", "audio.png"}


def test_sounds_are_read_when_used(tmp_path: Path) -> None:
    store([output([0, 1])], tmp_path / "chunk")
    back = restore([tmp_path / "chunk"], RECIPE, 4)
    (tmp_path / "chunk.npz").unlink()
    with pytest.raises(InputError, match=r"chunk\.npz is damaged"):
        back.audios[0]


@pytest.mark.parametrize("cut", [0, 10, 0.5, -1])
def test_cut_file(tmp_path: Path, cut: float) -> None:
    store([output([0, 1])], tmp_path / "chunk")
    whole = (tmp_path / "chunk.npz").read_bytes()
    (tmp_path / "chunk.npz").write_bytes(whole[: round(cut * len(whole)) if isinstance(cut, float) else cut])
    with pytest.raises(InputError, match=r"chunk\.npz is damaged"):
        restore([tmp_path / "chunk"], RECIPE, 4)


def test_any_changed_byte_is_seen_or_changes_nothing(tmp_path: Path) -> None:
    made = output([0, 1])
    store([made], tmp_path / "chunk")
    whole = bytearray((tmp_path / "chunk.npz").read_bytes())
    refused = 0
    for at in np.random.default_rng(0).integers(len(whole), size=60):
        changed = whole.copy()
        changed[at] ^= 0x10
        (tmp_path / "chunk.npz").write_bytes(changed)
        try:
            back = restore([tmp_path / "chunk"], RECIPE, 4)
            assert all(np.array_equal(a, b) for a, b in zip(back.audios, made.audios, strict=True))
            assert back.prompts == made.prompts
        except InputError:
            refused += 1
    assert refused > 50


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="damaged"):
        restore([tmp_path / "none"], RECIPE, 4)


def test_choices_at_saving_take_the_place_of_the_recipes(tmp_path: Path) -> None:
    made = output([0], bit_depth="16", loudness=-30.0)
    made.save(tmp_path, format="flac", bit_depth=24)
    with soundfile.SoundFile(tmp_path / "audio-00000.flac") as file:
        assert file.subtype == "PCM_24"
        held = json.loads(file.comment)
    assert (held["format"], held["bit_depth"], held["loudness"]) == ("flac", 24, -30.0)
    with pytest.raises(InputError, match="made otherwise"):
        made.save(tmp_path, format="flac", bit_depth=16)
    with pytest.raises(InputError, match="unknown format"):
        made.save(tmp_path, format="ogg")


def test_notebooks_get_a_player_and_a_picture_of_each(tmp_path: Path) -> None:
    made = output(list(range(10)), channels=2)
    made.prompts[1] = "<script>alert(1)</script>\"'"
    made.audios[2][:] = np.nan
    shown = made._repr_html_()
    assert "<script" not in shown
    assert html.escape(made.prompts[1]) in shown
    assert "and 2 more" in shown
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    sounds = re.findall(r'src="data:audio/wav;base64,([^"]+)"', shown)
    assert (len(pictures), len(sounds)) == (8, 7)  # there is nothing to play of what is not finite
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[3])))
    assert (rate, sound.shape) == (RATE, (len(made.audios[4][0]), 2))


def test_one_file_of_a_full_disk_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match="disk full"):
        store([output([0])], tmp_path / "chunk")
    assert not list(tmp_path.iterdir())
