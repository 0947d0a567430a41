"""A TOML table read key by key: what is missing, unknown or of another type is refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from nearcase.errors import Unready

_ANY_TEXT = re.compile(r"\S(.*\S)?")


class Table:
    """One table of a card; every method takes a key away, and `end` refuses what is left.

    Raises:
        Unready: From every method, with reason CARD_INVALID and the key's full name as its field.
    """

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self._values = dict(values)
        self._where = where

    def has(self, key: str) -> bool:
        """True while the key is there and was not taken."""
        return key in self._values

    def text(self, key: str, pattern: re.Pattern[str] = _ANY_TEXT) -> str:
        """Takes one line of text that matches the whole pattern."""
        value = self._take(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.refuse(key, f"text like {pattern.pattern}", value)
        return value

    def choice(self, key: str, allowed: Sequence[str]) -> str:
        """Takes one of the allowed words."""
        value = self._take(key)
        if not isinstance(value, str) or value not in allowed:
            raise self.refuse(key, " or ".join(allowed), value)
        return value

    def truth(self, key: str) -> bool:
        """Takes true or false."""
        value = self._take(key)
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false", value)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """Takes a whole number from low to high."""
        value = self._take(key)
        if not _is_integer(value) or not low <= value <= high:
            raise self.refuse(key, f"a whole number from {low} to {high}", value)
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """Takes a number from low to high."""
        return self._number(key, self._take(key), low, high)

    def rgb(self, key: str, low: float, high: float) -> tuple[float, float, float]:
        """Takes three numbers from low to high: red, green, blue."""
        values = self._list(key)
        if len(values) != 3:
            raise self.refuse(key, "3 numbers", values)
        red, green, blue = (self._number(key, value, low, high) for value in values)
        return red, green, blue

    def integers(self, key: str) -> tuple[int, ...]:
        """Takes a list of whole numbers."""
        values = self._list(key)
        whole = tuple(value for value in values if _is_integer(value))
        if len(whole) != len(values):
            raise self.refuse(key, "whole numbers", values)
        return whole

    def texts(self, key: str) -> tuple[str, ...]:
        """Takes a list of texts."""
        values = self._list(key)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) != len(values):
            raise self.refuse(key, "texts", values)
        return texts

    def table(self, key: str) -> Table:
        """Takes a table."""
        return self._table(key, self._take(key))

    def optional_tables(self, key: str) -> tuple[Table, ...]:
        """Takes a list of tables; none where the key is absent."""
        values = self._list(key) if self.has(key) else []
        return tuple(self._table(key, value) for value in values)

    def end(self) -> None:
        """Refuses keys that nobody took."""
        if self._values:
            raise self.refuse(min(self._values), "no such key", "it")

    def refuse(self, key: str, expected: str, got: object) -> Unready:
        """Returns the error that names the key, what was expected and what came."""
        name = f"{self._where}: {key}"
        shown = got if isinstance(got, str) else repr(got)
        return Unready(f"Expected {name} to be {expected}, got {shown[:80]}", reason="CARD_INVALID", field=key)

    def _take(self, key: str) -> object:
        if key not in self._values:
            raise self.refuse(key, "there", "no such key")
        return self._values.pop(key)

    def _list(self, key: str) -> list[object]:
        value = self._take(key)
        if not isinstance(value, list):
            raise self.refuse(key, "a list", value)
        return value

    def _table(self, key: str, value: object) -> Table:
        if not isinstance(value, dict):
            raise self.refuse(key, "a table", value)
        return Table(value, f"{self._where}: {key}")

    def _number(self, key: str, value: object, low: float, high: float) -> float:
        if not _is_number(value) or not low <= value <= high:  # false for NaN
            raise self.refuse(key, f"a number from {low:g} to {high:g}", value)
        return float(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float) or _is_integer(value)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
