"""Where each key of a TOML text stands, which tomllib does not tell.

The text must be TOML that tomllib has read: this only walks it (https://toml.io/en/v1.0.0), it checks nothing.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Keys and positions in lists, outermost first."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRING = re.compile(
    r'''"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}|\'\'\'(?:[^\']|\'{1,2}(?!\'))*\'{3,5}'''
    r"""|"(?:[^"\\]|\\.)*"|\'[^\']*\'""",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]+")  # numbers, truths, dates; a date may hold a blank


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a text; both count from 1, columns in characters."""

    line: int
    column: int


def places(text: str) -> dict[Path, Place]:
    """Returns the place of every key and of every item of a list; a table's place is that of its first header."""
    walk = _Walk(text)
    walk.document()
    return {path: _place(text, offset) for path, offset in walk.found.items()}


def _place(text: str, offset: int) -> Place:
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


class _Walk:
    """Recursive descent over values; headers set the table that the keys below them belong to."""

    def __init__(self, text: str) -> None:
        self.found: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._lengths: dict[Path, int] = {}  # of arrays of tables

    def document(self) -> None:
        """Walks from the start to the end."""
        table: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            table = self._header() if self._text[self._at] == "[" else self._pair(table)
            self._skip(_BLANK)

    def _header(self) -> Path:
        is_list = self._text.startswith("[[", self._at)
        self._at += 2 if is_list else 1
        keys = self._keys()
        path = self._reach((), keys[:-1])
        name, offset = keys[-1]
        path = (*path, name)
        self.found.setdefault(path, offset)
        if is_list:
            self._lengths[path] = self._lengths.get(path, 0) + 1
            path = (*path, self._lengths[path] - 1)
            self.found[path] = offset
        self._at += 2 if is_list else 1
        return path

    def _pair(self, table: Path) -> Path:
        keys = self._keys()
        path = self._reach(table, keys)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)
        return table

    def _reach(self, path: Path, keys: list[tuple[str, int]]) -> Path:
        """Goes down along the keys; in an array of tables, to its last table."""
        for name, offset in keys:
            path = (*path, name)
            self.found.setdefault(path, offset)
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        return path

    def _keys(self) -> list[tuple[str, int]]:
        keys = []
        while True:
            self._skip(_SPACE)
            offset = self._at
            word = self._take(_STRING if self._text[offset] in "\"'" else _BARE_KEY)
            keys.append((next(iter(tomllib.loads(f"{word} = 0"))), offset))
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first == "[":
            self._list(path)
        elif first == "{":
            self._inline(path)
        else:
            self._take(_STRING if first in "\"'" else _SCALAR)

    def _list(self, path: Path) -> None:
        position = 0
        self._at += 1
        while self._after_comma() != "]":
            self.found[(*path, position)] = self._at
            self._value((*path, position))
            position += 1
        self._at += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        while self._after_comma() != "}":
            self._pair(path)
        self._at += 1

    def _after_comma(self) -> str:
        self._skip(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BLANK)
        return self._text[self._at]

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._take(pattern)

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise AssertionError("the text is not the TOML that was read")
        self._at = found.end()
        return found[0]
