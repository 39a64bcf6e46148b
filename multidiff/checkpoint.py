"""The checkpoint folder: `config.json`, `model.safetensors`, `README.md`; plain data, nothing in it can run.

`config.json` is an object with at least

    format   1
    domain   the name of the domain that understands the rest
    sha256   of model.safetensors, so that a single changed bit is seen

and whatever the domain's pipeline needs. Classes are written ``{"class": NAME, argument: value, ...}``, where NAME is
one of a registry (`Domain.components` and the core's own); see `build`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multidiff import domain as domains
from multidiff import files
from multidiff.errors import InputError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"

# Sizes a network is built from; beyond it a typing error would ask for terabytes before the weights are compared.
LARGEST_ARGUMENT = 2**16
_LARGEST_CONFIG = 16 * 2**20  # bytes
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")
_CONVERT = (
    "is a pickle, which can run code when it is opened; give a folder with config.json and model.safetensors "
    "(a finished `multidiff fit` writes one; weights you trust convert with "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors'))"
)


# ---------------------------------------------------------------------------------------------------------- writing


def save(folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str) -> Path:
    """Write a checkpoint, whole or not at all: an older one in `folder` stays until the new one is complete.

    Args:
        folder: made if need be; one that holds anything but a checkpoint is refused.
        config: JSON types only, with the key ``domain``; ``format`` and ``sha256`` are added.
        tensors: name -> weight.
        card: the model card, Markdown with a YAML front matter.

    Raises:
        InputError: the folder cannot be written or holds other files, the disk is full, or `config` is not JSON.
    """
    from safetensors.torch import save as to_bytes

    target = Path(folder).absolute()
    weights = to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    stamped = {"format": FORMAT, **config, "sha256": hashlib.sha256(weights).hexdigest()}
    try:
        text = json.dumps(stamped, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the configuration for {target / CONFIG} must be plain JSON: {error}") from error
    _check_header(stamped, target / CONFIG)
    contents = {CONFIG: text.encode() + b"\n", WEIGHTS: weights, CARD: card.encode()}
    _refuse_foreign_files(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        try:
            for name, data in contents.items():
                _write(temporary / name, data)
            os.chmod(temporary, 0o777 & ~files._umask())
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _explain(error, target, sum(map(len, contents.values()))) from error
    return Path(folder)


def _refuse_foreign_files(target: Path) -> None:
    if not target.is_dir():
        return
    others = sorted(set(os.listdir(target)) - {CONFIG, WEIGHTS, CARD})
    if others:
        raise InputError(
            f"{target} holds other files ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}); "
            "save the checkpoint into a new folder"
        )


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _swap(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`. Killed between the two renames, `resolve` finds the old one beside it."""
    old = _aside(target)
    if not target.exists():
        os.rename(new, target)
    else:
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        try:
            os.rename(new, target)
        except OSError:
            os.rename(old, target)
            raise
    shutil.rmtree(old, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _explain(error: OSError, target: Path, size: int) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"disk full while writing {target}: it needs {size / 1e6:.1f} MB; what was there is intact")
    return files.explain(error, target)


# ---------------------------------------------------------------------------------------------------------- finding


def resolve(name: str | Path) -> Path:
    """The folder of a checkpoint: a local folder, the name of one that ships, a domain's name, or a hub id.

    Raises:
        InputError: nothing is found, it is a pickle, or the hub cannot be reached.
    """
    folder = Path(name)
    if not folder.exists() and _aside(folder.absolute()).is_dir():
        folder = _aside(folder.absolute())
    if (folder / CONFIG).is_file():
        return folder
    shipped = _shipped() if len(folder.parts) == 1 else {}
    if str(name) in shipped:
        return shipped[str(name)]
    if folder.exists():
        raise _not_a_checkpoint(folder)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(name)):
        return _download(str(name))
    if len(folder.parts) > 1:
        raise InputError(f"no checkpoint at {name}: there is no such folder")
    raise unknown("checkpoint", str(name), shipped)


