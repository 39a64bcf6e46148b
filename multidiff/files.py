"""Files and folders that are either the old one or the whole new one, never something between."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from multidiff.errors import InputError


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it over `target` when the block succeeds.

    On any error (a full disk, Ctrl-C) the temporary file is removed and the old `target` stays as it was.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    target = Path(target)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise explain(error, target) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise explain(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: str | Path, names: Collection[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; put it in the place of `target` when the block succeeds.

    On any error the temporary folder is removed and the old `target` stays as it was.

    Args:
        target: a folder to be, an empty one, or one to replace.
        names: what a folder that is replaced may hold; one with anything else is refused.

    Raises:
        InputError: `target` is a file or holds something else, its place cannot be written, or the disk is full.
    """
    target = Path(os.path.abspath(target))
    refuse_others(target, names)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as error:
        raise explain(error, target) from error
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        _replace_folder(temporary, target)
    except OSError as error:
        raise explain(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_others(target: Path, names: Collection[str]) -> None:
    """Prove that a folder may be put in the place of `target`.

    Raises:
        InputError: it is a file, or a folder with anything but `names`.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; name a folder")
    others = sorted(set(os.listdir(target)) - set(names)) if target.exists() else []
    if others:
        more = ", ..." if len(others) > 3 else ""
        raise InputError(f"{target} holds other files ({', '.join(others[:3])}{more}); name a new folder")


def _replace_folder(new: Path, target: Path) -> None:
    if not target.exists():
        os.rename(new, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    try:
        os.rename(target, old / "it")
        try:
            os.rename(new, target)
        except OSError:
            os.rename(old / "it", target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def writable_folder(folder: str | Path) -> Path:
    """Create `folder` if need be and prove, before any work, that a file can be written in it.

    Raises:
        InputError: it is a file, or cannot be created or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe."):
            pass
    except OSError as error:
        raise explain(error, folder) from error
    return folder


def explain(error: OSError, path: Path) -> InputError:
    """The one line a user needs when the system refuses a write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"disk full while writing {path}; free some space and run the same command again")
    return InputError(f"cannot write {path}: {error.strerror or error}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
