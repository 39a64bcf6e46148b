"""Files are found and taken from folders and archives alike, and an archive's are never held in memory unless asked."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from multidiff.account import Account, few
from multidiff.errors import InputError
from multidiff.sources import Wanted, find

TEXTS = Wanted("text", (".txt",), (".doc",), "save them as text")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "texts"
    (made / "deep").mkdir(parents=True)
    for name in ("b.txt", "a.TXT", "deep/c.txt", "old.doc", "other.bin"):
        (made / name).write_text(name * 1000)
    return made


def _packed(folder: Path, kind: str) -> Path:
    archive = folder.parent / f"texts.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*.*")):
                file.write(path, path.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, "w") as file:
            file.add(folder, ".")
    return archive


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_files_are_the_same_wherever_they_lie(folder: Path, kind: str, tmp_path: Path) -> None:
    found = find(folder if kind == "folder" else _packed(folder, kind), TEXTS)
    assert sorted(found.files) == ["a.TXT", "b.txt", "deep/c.txt"]
    assert found.refused == (("old.doc", ".doc files are not read; save them as text"),)
    assert found.ignored == 1
    place = tmp_path / "unpacked"
    place.mkdir()
    unpacked = dict(found.unpacked(found.files, place))
    for name, content in found.contents(found.files):
        path = unpacked[name]
        assert isinstance(path, Path)
        assert path.suffix.lower() == ".txt"
        assert path.read_text() == (folder / name).read_text()
        assert not isinstance(content, InputError)
        assert (content if isinstance(content, bytes) else content.read_bytes()) == path.read_bytes()
    assert len(list(place.iterdir())) == (0 if kind == "folder" else 3)


def test_archives_that_break_off_lose_only_what_is_after(folder: Path, tmp_path: Path) -> None:
    archive = _packed(folder, "tar")
    found = find(archive, TEXTS)
    archive.write_bytes(archive.read_bytes()[:12_000])  # a file is about 5,000 bytes and its headers
    taken = dict(found.unpacked(found.files, tmp_path))
    good = [name for name, path in taken.items() if isinstance(path, Path)]
    assert set(taken) == set(found.files)
    assert 0 < len(good) < len(taken)
    for name in good:
        assert (tmp_path / Path(str(taken[name])).name).read_text() == name * 1000


def test_texts_beside_the_files_are_set_apart_where_they_are_wanted(folder: Path) -> None:
    found = find(folder, Wanted("binary", (".bin",), sidecars=(".txt",)))
    assert found.files == ("other.bin",)
    assert sorted(found.sidecars) == ["a.TXT", "b.txt", "deep/c.txt"]
    assert found.ignored == 1


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_full_disk_is_not_taken_for_damage(folder: Path, kind: str, tmp_path: Path) -> None:
    found = find(_packed(folder, kind), TEXTS)
    with pytest.raises(InputError, match=r"cannot write .*gone"):
        list(found.unpacked(found.files, tmp_path / "gone"))


def test_accounts_warn_of_more_than_a_hundredth_and_name_what_was_skipped() -> None:
    account = Account(files=100)
    account.skip("empty", "a")
    assert account.lines(Path("x"), 0) == ["x: 100 files, 99 kept, 1 skipped", "  skipped, empty: 1: a"]
    account.skip("empty", "b")
    assert account.lines(Path("x"), 0)[0].startswith("warning: 2 of 100 files (2.0%)")
    assert few(list("abcde"), 2) == "5: a; b; and 3 more"