def _shipped() -> dict[str, Path]:
    """Every name that ships, and each domain's own name for its default."""
    found: dict[str, Path] = {}
    for name in domains.names():
        with contextlib.suppress(InputError):  # one that is not installed hides no other
            domain = domains.find(name)
            found |= domain.checkpoints()
            if domain.default_checkpoint in found:
                found[name] = found[domain.default_checkpoint]
    return found


def _not_a_checkpoint(path: Path) -> InputError:
    if path.is_file():
        if path.suffix.lower() in _PICKLES:
            return InputError(f"{path} {_CONVERT}")
        return InputError(f"{path} is a file; give the folder that holds {CONFIG} and {WEIGHTS}")
    pickles = sorted(p.name for p in path.iterdir() if p.suffix.lower() in _PICKLES)
    if pickles:
        return InputError(f"{path / pickles[0]} {_CONVERT}")
    return InputError(f"{path} is not a checkpoint: it has no {CONFIG}")


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(
            f"no folder {name}; to take it from the hub: pip install huggingface_hub, and run this again"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, CARD]))
    except Exception as error:  # the hub's client raises errors of its own, of httpx and of the system
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"no folder {name}, and the hub does not give it: {reason}") from error


# ---------------------------------------------------------------------------------------------------------- reading


def read(name: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights (on the CPU) of a checkpoint; `name` as for `resolve`.

    Raises:
        InputError: it is not there, damaged, changed since it was written, or not a checkpoint of this format.
    """
    folder = resolve(name)
    config = read_config(folder)
    return config, _read_weights(folder, config["sha256"])


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a folder that `resolve` gave, its header checked."""
    path = folder / CONFIG
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise InputError(f"{path} is larger than any configuration; it is not one of multidiff's")
        config = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} must hold a JSON object, not {_kind(config)}")
    _check_header(config, path)
    return config


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _check_header(config: Mapping[str, Any], path: Path) -> None:
    version = require(config, "format", int, path)
    if version != FORMAT:
        raise InputError(f"{path}: format {version} is not known to this multidiff (it reads {FORMAT}); upgrade it")
    require(config, "domain", str, path)
    if not re.fullmatch(r"[0-9a-f]{64}", require(config, "sha256", str, path)):
        raise InputError(f"{path}: 'sha256' must be 64 hexadecimal digits")


def _read_weights(folder: Path, sha256: str) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    try:
        data = path.read_bytes()  # the bytes that were proven are the bytes that are used
    except FileNotFoundError:
        raise _no_weights(folder) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    # The length that safetensors begins with may look like a pickle's first bytes; its header never does.
    if data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[8:9] != b"{"):
        raise InputError(f"{path} {_CONVERT}")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(f"{path} is damaged or was changed: its sha256 is not the one in {CONFIG}; copy it again")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from error


def _no_weights(folder: Path) -> InputError:
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _PICKLES)
    if pickles:
        return InputError(f"{folder / pickles[0]} {_CONVERT}")
    return InputError(f"{folder} has no {WEIGHTS}; the checkpoint is incomplete, copy it again")


# --------------------------------------------------------------------------------------------------------- building


