"""Dataclasses <-> canonical JSON, so that equal values are equal bytes and a hash tells whether a file was edited.

Keys are sorted, nothing is blank, floats are written as the shortest text that reads back as the same bits (never NaN
or infinite). Reading is strict: a key that is missing, unknown or of another type is refused by its path.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import math
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nearcase.errors import InvalidInput

T = TypeVar("T")

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def dump(value: object) -> bytes:
    """Returns the canonical JSON of dataclasses, enums, bytes (as base64), tuples, mappings and plain values."""
    try:
        text = _ENCODER.encode(plain(value))
    except ValueError as error:
        raise InvalidInput("expected finite numbers, got NaN or an infinite one") from error
    return text.encode("ascii")


def digest(value: object) -> str:
    """Returns the SHA-256 of the canonical JSON, hexadecimal."""
    return hashlib.sha256(dump(value)).hexdigest()


def seal(kind: str, body: object) -> bytes:
    """Returns a file that states its format and the SHA-256 of its body."""
    return dump({"format": kind, "sha256": digest(body), "body": body}) + b"\n"


def format_of(data: bytes) -> str:
    """Returns the format that a file states, "" where it states none."""
    try:
        outer = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    stated = outer.get("format") if isinstance(outer, dict) else None
    return stated if isinstance(stated, str) else ""


def unseal(kind: str, body_type: type[T], data: bytes, *, reason: str) -> T:
    """The inverse of seal.

    Raises:
        InvalidInput: With this reason: the bytes are no such file, or were edited since they were sealed.
    """
    try:
        outer = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"expected a file {kind}, got no JSON", reason=reason) from error
    if not isinstance(outer, dict) or set(outer) != {"format", "sha256", "body"} or outer["format"] != kind:
        raise InvalidInput(f"expected a file {kind}, got another kind of JSON", reason=reason)
    try:
        found, written = digest(outer["body"]), dump(outer)
    except (InvalidInput, RecursionError) as error:
        raise InvalidInput(
            f"expected finite numbers in a sane depth in the {kind}, got others", reason=reason
        ) from error
    if found != outer["sha256"]:
        raise InvalidInput(f"expected the body of the {kind} that was hashed, got an edited one", reason=reason)
    if written != data.strip():  # a key twice or a number in other words: two programs could read two files
        raise InvalidInput(f"expected the {kind} as it was written, got its JSON in other bytes", reason=reason)
    try:
        return load(body_type, outer["body"])
    except InvalidInput as error:
        raise InvalidInput(f"{kind}: {error}", reason=reason, field=error.field) from error


def load(kind: type[T], value: object) -> T:
    """Returns the value that plain JSON stands for.

    Raises:
        InvalidInput: The JSON does not have the type's shape; the field is the path in it.
    """
    found: T = _load(kind, value, "")
    return found


def plain(value: object, kind: Any = None) -> Any:
    """Returns a value as plain JSON.

    Args:
        value: What `dump` takes.
        kind: What the value was declared as, where that is known: an int in a float's place becomes a float.
    """
    if value is None or isinstance(value, str | float | bool):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name), hint) for name, hint in _hints(type(value)).items()}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each, item) for each, item in zip(value, _item_kinds(kind, len(value)), strict=True)]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, int) and _stated(kind) is float:
        return float(value)
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def _item_kinds(kind: Any, count: int) -> tuple[Any, ...]:
    """What each item of a tuple was declared as."""
    kinds = get_args(_stated(kind)) or (None, Ellipsis)
    return (kinds[0],) * count if kinds[-1] is Ellipsis else kinds


def _stated(kind: Any) -> Any:
    """What an optional field is when it is not None."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return next(each for each in get_args(kind) if each is not NoneType)


def _load(kind: Any, value: object, path: str) -> Any:
    if get_origin(kind) in (Union, UnionType):
        return None if value is None else _load(_stated(kind), value, path)
    if get_origin(kind) is tuple:
        return _load_tuple(get_args(kind), value, path)
    if dataclasses.is_dataclass(kind):
        return _load_fields(kind, value, path)
    return _load_plain(kind, value, path)


def _load_fields(kind: Any, value: object, path: str) -> Any:
    hints = _hints(kind)
    if not isinstance(value, dict):
        raise _refusal(path, "an object", type(value).__name__)
    for name in sorted(set(hints) ^ set(value)):
        raise _refusal(f"{path}.{name}", *(("there", "no such key") if name in hints else ("no such key", "it")))
    loaded = {name: _load(hint, value[name], f"{path}.{name}") for name, hint in hints.items()}
    try:
        return kind(**loaded)
    except InvalidInput as error:  # of the type's own check
        raise InvalidInput(f"{_shown(path)}: {error}", field=_shown(path)) from error


def _load_tuple(kinds: tuple[Any, ...], value: object, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _refusal(path, "a list", type(value).__name__)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise _refusal(path, f"{len(kinds)} values", str(len(value)))
    return tuple(_load(each, item, f"{path}[{at}]") for at, (each, item) in enumerate(zip(kinds, value, strict=True)))


def _load_plain(kind: Any, value: object, path: str) -> Any:
    if kind in (str, int, bool) and type(value) is kind:
        return value
    if kind is float and type(value) in (int, float):
        return _finite(value, path)
    if kind is bytes and isinstance(value, str):
        return _bytes(value, path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        for each in kind:
            if each.value == value:
                return each
    raise _refusal(path, kind.__name__, type(value).__name__)


def _finite(value: Any, path: str) -> float:
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise _refusal(path, "a finite number", "an infinite one or NaN")
    return found


def _bytes(value: str, path: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise _refusal(path, "base64", "other text") from error


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _refusal(path: str, expected: str, got: str) -> InvalidInput:
    """Values are not repeated: a file that is no file of ours may hold anything."""
    return InvalidInput(f"expected {_shown(path)} to be {expected}, got {got}", field=_shown(path))


def _shown(path: str) -> str:
    return path.lstrip(".") or "body"
