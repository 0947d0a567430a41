"""Checkpoint files -> tensors -> a network: no pickled object runs, and nothing is missing or left over."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from nearcase.errors import InvalidInput

_SAFETENSORS = ".safetensors"
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_MAX_HEADER_BYTES = 100_000_000  # of a safetensors file, as its reference reader limits it


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a .safetensors file, or of a torch file read with `weights_only=True`.

    A table of tensors inside one of the usual wrappers ("state_dict", "model") is taken out of it.

    Raises:
        InvalidInput: The file can not be read, holds anything that would run code, or holds no tensors.
    """
    if not path.is_file():
        raise InvalidInput(f"expected a checkpoint file, found none at {path.name}")
    with path.open("rb") as file:
        start = file.read(9)
    found = _safetensors(path) if _looks_like_safetensors(path, start) else _torch(path, start)
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not found:
        raise InvalidInput(f"expected a table of tensors in {path.name}, got {type(found).__name__}")
    tensors = {str(key): value for key, value in found.items() if isinstance(value, torch.Tensor)}
    if len(tensors) != len(found):
        other = next(str(key) for key, value in found.items() if not isinstance(value, torch.Tensor))
        raise InvalidInput(f"expected only tensors in {path.name}, got another object under {other[:80]}")
    return tensors


def load_strictly(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Puts the tensors into the network, as float32 where it holds floats.

    Raises:
        InvalidInput: A tensor is missing, extra, misshapen or not finite; the message names the first one.
    """
    own = model.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing:
        raise InvalidInput(f"expected {len(own)} tensors, found no {missing[0]} ({len(missing)} missing)")
    if extra:
        raise InvalidInput(f"expected {len(own)} tensors, got {extra[0]} besides ({len(extra)} extra)")
    for name, value in own.items():
        given = tensors[name]
        if given.shape != value.shape:
            raise InvalidInput(f"expected {name} of shape {tuple(value.shape)}, got {tuple(given.shape)}")
        if given.is_floating_point() and not bool(torch.isfinite(given).all()):
            raise InvalidInput(f"expected finite values in {name}, got others")
    model.load_state_dict({name: tensors[name].to(value.dtype) for name, value in own.items()}, strict=True)


def _looks_like_safetensors(path: Path, start: bytes) -> bool:
    """Eight bytes of length and then JSON; the name alone decides nothing."""
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and 2 <= length <= min(_MAX_HEADER_BYTES, path.stat().st_size)


def _safetensors(path: Path) -> Mapping[str, object]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise InvalidInput(f"reading {_SAFETENSORS} needs a package: pip install safetensors") from None
    try:
        tensors: Mapping[str, object] = load_file(path)
    except Exception as error:  # its error types share no base class
        raise InvalidInput(f"expected a sound {_SAFETENSORS} file, got: {str(error)[:120]}") from None
    return tensors


def _torch(path: Path, start: bytes) -> object:
    if not (zipfile.is_zipfile(path) or start.startswith(b"\x80")):
        raise InvalidInput(f"expected a safetensors or torch file, got other bytes in {path.name}")
    try:
        with path.open("rb") as file, warnings.catch_warnings():  # by a path, torch would go by its ending
            warnings.simplefilter("ignore")  # it warns of old pickles before it refuses them
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        message = f"{path.name} holds objects that would run code, or is damaged: it is not opened"
        raise InvalidInput(message) from None
    except Exception as error:  # a cut or damaged file raises whatever its reader met
        raise InvalidInput(f"expected a sound torch file, got a damaged one ({type(error).__name__})") from None
