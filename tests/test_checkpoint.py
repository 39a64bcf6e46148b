"""A checkpoint is read whole and unchanged, or refused with one line that names the file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from multidiff import checkpoint
from multidiff.errors import InputError

CARD = "---\nlicense: apache-2.0\n---\n# Tiny\n"
CONFIG = {"domain": "toy", "network": {"class": "Net", "width": 4, "scale": 0.5}, "atoms": 100_000_000}


class Net(nn.Module):
    def __init__(self, width: int, scale: float = 1.0, name: str = "net") -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, width), nn.Linear(width, 2)
        self.scale = scale


COMPONENTS = {"Net": Net}


def tensors(seed: int = 0, width: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: torch.randn_like(value) for name, value in Net(width).state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint.save(tmp_path / "ckpt", CONFIG, tensors(), CARD)


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def restamp(folder: Path, weights: bytes) -> None:
    """What somebody who changes the weights on purpose would do."""
    (folder / "model.safetensors").write_bytes(weights)
    rewrite(folder, sha256=hashlib.sha256(weights).hexdigest())


def test_round_trip_is_exact(folder: Path) -> None:
    config, read = checkpoint.read(folder)
    assert {k: config[k] for k in CONFIG} == CONFIG
    assert read.keys() == tensors().keys()
    assert all(torch.equal(read[name], value) for name, value in tensors().items())
    assert (folder / "README.md").read_text() == CARD
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]


def test_dtypes_and_views_survive(tmp_path: Path) -> None:
    given = {"half": torch.randn(3, 5).bfloat16().T, "count": torch.arange(4), "one": torch.tensor(2.5)}
    _, read = checkpoint.read(checkpoint.save(tmp_path / "c", CONFIG, given, CARD))
    assert all(read[k].dtype == v.dtype and torch.equal(read[k], v) for k, v in given.items())


@pytest.mark.parametrize("kind", ["flip", "truncate", "extend", "overwrite"])
def test_any_corruption_of_the_weights_is_refused(folder: Path, kind: str) -> None:
    rng, path = random.Random(kind), folder / "model.safetensors"
    whole = path.read_bytes()
    for _ in range(50):
        at = rng.randrange(len(whole))
        data = bytearray(whole)
        if kind == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "truncate":
            del data[at:]
        elif kind == "extend":
            data += rng.randbytes(at + 1)
        else:
            data[at : at + 8] = bytes(b ^ 0xFF for b in data[at : at + 8])
        path.write_bytes(data)
        with pytest.raises(InputError) as error:
            checkpoint.read(folder)
        assert str(path) in one_line(error)
    path.write_bytes(whole)
    checkpoint.read(folder)


def test_corruption_with_a_matching_sha256_never_crashes(folder: Path) -> None:
    """The format's own checks hold too, when the sum was made to fit: an error, or tensors that the file does hold."""
    rng, whole = random.Random(1), (folder / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(100):
        data = bytearray(whole)
        data[rng.randrange(header)] ^= 1 << rng.randrange(8)
        restamp(folder, bytes(data))
        said = str(folder)
        try:
            _, read = checkpoint.read(folder)
            checkpoint.build_module(CONFIG["network"], read, COMPONENTS, folder)
        except InputError as error:
            said = str(error)
        assert str(folder) in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("[1]", "must hold a JSON object"),
        ('{"format": NaN}', "not valid JSON"),
        ('{"format": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("\xff\xfe", "not valid JSON"),
        ("{}", "'format' is missing"),
        ('{"format": "1"}', "'format' must be an integer"),
        ('{"format": true}', "'format' must be an integer"),
        ('{"format": 2}', "format 2"),
        ('{"format": 10000000000000000000000}', "format 1"),
        ('{"format": 1, "sha256": ""}', "'domain' is missing"),
        ('{"format": 1, "domain": ["x"]}', "'domain' must be a string"),
        ('{"format": 1, "domain": "x"}', "'sha256' is missing"),
        ('{"format": 1, "domain": "x", "sha256": "abc"}', "'sha256' must be 64"),
    ],
)
def test_bad_config_is_one_line(folder: Path, text: str, says: str) -> None:
    path = folder / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as error:
        checkpoint.read(folder)
    assert str(path) in one_line(error)
    assert says in one_line(error)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("Net", "'class'"),
        ({}, "'class' is missing"),
        ({"class": 3}, "'class' must be a string"),
        ({"class": "Nett"}, "did you mean 'Net'"),
        ({"class": "os.system", "command": "true"}, "unknown class"),
        ({"class": "subprocess:run", "args": "true"}, "unknown class"),
        ({"class": "Net"}, "width"),
        ({"class": "Net", "width": 4, "widht": 4}, "widht"),
        ({"class": "Net", "width": "4"}, "'width' must be an integer"),
        ({"class": "Net", "width": 4.5}, "'width' must be an integer"),
        ({"class": "Net", "width": True}, "'width' must be an integer"),
        ({"class": "Net", "width": None}, "'width' must be an integer"),
        ({"class": "Net", "width": 4, "scale": "big"}, "'scale' must be a number"),
        ({"class": "Net", "width": 4, "name": 3}, "'name' must be a string"),
        ({"class": "Net", "width": -1}, "Net"),
        ({"class": "Net", "width": 10**9}, "1000000000"),
        ({"class": "Net", "width": 10**400}, "beyond"),
    ],
)
def test_bad_spec_is_one_line(spec: object, says: str) -> None:
    with pytest.raises(InputError) as error:
        checkpoint.build(spec, COMPONENTS, "config.json", "network")
    assert says in one_line(error)
    assert "config.json" in one_line(error)
    assert "'network'" in one_line(error)


