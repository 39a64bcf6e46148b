"""A file is the old one or the whole new one; a refusal is one line and comes before the work."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multidiff import files
from multidiff.errors import InputError, unknown


def test_success_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with files.atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_umask_holds(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with files.atomic_path(tmp_path / "a") as temporary:
            temporary.write_text("x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def _fail_halfway(path: Path, error: BaseException) -> None:
    path.write_text("half of the ne")
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("x"), OSError(errno.EIO, "bad sector")])
def test_any_error_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    raised = InputError if isinstance(error, OSError) else type(error)
    with pytest.raises(raised), files.atomic_path(target) as temporary:
        _fail_halfway(temporary, error)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_simulated_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(InputError, match=r"disk full while writing .*a\.txt"), files.atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB, where the system lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode
    ):
        pytest.skip("may not mount a tmpfs here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_really_full_disk(small_disk: Path) -> None:
    target = small_disk / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match="disk full"), files.atomic_path(target) as temporary:
        temporary.write_bytes(b"x" * 200_000)
    assert target.read_bytes() == b"old"
    assert os.listdir(small_disk) == ["a.bin"]


def test_checkpoint_on_a_really_full_disk(small_disk: Path) -> None:
    import torch

    from multidiff import checkpoint

    folder = checkpoint.save(small_disk / "c", {"domain": "toy"}, {"w": torch.zeros(1000)}, "card")
    with pytest.raises(InputError, match=r"disk full .* needs 0\.4 MB"):
        checkpoint.save(folder, {"domain": "toy"}, {"w": torch.ones(100_000)}, "card")
    assert torch.equal(checkpoint.read(folder)[1]["w"], torch.zeros(1000))
    assert os.listdir(small_disk) == ["c"]


def test_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = files.writable_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert os.listdir(folder) == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for path in (tmp_path / "f", tmp_path / "f" / "deeper"):
        with pytest.raises(InputError, match="cannot write"):
            files.writable_folder(path)
    with pytest.raises(InputError, match="cannot write"), files.atomic_path(tmp_path / "gone" / "a"):
        pytest.fail("entered although the folder is not there")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="cannot write"):
            files.writable_folder(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_unknown_suggests_the_nearest_name() -> None:
    text = str(unknown("solver", "DMP++2M", ["dpm++2m", "ddim"]))
    assert text == "unknown solver 'DMP++2M'; did you mean 'dpm++2m'? (allowed: ddim, dpm++2m)"
    assert str(unknown("solver", "zzz", ["ddim"])) == "unknown solver 'zzz' (allowed: ddim)"


def test_folders_are_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a"
    for content in ("old", "new"):
        with files.atomic_folder(target, ("x", "y")) as temporary:
            (temporary / "x").write_text(content)
        assert (target / "x").read_text() == content
    with pytest.raises(RuntimeError), files.atomic_folder(target, ("x", "y")) as temporary:
        _fail_halfway(temporary / "x", RuntimeError("x"))
    assert (target / "x").read_text() == "new"
    assert os.listdir(target.parent) == ["a"]


def test_folders_with_anything_else_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for target, why in ((tmp_path, r"holds other files \(mine.txt\)"), (tmp_path / "mine.txt", "is a file")):
        with pytest.raises(InputError, match=why), files.atomic_folder(target, ("x",)) as temporary:
            (temporary / "x").write_text("new")
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_a_folder_that_cannot_be_moved_in_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, rename = tmp_path / "a", os.rename
    target.mkdir()
    (target / "x").write_text("old")

    def fails(source: Any, to: Any) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(errno.EACCES, "Permission denied")
        rename(source, to)

    monkeypatch.setattr(files.os, "rename", fails)
    with pytest.raises(InputError, match="Permission denied"), files.atomic_folder(target, ("x",)) as temporary:
        (temporary / "x").write_text("new")
    assert (target / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]