def require(config: Mapping[str, Any], key: str, kind: type | tuple[type, ...], path: Path | str) -> Any:
    """``config[key]``, which must be there and be of `kind` (a JSON type; an int passes for a float, a bool never).

    Raises:
        InputError: it is missing or of another type; names `path` and the key.
    """
    if key not in config:
        raise InputError(f"{path}: the key {key!r} is missing")
    value, kinds = config[key], kind if isinstance(kind, tuple) else (kind,)
    fits = isinstance(value, kinds) or (float in kinds and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(_NAMES.get(k, k.__name__) for k in kinds)
        raise InputError(f"{path}: {key!r} must be {names}, not {_kind(value)}")
    return value


_NAMES = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def _kind(value: object) -> str:
    text = json.dumps(value, default=str)
    return f"{text[:40]}..." if len(text) > 40 else text


def build(spec: object, components: Mapping[str, Any], path: Path | str, key: str) -> Any:
    """The object that ``{"class": NAME, argument: value, ...}`` describes; an argument may be another such object.

    Args:
        spec: the JSON value.
        components: NAME -> the class, or ``"module:attribute"``; a name that is not in it is refused, not imported.
        path: the file `spec` is from, for the error.
        key: where in the file, for the error.

    Raises:
        InputError: no object, an unknown class, an unknown, missing or unusable argument.
    """
    where = f"{path}: {key!r}"
    if not isinstance(spec, dict):
        raise InputError(f"{where} must be an object with the key 'class', not {_kind(spec)}")
    name = require(spec, "class", str, where)
    if name not in components:
        raise InputError(f"{where}: {unknown('class', name, components)}")
    arguments = {argument: value for argument, value in spec.items() if argument != "class"}
    _check_integers(arguments, where)
    for argument, value in arguments.items():
        if isinstance(value, dict) and "class" in value:
            arguments[argument] = build(value, components, path, f"{key}.{argument}")
    factory = components[name]
    factory = domains.load(factory) if isinstance(factory, str) else factory
    try:
        signature = inspect.signature(factory)
        signature.bind(**arguments)
        _check_types(signature, arguments, f"{where}: {name}")
        return factory(**arguments)
    except InputError:
        raise
    except Exception as error:  # whatever a constructor makes of values it was not written for
        raise InputError(f"{where}: {name}: {str(error).partition(chr(10))[0] or type(error).__name__}") from error


def _check_types(signature: inspect.Signature, arguments: Mapping[str, Any], where: str) -> None:
    """The arguments whose annotation is one plain type; the others are the constructor's to check."""
    plain: dict[Any, type] = {"int": int, "float": float, "str": str, "bool": bool}
    plain |= {kind: kind for kind in plain.values()}
    for name in arguments:
        parameter = signature.parameters.get(name)
        if parameter is not None and parameter.annotation in plain:
            require(arguments, name, plain[parameter.annotation], where)


def _check_integers(value: object, where: str) -> None:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_integers(item, where)
    elif isinstance(value, int) and abs(value) > LARGEST_ARGUMENT:
        raise InputError(f"{where}: the integer {str(value)[:24]} is beyond what a network is built from")


def build_module(
    spec: object, tensors: Mapping[str, Tensor], components: Mapping[str, Any], folder: Path, key: str = "network"
) -> nn.Module:
    """`build` for a network, with its weights loaded; sizes are compared before memory is taken for them.

    Raises:
        InputError: as `build`, or the weights do not fit (the first five are listed).
    """
    import torch

    sketch: nn.Module | None = None
    with contextlib.suppress(Exception), torch.device("meta"), _undrawn():  # not every network can be built there
        sketch = build(spec, components, folder / CONFIG, key)
    if sketch is not None:
        check_weights(sketch, tensors, folder)
    module: nn.Module = build(spec, components, folder / CONFIG, key)
    load_weights(module, tensors, folder)
    return module


def _undrawn() -> contextlib.AbstractContextManager[Any]:
    """Initial weights are not drawn: for normal ones on the meta device torch would import its compiler, a second."""
    from torch.overrides import TorchFunctionMode

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__module__", "") == "torch.nn.init":
                return args[0] if args else kwargs["tensor"]
            return func(*args, **(kwargs or {}))

    return Undrawn()


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Copy all of `tensors` into `module`, or none of them.

    Raises:
        InputError: a name or a shape does not fit (the first five are listed); `module` is as it was.
    """
    check_weights(module, tensors, folder)
    module.load_state_dict(dict(tensors), strict=True)


def check_weights(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Raise `InputError` with the first five misfits between `tensors` and what `module` asks for."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    faults = [f"{name} is missing" for name in expected if name not in given]
    faults += [f"{name} is not of this network" for name in given if name not in expected]
    faults += [
        f"{name} is {given[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise InputError(f"{folder / WEIGHTS} does not fit {CONFIG}: {'; '.join(faults[:5])}{more}")
