"""Training checkpoints on disk: the old file or the whole new one, and nothing in it but plain values and tensors."""

from __future__ import annotations

import dataclasses
import enum
import errno
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from multidiff.errors import InputError
from multidiff.files import atomic_path
from multidiff.lightning.exporting import read


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a full disk or a kill at any moment leaves the old file as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` so that ``torch.load(path, weights_only=True)`` reads it.

        Raises:
            InputError: the disk is full (the old file is intact) or the folder cannot be written.
            TypeError: it holds something that is neither plain nor a tensor; the message says where.
        """
        buffer = io.BytesIO()
        torch.save(plain(checkpoint), buffer)
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as temporary:
                temporary.write_bytes(buffer.getbuffer())
        except (OSError, InputError) as error:
            raise _explain(error, target, buffer.getbuffer().nbytes) from error

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Read a checkpoint onto the CPU, or where `map_location` says; nothing in it runs.

        Raises:
            InputError: it is missing, damaged or holds more than plain values.
        """
        return read(path, map_location or "cpu")


def _explain(error: OSError | InputError, target: Path, size: int) -> InputError:
    cause = error if isinstance(error, OSError) else error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        kept = "; the checkpoint that was there is intact" if target.exists() else ""
        return InputError(f"disk full while writing {target}: it needs {size / 1e6:.1f} MB{kept}")
    return error if isinstance(error, InputError) else InputError(f"cannot write {target}: {error.strerror or error}")


def plain(value: Any, where: str = "checkpoint") -> Any:
    """`value` of plain types and tensors only, as `torch.load(weights_only=True)` asks for.

    Paths become text, NumPy values and enumerations what they stand for, data classes mappings.

    Raises:
        TypeError: for anything else, such as a module.
    """
    if isinstance(value, torch.nn.Parameter):
        return value.detach()
    if value is None or type(value) in _PLAIN or isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Mapping):
        return {plain(key, where): plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and not isinstance(value, torch.Size):
        items = [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, enum.Enum):
        return plain(value.value, where)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds plain values and tensors only")


_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