def test_a_class_outside_the_registry_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("trap.Trap", "trap:Trap", "Trap"):
        with pytest.raises(InputError):
            checkpoint.build({"class": name}, COMPONENTS, "config.json", "network")
    assert not (tmp_path / "sprung").exists()
    assert (
        type(checkpoint.build({"class": "Trap"}, {"Trap": "trap:Trap"}, "c", "n")).__name__ == "Trap"
    )  # the trap works
    assert (tmp_path / "sprung").exists()


def test_weights_that_do_not_fit_list_the_first_five(folder: Path) -> None:
    other = tensors(width=6) | {f"extra.{i}": torch.zeros(1) for i in range(3)}
    del other["second.bias"]
    module = Net(4)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(InputError) as error:
        checkpoint.load_weights(module, other, folder)
    text = one_line(error)
    assert "second.bias is missing" in text
    assert "extra.0 is not of this network" in text
    assert "first.weight is (6, 3) instead of (4, 3)" in text
    assert "and 2 more" in text
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_a_network_too_large_for_its_weights_takes_no_memory(folder: Path) -> None:
    spec = {"class": "Net", "width": 2**16}
    with pytest.raises(InputError, match=r"first.weight is \(4, 3\) instead of \(65536, 3\)"):
        checkpoint.build_module(spec, tensors(), COMPONENTS, folder)


def test_build_module_holds_the_weights(folder: Path) -> None:
    config, read = checkpoint.read(folder)
    module = checkpoint.build_module(config["network"], read, COMPONENTS, folder)
    assert module.scale == 0.5
    assert all(torch.equal(v, tensors()[k]) for k, v in module.state_dict().items())


