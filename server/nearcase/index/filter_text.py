"""Filters as people write them, on the command line and in the API.

    modality = CT and age >= 40 and not sex in (F, O) and (body_part = CHEST or label.melanoma = 1)

Operators: = != < <= > >= in, not in. `and` binds tighter than `or`; `not` tightest; reserved words in any case. A value
with blanks or signs stands in 'single' or "double" quotes, where a backslash keeps the next character as it is. Fields
are those of `fields.py` but `tenant`, with `age`, `date` and `site` for short, and label.NAME. Values are compared as
they are stored, but for modality and sex, which DICOM writes in capitals. A field that is not stated satisfies != and
not in.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable

from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.filter_words import Kind, Word, quoted, refuse, words
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, Range, Scalar, check, is_date

ALIASES = {"age": "age_years", "date": "study_date", "site": "source"}

_SERVERS_OWN = frozenset({"tenant"})
"""Fields that are no words here: which tenant's cases may be found is not the caller's to say."""

DEEPEST = 32
"""Parentheses and nots within each other; less than half of MAX_DEPTH, because each can hold an or of ands."""

_CAPITALS = {"modality", "sex"}  # PS3.5 section 6.2: VR CS is upper case
_LABEL = "label."
_OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in", "not")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DATE = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})")


def parse(text: str) -> Filter:
    """Returns the filter that the text asks for.

    Raises:
        InvalidInput: The text is no filter; says the column and what was expected there.
    """
    return _Parser(words(text)).whole()


class _Parser:
    """Recursive descent: one method a rule, lowest precedence first."""

    def __init__(self, found: list[Word]) -> None:
        self._words = found
        self._at = 0
        self._depth = 0

    def whole(self) -> Filter:
        where = self._either()
        if self._next.kind is not Kind.END:
            refuse(self._next.column, "'and', 'or' or the end", self._next.described)
        return where

    def _either(self) -> Filter:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _both(self) -> Filter:
        parts = [self._single()]
        while self._take("and"):
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _single(self) -> Filter:
        column = self._next.column
        if self._take("not"):
            return Not(self._deeper(column, self._single))
        if self._take("("):
            where = self._deeper(column, self._either)
            self._expect(")")
            return where
        return self._condition()

    def _deeper(self, column: int, rule: Callable[[], Filter]) -> Filter:
        self._depth += 1
        if self._depth > DEEPEST:
            refuse(column, f"at most {DEEPEST} levels of parentheses and nots", "more")
        where = rule()
        self._depth -= 1
        return where

    def _condition(self) -> Filter:
        field, label = self._field()
        operator = self._operator(field)
        if operator == "in":
            return In(field, self._list(field, label))
        if operator == "not":
            self._expect("in")
            return Not(In(field, self._list(field, label)))
        value = self._value(field, label)
        if operator == "=":
            return Equals(field, value)
        if operator == "!=":
            return Not(Equals(field, value))
        return _bound(field, operator, float(value) if FIELDS[field] is FieldKind.NUMBER else int(value))

    def _field(self) -> tuple[str, str]:
        """Returns the declared field, and the label's name if it is a label."""
        word = self._advance()
        if word.kind is Kind.BARE:
            name = word.text.lower()
            if name.startswith(_LABEL) and len(word.text) > len(_LABEL):
                return "labels", word.text[len(_LABEL) :]
            if ALIASES.get(name, name) in FIELDS.keys() - _SERVERS_OWN:
                return ALIASES.get(name, name), ""
        refuse(word.column, f"a field{_nearest(word)}: {', '.join(NAMES)}", _what(word, "an unknown name"))

    def _operator(self, field: str) -> str:
        word = self._advance()
        ordered = FIELDS[field] is not FieldKind.KEYWORD
        allowed = _OPERATORS if ordered else tuple(sign for sign in _OPERATORS if sign[0] not in "<>")
        if word.kind is not Kind.SIGN or word.text not in allowed:
            names = ", ".join("not in" if sign == "not" else sign for sign in allowed)
            refuse(word.column, f"one of {names} after {field}", word.described)
        return word.text

    def _list(self, field: str, label: str) -> tuple[Scalar, ...]:
        self._expect("(")
        values = [self._value(field, label)]
        while self._take(","):
            values.append(self._value(field, label))
        self._expect(")")
        return tuple(values)

    def _value(self, field: str, label: str) -> Scalar:
        word = self._advance()
        if word.kind not in (Kind.BARE, Kind.QUOTED):
            refuse(word.column, "a value (in quotes if it is one of and, or, not, in)", word.described)
        if FIELDS[field] is FieldKind.NUMBER:
            return _number(word)
        if FIELDS[field] is FieldKind.INTEGER:
            return _date(word)
        text = word.text.upper() if field in _CAPITALS else word.text
        return f"{label}={text}" if label else text

    @property
    def _next(self) -> Word:
        return self._words[self._at]

    def _advance(self) -> Word:
        word = self._next
        self._at += word.kind is not Kind.END
        return word

    def _take(self, sign: str) -> bool:
        found = self._next.kind is Kind.SIGN and self._next.text == sign
        self._at += found
        return found

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            refuse(self._next.column, f"'{sign}'", self._next.described)


