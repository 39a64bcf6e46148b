"""`multidiff evaluate video`: what is on disk is measured as the arrays are, and what cannot be read is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("PIL")

from multidiff import cli
from multidiff.errors import InputError
from multidiff.pipeline import SettingWarning
from multidiff_video import fvd
from multidiff_video.digits import MovingDigits, caption, drawn_glyphs
from multidiff_video.encoding import write
from multidiff_video.evaluate import evaluate, format_table
from multidiff_video.generated import VideoOutput
from multidiff_video.judge import Judge
from multidiff_video.measure import measure
from multidiff_video.packed import PackedVideos
from multidiff_video.real import RealDigits
from multidiff_video.samples import read_samples, unscaled

torch.set_num_threads(1)
ASKED: list[Any] = [[(3, "left")], [(7, "up then down")], [(0, "right"), (1, "down")]]
PROMPTS = [caption(pairs) for pairs in ASKED]


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    field = MovingDigits(drawn_glyphs())
    return [field.render(field.scene(np.random.default_rng(i), pairs)) for i, pairs in enumerate(ASKED)]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "strokes.npz"
    glyphs = drawn_glyphs()
    np.savez(path, x_train=glyphs.images, y_train=glyphs.labels, x_test=glyphs.images, y_test=glyphs.labels)
    return path


def generated(clips: list[np.ndarray], folder: Path, format: str) -> Path:
    """A folder as `generate` writes it, with a sample that was not finite."""
    records: list[dict[str, Any]] = []
    recipe = {"seed": 0, "format": format, "fps": 8.0}
    output = VideoOutput([*clips, clips[0]], 8.0, [*PROMPTS, "a 6 moving up"], list(range(4)), {3: 2}, recipe)
    with pytest.warns(SettingWarning, match="not finite"):
        output.save(folder, records)
    (folder / "run.json").write_text(json.dumps({"samples": records}))
    return folder


@pytest.mark.parametrize("format", ["png", "webp", "gif"])
def test_a_lossless_folder_is_measured_as_its_arrays(
    clips: list[np.ndarray], digits: Path, tmp_path: Path, format: str
) -> None:
    """Prompts are those of run.json; the sample that was not finite is wrong."""
    nothing = np.zeros((0, 64, 64, 1), np.uint8)
    found = evaluate(generated(clips, tmp_path / "out", format), digits, progress=False)
    direct = measure(
        [*clips, nothing], [*PROMPTS, "a 6 moving up"], RealDigits.load(digits), Judge.load(), progress=False
    )
    assert (found["samples"], found["missing"], found["one/digits/n"]) == (4, 1, 3)
    for name in ("one/digits", "one/direction", "two/both", "flicker", "identity", "nearest", "identity/real"):
        assert found[name] == pytest.approx(direct[name], abs=1e-3), name


def test_an_mp4_is_measured_at_the_size_it_was_made(clips: list[np.ndarray], tmp_path: Path) -> None:
    folder = generated(clips, tmp_path / "out", "mp4")
    samples = read_samples(folder, progress=False)
    assert [clip.shape[:3] for clip in samples.clips[:3]] == [(16, 64, 64)] * 3
    assert samples.prompts == [*PROMPTS, "a 6 moving up"]
    for read, made in zip(samples.clips, clips, strict=False):
        assert np.abs(read.mean(-1) - made[..., 0]).mean() < 1
    assert evaluate(folder, progress=False)["one/direction"] == pytest.approx(2 / 3)


def test_files_alone_say_what_was_asked(clips: list[np.ndarray], tmp_path: Path) -> None:
    """Any folder: each file has its prompt inside; a folder of frames is a clip."""
    for i, name in enumerate(("b.webp", "a.gif", "c")):
        write(tmp_path / name, clips[i], 8.0, {"prompt": PROMPTS[i]}, format="png" if name == "c" else None)
    (tmp_path / "notes.txt").write_text("not a clip")
    samples = read_samples(tmp_path, progress=False)
    assert samples.names == ["a.gif", "b.webp", "c"]
    assert samples.prompts == [PROMPTS[1], PROMPTS[0], PROMPTS[2]]
    assert read_samples(tmp_path / "c", progress=False).prompts == [PROMPTS[2]]
    assert read_samples(tmp_path / "a.gif", progress=False).prompts == [PROMPTS[1]]


def test_what_cannot_be_read_is_named(clips: list[np.ndarray], tmp_path: Path) -> None:
    write(tmp_path / "good.webp", clips[0], 8.0, {"prompt": PROMPTS[0]})
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 100)
    found = evaluate(tmp_path, progress=False)
    assert (found["samples"], found["unreadable"]) == (1, 1)
    assert "bad.mp4" in found["unreadable/bad.mp4"]
    assert "bad.mp4" in format_table(found)


def test_a_packed_data_set_is_measured_and_compared_with(clips: list[np.ndarray], tmp_path: Path) -> None:
    packed = PackedVideos.pack(clips * 4, 8.0, [(text,) for text in PROMPTS] * 4)
    packed.save(tmp_path / "packed")
    found = evaluate(tmp_path / "packed", tmp_path / "packed", progress=False)
    assert found["one/direction"] == 1
    assert found["flicker/real"] is not None
    assert found["one/digits/real"] is None
    assert "copies" not in found
    assert json.dumps(found)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_what_was_enlarged_is_made_small_again(clips: list[np.ndarray], scale: int) -> None:
    small = clips[2][:, 8:, 3:]  # not square
    np.testing.assert_array_equal(unscaled(small.repeat(scale, 1).repeat(scale, 2)), small)
    padded = np.pad(small.repeat(scale, 1).repeat(scale, 2), ((0, 0), (0, 1), (0, 0), (0, 0)), "edge")
    np.testing.assert_array_equal(unscaled(padded), small)


def test_what_was_not_enlarged_stays(clips: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(0, 1, (4, 64, 64, 3)), 1), 2)
    smooth = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    for clip in (clips[0], smooth, np.zeros((3, 64, 64, 1), np.uint8), clips[0][:, :5, :5]):
        assert unscaled(clip) is clip


def test_bad_input(clips: list[np.ndarray], digits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it holds none"):
        evaluate(tmp_path, progress=False)
    write(tmp_path / "good.webp", clips[0], 8.0, {"prompt": PROMPTS[0]})
    with pytest.raises(InputError, match="multidiff prepare video"):
        evaluate(tmp_path, tmp_path, progress=False)
    with pytest.raises(InputError, match="--i3d needs --reference"):
        evaluate(tmp_path, i3d=tmp_path / "i3d.pt", progress=False)
    with pytest.raises(InputError, match="no file"):
        evaluate(tmp_path, digits, i3d=tmp_path / "i3d.pt", progress=False)
    (tmp_path / "i3d.pt").write_bytes(b"not a network")
    with pytest.raises(InputError, match="no TorchScript file"):
        evaluate(tmp_path, digits, i3d=tmp_path / "i3d.pt", progress=False)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        evaluate(tmp_path, progress=False)


def test_from_the_command_line(
    clips: list[np.ndarray], digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = generated(clips, tmp_path / "out", "webp")
    wanted = ["evaluate", "video", str(folder), "--reference", str(digits), "--json", str(tmp_path / "f.json")]
    assert cli.main(wanted) == 0
    told = capsys.readouterr().out
    assert "one/digits" in told
    assert "fvd" not in told
    assert json.loads((tmp_path / "f.json").read_text())["samples"] == 4


# --------------------------------------------------------------------------------------------------------------- FVD


class Plain(torch.nn.Module):
    """Features that say what it was given: size, least, most, and brightness at the start and the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[3] != 224:
            raise ValueError("224 pixels are wanted")
        return torch.stack([x.min(), x.max(), x[:, :, 0].mean(), x[:, :, -1].mean()])[None]


