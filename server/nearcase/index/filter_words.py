"""Filter text cut into words, each with the column where it starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from nearcase.errors import InvalidInput
from nearcase.index.filters import is_unicode

LONGEST = 4096
"""Characters in a filter; a list of some hundred values fits."""

RESERVED = frozenset({"and", "or", "not", "in"})


class Kind(Enum):
    """What a word is."""

    BARE = "a word"
    QUOTED = "quoted text"
    SIGN = "a sign"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Word:
    """One word; the text of a quoted one is without quotes and escapes, that of a reserved one in lower case."""

    kind: Kind
    text: str
    column: int  # counts from 1

    @property
    def described(self) -> str:
        """What it is, for messages, without showing a value that may be a patient's."""
        return f"'{self.text}'" if self.kind is Kind.SIGN else self.kind.value


_WORD = re.compile(
    r"""\s*(?:
        (?P<quoted> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' )
      | (?P<sign> !=|<=|>=|[=<>(),] )
      | (?P<bare> [^\s"'\\=<>(),!]+ )
      | (?P<end> \Z )
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def words(text: str) -> list[Word]:
    """Returns the words of a filter, and the end as the last one.

    Raises:
        InvalidInput: The text is too long or not Unicode, or a character fits nowhere.
    """
    if len(text) > LONGEST:
        raise InvalidInput(f"Expected a filter of at most {LONGEST} characters, got {len(text)}.", field="filter")
    if not is_unicode(text):
        raise InvalidInput("Expected a filter in Unicode, got other bytes.", field="filter")
    found: list[Word] = []
    position = 0
    while not found or found[-1].kind is not Kind.END:
        match = _WORD.match(text, position)
        if match is None:
            blanks = len(text[position:]) - len(text[position:].lstrip())
            refuse(position + blanks + 1, "a word, a sign or text in closed quotes", "another character")
        found.append(_word(match))
        position = match.end()
    return found


def _word(match: re.Match[str]) -> Word:
    group = str(match.lastgroup)
    text, column = match[group], match.start(group) + 1
    if group == "quoted":
        return Word(Kind.QUOTED, _ESCAPE.sub(r"\1", text[1:-1]), column)
    if group == "bare" and text.lower() in RESERVED:
        return Word(Kind.SIGN, text.lower(), column)
    return Word({"sign": Kind.SIGN, "bare": Kind.BARE, "end": Kind.END}[group], text, column)


def refuse(column: int, expected: str, got: str) -> NoReturn:
    """Raises InvalidInput for this column."""
    raise InvalidInput(f"Filter, column {column}: expected {expected}, got {got}.", field="filter")


_PLAIN = re.compile(r"[^\s\"'\\=<>(),!]+")


def quoted(text: str) -> str:
    """Returns the text as `words` reads it back: bare where it can be, in double quotes otherwise."""
    if _PLAIN.fullmatch(text) and text.lower() not in RESERVED:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
