"""The JSON schema of a report, read off its dataclasses, so that the two can not drift apart."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from enum import Enum
from typing import Any

from nearcase_eval.audit.report import FORMAT, Report

DRAFT = "https://json-schema.org/draft/2020-12/schema"
SIMPLE: dict[type, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
}


def schema() -> dict[str, Any]:
    """Returns the schema (JSON Schema 2020-12)."""
    definitions: dict[str, Any] = {}
    _of(Report, definitions)
    root = definitions.pop("Report")
    root["properties"]["format"] = {"const": FORMAT}
    return {"$schema": DRAFT, "title": "Report of nearcase-audit", **root, "$defs": dict(sorted(definitions.items()))}


def to_text() -> str:
    """Returns the schema as it is published."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind in SIMPLE:
        return dict(SIMPLE[kind])
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_of(each, definitions) for each in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0], definitions)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [each.value for each in kind]}
    if dataclasses.is_dataclass(kind):
        return _object(kind, definitions)
    raise TypeError(f"expected plain data in a report, got {kind}")


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in definitions:
        definitions[name] = {}  # a place, should it hold itself
        hints = typing.get_type_hints(kind)
        definitions[name] = {
            "description": (kind.__doc__ or "").split("\n\n")[0].strip(),
            "type": "object",
            "properties": {each.name: _of(hints[each.name], definitions) for each in dataclasses.fields(kind)},
            "required": [each.name for each in dataclasses.fields(kind)],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}