class Common(torch.nn.Module):
    """With the arguments of the file that most projects use."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert rescale
        assert resize
        assert return_features
        return torch.stack([x.min(), x.max(), x[:, :, 0].mean(), x[:, :, -1].mean()])[None]


def test_i3d_is_given_what_it_takes(clips: list[np.ndarray], tmp_path: Path) -> None:
    for network, lowest, highest in ((Plain(), -1.0, 1.0), (Common(), 0.0, 255.0)):
        torch.jit.script(network).save(str(tmp_path / "i3d.pt"))
        found = fvd.features(fvd.load(tmp_path / "i3d.pt"), clips, progress=False)
        assert found.shape == (3, 4)
        assert found[:, 0] == pytest.approx(lowest)
        assert found[:, 1] == pytest.approx(
            [c.max() / 255 * (highest - lowest) + lowest for c in clips], abs=0.02 * highest
        )
        want = [c[0].mean() / 255 * (highest - lowest) + lowest for c in clips]
        assert found[:, 2] == pytest.approx(want, abs=0.01 * highest)
    with pytest.raises(InputError, match="10 frames or more"):
        fvd.features(fvd.load(tmp_path / "i3d.pt"), [clips[0][:9]], progress=False)


def test_fvd_is_in_a_table_of_its_own(clips: list[np.ndarray], digits: Path, tmp_path: Path) -> None:
    for i, clip in enumerate(clips):
        write(tmp_path / f"{i}.webp", clip, 8.0, {"prompt": PROMPTS[i]})
    torch.jit.script(Common()).save(str(tmp_path / "i3d.pt"))
    found = evaluate(tmp_path, digits, i3d=tmp_path / "i3d.pt", progress=False)
    assert found["fvd/n"] == 3
    table = format_table(found)
    assert table.index("not to be compared") < table.index("\nfvd ")
    assert table.index("frechet") < table.index("not to be compared")
