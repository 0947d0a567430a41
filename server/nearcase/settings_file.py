"""Reading the settings: once from TOML, then from NEARCASE_* variables.

An unknown key or a value of the wrong type stops the start; nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from nearcase.errors import InvalidInput
from nearcase.settings import Settings
from nearcase.settings_check import checked

FOR_CLIENTS = ("server", "tenant", "token_file", "client_ca", "client_cert", "client_key")
"""NEARCASE_ variables that the commands read and the server does not."""


def read_settings(file: Path | None = None, environment: Mapping[str, str] | None = None, **given: object) -> Settings:
    """Returns the defaults, overridden by the file, then by NEARCASE_* variables, then by what is given and not None.

    Raises:
        InvalidInput: The file can not be read, a key is unknown, or a value has the wrong type.
    """
    values: dict[str, object] = _from_file(file) if file else {}
    values |= _from_environment(os.environ if environment is None else environment)
    values |= {key: value for key, value in given.items() if value is not None}
    kinds = get_type_hints(Settings)
    unknown = sorted(set(values) - set(kinds))
    if unknown:
        raise InvalidInput(f"unknown setting {unknown[0]!r}; known: {', '.join(sorted(kinds))}", field=unknown[0])
    converted: dict[str, Any] = {key: _convert(key, value, kinds[key]) for key, value in values.items()}
    return checked(dataclasses.replace(Settings(), **converted))


def _from_file(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"settings file {file.name}: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    prefix = "NEARCASE_"
    ours = {key.removeprefix(prefix).lower(): text for key, text in environment.items() if key.startswith(prefix)}
    return {key: text for key, text in ours.items() if key not in FOR_CLIENTS}


def _convert(key: str, value: object, kind: object) -> object:
    """Converts text (from the environment) and TOML values to the field's type; a bool is not a number here."""
    try:
        if isinstance(value, bool) or kind is bool:
            if kind is bool:
                return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        elif kind in (int, float):
            return int(str(value)) if kind is int else float(str(value))
        elif kind in (Path, Path | None) and isinstance(value, (str, Path)):
            return Path(value)
        elif kind is str and isinstance(value, str):
            return value
    except (KeyError, ValueError):
        pass
    raise InvalidInput(f"setting {key} is {value!r}, expected {getattr(kind, '__name__', kind)}", field=key)
