"""A checkpoint file -> the model, or one line that names the tensor that is wrong.

The published file is called .pt and is safetensors. Code that loads it loosely runs on random weights without a sign
when names differ; here every tensor must be there, of its shape, finite, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nearcase.errors import InvalidInput
from nearcase_models.medimageinsight.model import MedImageInsight
from nearcase_models.medimageinsight.names import published_name
from nearcase_models.medimageinsight.shape import Shape

_FLOATS = ("F32", "F16", "BF16")  # halves are widened: a file may have been stored so, the network runs in float32
_PICKLES = (b"PK\x03\x04", b"\x80")  # what torch.save writes: a zip of a pickle, or a bare one

Advance = Callable[[], object]


def load_weights(path: Path, shape: Shape, advance: Advance = lambda: None) -> MedImageInsight:
    """Returns the model with the weights of a file, in eval mode.

    Args:
        path: A safetensors file, whatever its suffix.
        shape: What it must hold.
        advance: Called once for each tensor.

    Raises:
        InvalidInput: It is another kind of file or a damaged one, or a tensor is missing, extra, misshapen or not
            finite; the message names the first.
    """
    _refuse_pickle(path)
    with torch.device("meta"):
        model = MedImageInsight(shape)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            stored = _stored_names(list(file.keys()))
            _check_names(stored, expected)
            for name, shape_ in expected.items():
                part = file.get_slice(stored[name])
                _check_kind(name, tuple(part.get_shape()), part.get_dtype(), shape_)
            for name in expected:
                _place(model, name, _finite(name, file.get_tensor(stored[name])))
                advance()
    except (SafetensorError, OSError) as error:
        raise InvalidInput(f"Expected a whole safetensors file, got: {error}", field="checkpoint") from error
    return model.eval().requires_grad_(False)


def count_tensors(shape: Shape) -> tuple[int, int]:
    """Returns how many tensors and how many parameters a checkpoint of this shape has."""
    with torch.device("meta"):
        tensors = MedImageInsight(shape).state_dict().values()
    return len(tensors), sum(tensor.numel() for tensor in tensors)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InvalidInput(f"Expected a readable checkpoint, got: {error.strerror}", field="checkpoint") from error
    if start.startswith(_PICKLES):
        raise InvalidInput(
            "Expected a safetensors file, got a pickle, which could run code when it is read", field="checkpoint"
        )


def _stored_names(names: list[str]) -> dict[str, str]:
    """Returns the file's name of each published one."""
    stored: dict[str, str] = {}
    for name in names:
        new = published_name(name)
        if new in stored:
            raise InvalidInput(f"Expected the tensor {new} once, got {stored[new]} and {name}", field="checkpoint")
        stored[new] = name
    return stored


def _check_names(stored: Mapping[str, str], expected: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in expected if name not in stored]
    extra = sorted(old for new, old in stored.items() if new not in expected)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InvalidInput(f"Expected the tensor {missing[0]}{more} in the file, got none", field="checkpoint")
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise InvalidInput(f"Expected {len(expected)} tensors, got also {extra[0][:200]}{more}", field="checkpoint")


def _check_kind(name: str, found: tuple[int, ...], kind: str, expected: tuple[int, ...]) -> None:
    if found != expected:
        raise InvalidInput(f"Expected the tensor {name} of shape {expected}, got {found}", field="checkpoint")
    if kind not in _FLOATS:
        raise InvalidInput(f"Expected the tensor {name} of type {' or '.join(_FLOATS)}, got {kind}", field="checkpoint")


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise InvalidInput(
            f"Expected finite values in the tensor {name}, got infinite ones or none", field="checkpoint"
        )
    return tensor.to(torch.float32)


def _place(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Puts one tensor where the meta device held its place, so that the model is never in memory twice."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Parameter(tensor.clone(), requires_grad=False))
