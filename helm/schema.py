"""Writes what values.schema.json says of `settings` and `secrets`, from nearcase.settings.

A setting that is a file comes from a secret; every other one that the chart does not decide is a line of nearcase.toml.

python helm/schema.py         writes the file
python helm/schema.py --check exits with 1 where it is not what would be written
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from pathlib import Path
from typing import Any, get_type_hints

from nearcase import settings, settings_check

FILE = Path(__file__).parent / "nearcase" / "values.schema.json"

BY_THE_CHART = frozenset(
    {
        *("data", "listen", "health_listen", "metrics_listen", "encoder", "findings", "erasures", "callers"),
        *("audit_folder", "index", "qdrant_url", "deidentify"),
    }
)
"""Settings that values of their own decide: addresses and mounted folders."""

FILE_KIND = Path | None

CHOICES = {
    "audit": settings_check.AUDITS,
    "runtime": settings_check.RUNTIMES,
    "tenants": ("none", "metadata", "caller"),
    "burned_in": ("refuse", "mask"),
    "log_format": ("text", "json"),
    "qdrant_quantization": ("none", "int8", "4bit"),
}
NO_CONTROL_CHARACTERS = "^[^\\x00-\\x1f\\x7f]*$"
PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[0-5]?[0-9]{1,4})"
PATTERNS = {
    "audit_syslog": f"^([^\\x00-\\x1f\\x7f]+:{PORT})?$",
    "otlp_endpoint": "^(https?://[^/@\\s\\x00-\\x1f\\x7f]+:[0-9]{1,5})?$",
    "qdrant_collection": "^[A-Za-z0-9_-]{1,200}$",
}
"""What settings_check.py asks of a text."""


def written() -> str:
    """Returns the whole file as it should be."""
    schema = json.loads(FILE.read_text(encoding="utf-8"))
    schema["properties"]["settings"] = {
        "type": "object",
        "description": "Lines of nearcase.toml, the server's settings file.",
        "additionalProperties": False,
        "properties": {name: one(name, kind) for name, kind in sorted(open_settings().items()) if kind != FILE_KIND},
    }
    schema["properties"]["secrets"] = {
        "type": "object",
        "description": "Files of secrets that are there already, each for one setting.",
        "additionalProperties": False,
        "properties": {name: secret(name) for name, kind in sorted(open_settings().items()) if kind == FILE_KIND},
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def in_the_volume() -> frozenset[str]:
    """Returns the folders that stay where their defaults are, below `data`."""
    folders = {name for name, text in descriptions().items() if text.startswith("Folder ")}
    return frozenset(folders) - BY_THE_CHART


def open_settings() -> dict[str, Any]:
    """Returns the settings that a value of the chart may give, with their types."""
    hints = get_type_hints(settings.Settings)
    return {name: kind for name, kind in hints.items() if name not in BY_THE_CHART | in_the_volume()}


def one(name: str, kind: Any) -> dict[str, Any]:
    """Returns the schema of one setting."""
    schema: dict[str, Any] = {"description": descriptions()[name]}
    if kind is bool:
        return schema | {"type": "boolean"}
    if kind in (int, float):
        limits = {"minimum": settings_check.LEAST.get(name, 1), "maximum": settings_check.MOST.get(name, 2**40)}
        return schema | {"type": "integer" if kind is int else "number"} | limits
    if name in CHOICES:
        return schema | {"type": "string", "enum": list(CHOICES[name])}
    return schema | {"type": "string", "maxLength": 1024, "pattern": PATTERNS.get(name, NO_CONTROL_CHARACTERS)}


def secret(name: str) -> dict[str, Any]:
    """Returns the schema of a setting that is a file."""
    of_secret = {"description": "Name of the secret.", "pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", "maxLength": 253}
    of_key = {"description": "Which key of it.", "pattern": "^[A-Za-z0-9._-]+$", "maxLength": 253}
    return {
        "type": "object",
        "description": descriptions()[name],
        "additionalProperties": False,
        "required": ["secret", "key"],
        "properties": {"secret": {"type": "string", **of_secret}, "key": {"type": "string", **of_key}},
    }


def descriptions() -> dict[str, str]:
    """Returns the string after each field of Settings."""
    body = ast.parse(inspect.getsource(settings.Settings)).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError("expected the class Settings")
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


if __name__ == "__main__":
    text = written()
    if "--check" in sys.argv[1:]:
        sys.exit(text != FILE.read_text(encoding="utf-8"))
    FILE.write_text(text, encoding="utf-8")