def _bound(field: str, operator: str, value: float) -> Range:
    match operator:
        case ">=":
            return Range(field, at_least=value)
        case ">":
            return Range(field, above=value)
        case "<=":
            return Range(field, at_most=value)
    return Range(field, below=value)


def _number(word: Word) -> float:
    if not _NUMBER.fullmatch(word.text) or not math.isfinite(float(word.text)):
        refuse(word.column, "a number", _what(word, "another word"))
    return float(word.text)


def _date(word: Word) -> int:
    parts = _DATE.fullmatch(word.text)
    number = int("".join(parts.groups())) if parts else 0
    if not is_date(number):
        refuse(word.column, "a day of the calendar as 2015-03-01 or 20150301", _what(word, "another word"))
    return number


def _what(word: Word, of_bare: str) -> str:
    return of_bare if word.kind is Kind.BARE else word.described


def _nearest(word: Word) -> str:
    """A guess at what was meant; the word itself is not repeated, because it may be a misplaced name."""
    near = difflib.get_close_matches(word.text.lower(), NAMES, n=1) if word.kind is Kind.BARE else []
    return f" (perhaps {near[0]})" if near else ""


NAMES = ("label.NAME", *ALIASES, *(name for name in FIELDS if name not in {"labels", *_SERVERS_OWN}))
"""The fields as messages list them."""


def to_text(where: Filter) -> str:
    """Returns the filter as text; `parse` reads it back as a filter that matches the same.

    Raises:
        InvalidInput: `check` refuses the filter.
    """
    check(where)
    return _printed(where)


def _printed(where: Filter) -> str:
    match where:
        case And(parts):
            return " and ".join(_wrapped(part) for part in parts)
        case Or(parts):
            return " or ".join(_wrapped(part) for part in parts)
        case Not(Equals(field, value)):
            return _compared(field, "!=", (value,))
        case Not(In(field, values)):
            return _compared(field, "not in", values)
        case Not(part):
            return f"not {_wrapped(part)}"
        case Equals(field, value):
            return _compared(field, "=", (value,))
        case In(field, values):
            return _compared(field, "in", values)
        case Range(field, at_least, above, at_most, below):
            bounds = ((">=", at_least), (">", above), ("<=", at_most), ("<", below))
            return " and ".join(_compared(field, sign, (bound,)) for sign, bound in bounds if bound is not None)


def _wrapped(part: Filter) -> str:
    """In parentheses wherever a reader could wonder."""
    text = _printed(part)
    return f"({text})" if isinstance(part, And | Or) or (isinstance(part, Range) and " and " in text) else text


def _compared(field: str, sign: str, values: tuple[Scalar, ...]) -> str:
    name, values = _label(values) if field == "labels" else (field, values)
    texts = [_value_text(field, value) for value in values]
    return f"{name} {sign} ({', '.join(texts)})" if sign.endswith("in") else f"{name} {sign} {texts[0]}"


def _label(values: tuple[Scalar, ...]) -> tuple[str, tuple[Scalar, ...]]:
    """Values of one label as label.NAME; anything else in the label field as it is stored."""
    pairs = [str(value).partition("=") for value in values]
    name = pairs[0][0]
    if not name or quoted(_LABEL + name) != _LABEL + name or any(pair[:2] != (name, "=") for pair in pairs):
        return "labels", values
    return _LABEL + name, tuple(value for _, _, value in pairs)


def _value_text(field: str, value: Scalar) -> str:
    if FIELDS[field] is FieldKind.INTEGER:
        return f"{int(value):08}"
    return repr(float(value)).removesuffix(".0") if FIELDS[field] is FieldKind.NUMBER else quoted(str(value))