class Canary:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["last.ckpt", "model.pt", "pytorch_model.bin", "x.pkl"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", ["file", "folder", "beside the config", "as model.safetensors"])
def test_a_pickle_is_refused_unopened(folder: Path, tmp_path: Path, name: str, zipped: bool, place: str) -> None:
    canary, home = tmp_path / "canary", tmp_path / "given"
    if place == "as model.safetensors" or place == "beside the config":
        shutil.copytree(folder, home)
        (home / "model.safetensors").unlink()
    else:
        home.mkdir()
    path = home / ("model.safetensors" if place == "as model.safetensors" else name)
    if zipped:
        torch.save({"state_dict": Canary(canary)}, path)
    else:
        path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(InputError) as error:
        checkpoint.read(path if place == "file" else home)
    assert "is a pickle" in one_line(error)
    assert "save_file" in one_line(error)
    assert not canary.exists()
    if not zipped:
        pickle.loads(path.read_bytes()).close()
        assert canary.exists()  # it would have


@pytest.mark.parametrize(
    ("missing", "says"), [("config.json", "has no config.json"), ("model.safetensors", "has no model.safetensors")]
)
def test_incomplete_folder(folder: Path, missing: str, says: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(InputError, match=says):
        checkpoint.read(folder)


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "_shipped", lambda: {"molecules": tmp_path / "m", "molecules-qm9": tmp_path / "m"})
    assert checkpoint.resolve("molecules") == tmp_path / "m"
    (tmp_path / "molecules").mkdir()  # somebody's data does not hide what ships
    assert checkpoint.resolve("molecules") == tmp_path / "m"
    with pytest.raises(InputError, match="did you mean 'molecules-qm9'"):
        checkpoint.resolve("molecules-qm8")
    with pytest.raises(InputError, match="no checkpoint at a/b/c"):
        checkpoint.resolve("a/b/c")
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is a file"):
        checkpoint.resolve("weights.safetensors")


def test_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(*args: object, **kwargs: object) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(InputError) as error:
        checkpoint.resolve("somebody/something")
    assert "somebody/something" in one_line(error)


def test_config_that_is_not_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for value in (tmp_path, float("nan"), object()):
        with pytest.raises(InputError, match="plain JSON"):
            checkpoint.save(tmp_path / "c", {"domain": "toy", "bad": value}, tensors(), CARD)
    assert os.listdir(tmp_path) == []


def test_save_replaces_a_checkpoint_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    checkpoint.save(folder, CONFIG, tensors(1), CARD)
    assert torch.equal(checkpoint.read(folder)[1]["first.bias"], tensors(1)["first.bias"])
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        checkpoint.save(folder, CONFIG, tensors(2), CARD)
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert os.listdir(tmp_path) == ["ckpt"]


@pytest.mark.parametrize("failing", ["fsync", "rename", "mkdtemp"])
def test_disk_full_while_saving_keeps_the_old_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    real = os.rename

    def full(*args: Any, **kwargs: Any) -> None:
        if failing == "rename" and ".tmp" not in str(args[0]):
            return real(*args)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr({"mkdtemp": checkpoint.tempfile}.get(failing, os), failing, full)
    with pytest.raises(InputError, match=r"disk full while writing .*needs \d+\.\d MB"):
        checkpoint.save(folder, CONFIG, tensors(1), CARD)
    monkeypatch.undo()
    assert torch.equal(checkpoint.read(folder)[1]["first.bias"], tensors()["first.bias"])
    assert os.listdir(tmp_path) == ["ckpt"]


def test_killed_at_any_moment_the_last_complete_one_loads(folder: Path) -> None:
    rng = random.Random(0)
    allowed = [tensors(seed)["first.bias"] for seed in (0, 1)]
    for _ in range(20):
        child = os.fork()
        if child == 0:
            try:
                for turn in range(10_000):
                    checkpoint.save(folder, CONFIG, tensors(turn % 2), CARD)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0.002, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        bias = checkpoint.read(folder)[1]["first.bias"]
        assert any(torch.equal(bias, each) for each in allowed)


def test_killed_between_the_renames(folder: Path) -> None:
    """The one moment without the folder: the old one, beside it, is found, and the next save mends everything."""
    os.rename(folder, checkpoint._aside(folder))
    assert torch.equal(checkpoint.read(folder)[1]["first.bias"], tensors()["first.bias"])
    checkpoint.save(folder, CONFIG, tensors(1), CARD)
    assert torch.equal(checkpoint.read(folder)[1]["first.bias"], tensors(1)["first.bias"])
    assert os.listdir(folder.parent) == ["ckpt"]
