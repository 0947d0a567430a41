"""A TOML table read key by key; whatever is wrong is refused with its file, line and column."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from typing import NoReturn

from nearcase.decide.places import Path, Place, places
from nearcase.errors import InvalidInput

ANY_TEXT = re.compile(r"\S(.*\S)?")
_AT = re.compile(r"(.*) \(at line (\d+), column (\d+)\)", re.DOTALL)


class Table:
    """One table; every method takes a key away, and `end` refuses what is left.

    Raises:
        InvalidInput: From every method, with reason FINDING_INVALID and the key's full name as its field.
    """

    def __init__(self, values: dict[str, object], file: str, found: dict[Path, Place], path: Path = ()) -> None:
        self._values = dict(values)
        self._file = file
        self._places = found
        self._path = path

    def has(self, key: str) -> bool:
        """True while the key is there and was not taken."""
        return key in self._values

    def keys(self) -> tuple[str, ...]:
        """The keys that were not taken."""
        return tuple(self._values)

    def text(self, key: str, default: str | None = None, pattern: re.Pattern[str] = ANY_TEXT) -> str:
        """Takes one line of text that matches the whole pattern."""
        if default is not None and key not in self._values:
            return default
        return self._text((key,), self._take(key), pattern)

    def choice(self, key: str, allowed: Sequence[str], default: str) -> str:
        """Takes one of the allowed words."""
        value = self._values.pop(key, default)
        if not isinstance(value, str) or value not in allowed:
            self.refuse((key,), " or ".join(allowed), value)
        return value

    def truth(self, key: str, default: bool) -> bool:
        """Takes true or false."""
        value = self._values.pop(key, default)
        if not isinstance(value, bool):
            self.refuse((key,), "true or false", value)
        return value

    def integer(self, key: str, low: int, high: int, default: int) -> int:
        """Takes a whole number from low to high."""
        value = self._values.pop(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.refuse((key,), f"a whole number from {low} to {high}", value)
        return value

    def number(self, key: str, low: float, high: float, default: float) -> float:
        """Takes a number from low to high."""
        return self._number((key,), self._values.pop(key, default), low, high)

    def numbers(self, key: str, low: float, high: float) -> tuple[float, ...]:
        """Takes a list of numbers from low to high; none where the key is absent."""
        return tuple(self._number((key, at), each, low, high) for at, each in enumerate(self._list(key)))

    def texts(self, key: str, pattern: re.Pattern[str] = ANY_TEXT) -> tuple[str, ...]:
        """Takes a list of different texts; none where the key is absent."""
        values = self._list(key)
        found = tuple(self._text((key, at), each, pattern) for at, each in enumerate(values))
        for at, each in enumerate(found):
            if each in found[:at]:
                self.refuse((key, at), "different from the values before it", each)
        return found

    def table(self, key: str) -> Table:
        """Takes a table; an empty one where the key is absent."""
        return self._table((key,), self._values.pop(key, {}))

    def tables(self, key: str) -> tuple[Table, ...]:
        """Takes a list of tables; none where the key is absent."""
        return tuple(self._table((key, at), each) for at, each in enumerate(self._list(key)))

    def end(self) -> None:
        """Refuses keys that nobody took, the first in the text."""
        if self._values:
            self.refuse((min(self._values, key=lambda key: self._order((key,))),), "no such key", "it")

    def check(self, path: Path, rule: Callable[[], object]) -> None:
        """Runs a rule, and tells its refusal with the place of a key."""
        try:
            rule()
        except InvalidInput as error:
            raise self._error(path, str(error)) from error

    def refuse(self, path: Path, expected: str, got: object) -> NoReturn:
        """Raises the error that names the key below this table, what was expected and what came."""
        shown = got if isinstance(got, str) else type(got).__name__ if isinstance(got, dict | list) else repr(got)
        raise self._error(path, f"expected {_dotted(self._path + path)} to be {expected}, got {shown[:80]}")

    def _error(self, path: Path, message: str) -> InvalidInput:
        place = self._place(self._path + path)
        text = f"{self._file}, line {place.line}, column {place.column}: {message}"
        return InvalidInput(text, reason="FINDING_INVALID", field=_dotted(self._path + path))

    def _place(self, path: Path) -> Place:
        """Of the nearest that is there: an absent key is missed in its table."""
        while path and path not in self._places:
            path = path[:-1]
        return self._places.get(path, Place(1, 1))

    def _order(self, path: Path) -> tuple[int, int]:
        place = self._place(self._path + path)
        return place.line, place.column

    def _take(self, key: str) -> object:
        if key not in self._values:
            self.refuse((key,), "there", "no such key")
        return self._values.pop(key)

    def _list(self, key: str) -> list[object]:
        value = self._values.pop(key, [])
        if not isinstance(value, list):
            self.refuse((key,), "a list", value)
        return value

    def _table(self, path: Path, value: object) -> Table:
        if not isinstance(value, dict):
            self.refuse(path, "a table", value)
        return Table(value, self._file, self._places, self._path + path)

    def _text(self, path: Path, value: object, pattern: re.Pattern[str]) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            like = "one line of text" if pattern is ANY_TEXT else f"text like {pattern.pattern}"
            self.refuse(path, like, value)
        return value

    def _number(self, path: Path, value: object, low: float, high: float) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:  # no for NaN
            self.refuse(path, f"a number from {low:g} to {high:g}", value)
        return float(value)


def read_table(text: str, file: str) -> Table:
    """Returns the table of a TOML text.

    Raises:
        InvalidInput: The text is no TOML.
    """
    try:
        return Table(tomllib.loads(text), file, places(text))
    except tomllib.TOMLDecodeError as error:
        found = _AT.fullmatch(str(error))
        line, column = (found[2], found[3]) if found else _last_place(text)
        message = f"{file}, line {line}, column {column}: {found[1] if found else error}"
        raise InvalidInput(message, reason="FINDING_INVALID") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets in brackets
        message = f"{file}, line 1, column 1: expected numbers and brackets of a sane size, got larger ones"
        raise InvalidInput(message, reason="FINDING_INVALID") from error


def _last_place(text: str) -> tuple[int, int]:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _dotted(path: Path) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
