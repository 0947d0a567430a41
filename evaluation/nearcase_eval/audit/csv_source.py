"""CSV tables, read in one pass and in blocks, so that a million rows never exist as Python objects at once."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Protocol, cast

import numpy as np

from nearcase.errors import InvalidInput
from nearcase_eval.audit.source import MISSING_WORDS, SAMPLE_ROWS, Table, Text, check_known
from nearcase_eval.sample import Floats

BLOCK_ROWS = 20_000
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True, slots=True)
class CsvSource:
    """A CSV file, plain or gzipped."""

    path: Path
    columns: tuple[str, ...]
    encoding: str
    separator: str

    @classmethod
    def open(cls, path: Path, *, encoding: str | None = None) -> CsvSource:
        """Returns the source; the separator is the one that the header has most of."""
        found = encoding or _encoding_of(path)
        with _text(path, found) as stream:
            header = stream.readline()
        if not header.strip():
            raise InvalidInput(f"{path.name}: expected a header line with column names, the file is empty")
        separator = max(SEPARATORS, key=header.count)
        columns = tuple(name.strip() for name in next(csv.reader([header], delimiter=separator)))
        if twice := sorted({name for name in columns if columns.count(name) > 1}):
            raise InvalidInput(f"{path.name}: the column {twice[0]!r} is there {columns.count(twice[0])} times")
        return cls(path, columns, found, separator)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def how(self) -> str:
        """Encoding and separator."""
        return f"CSV, {self.encoding.removesuffix('-sig').upper()}, separated by {SEPARATORS[self.separator]}"

    def sample(self) -> Mapping[str, Sequence[str]]:
        """Returns the first cells of each column."""
        rows = list(itertools.islice(itertools.chain.from_iterable(self._blocks()), SAMPLE_ROWS))
        return {name: [row[place].strip() for row in rows] for place, name in enumerate(self.columns)}

    def read(self, numbers: Sequence[str], texts: Sequence[str]) -> Table:
        """Returns the columns."""
        check_known(self.columns, [*numbers, *texts], self.name)
        number_columns = {name: _Numbers(name, self.name) for name in numbers}
        text_columns = {name: _Texts() for name in texts}
        growing: dict[str, _Column] = {**number_columns, **text_columns}
        places = {name: self.columns.index(name) for name in growing}
        rows = 0
        for block in self._blocks():
            cells = list(zip(*block, strict=True))
            for name, column in growing.items():
                column.add(cells[places[name]])
            rows += len(block)
        return Table(
            rows,
            {name: column.done() for name, column in number_columns.items()},
            {name: column.done() for name, column in text_columns.items()},
        )

    def _blocks(self) -> Iterator[list[list[str]]]:
        with _text(self.path, self.encoding) as stream:
            reader = csv.reader(stream, delimiter=self.separator, strict=True)
            next(reader)
            while block := self._block(reader):
                yield block

    def _block(self, reader: Iterator[list[str]]) -> list[list[str]]:
        block = [row for row in itertools.islice(reader, BLOCK_ROWS) if row]
        if wrong := [row for row in block if len(row) != len(self.columns)]:
            line = getattr(reader, "line_num", 0)
            raise InvalidInput(
                f"{self.name}: expected {len(self.columns)} cells in each line, got {len(wrong[0])} at or before line "
                f"{line}"
            )
        return block


class _Column(Protocol):
    """A column that grows block by block."""

    def add(self, cells: Sequence[str]) -> None: ...


class _Numbers:
    """A growing column of float64."""

    def __init__(self, name: str, file: str) -> None:
        self._name, self._file, self._rows, self._parts = name, file, 0, [np.zeros(0)]

    def add(self, cells: Sequence[str]) -> None:
        try:
            self._parts.append(np.array(list(map(float, cells))))
        except ValueError:
            self._parts.append(np.array([self._one(cell, row) for row, cell in enumerate(cells)]))
        self._rows += len(cells)

    def _one(self, cell: str, row: int) -> float:
        if cell.strip().lower() in MISSING_WORDS:
            return float("nan")
        try:
            return float(cell)
        except ValueError:
            comma = " (a decimal comma? write 0.5, not 0,5)" if "," in cell else ""
            raise InvalidInput(
                f"{self._file}: expected numbers in the score column {self._name!r}, row {self._rows + row + 1} is "
                f"none{comma}; if this column holds labels, exchange --label and --score",
                field=self._name,
            ) from None

    def done(self) -> Floats:
        found: Floats = np.concatenate(self._parts)
        return found


class _Texts:
    """A growing column of codes."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._seen: dict[str, int] = {}  # raw cell to code: stripping once per distinct cell
        self._parts = [np.zeros(0, dtype=np.int32)]

    def add(self, cells: Sequence[str]) -> None:
        for cell in dict.fromkeys(cells):  # in order, so that codes do not depend on hashing
            if cell not in self._seen:
                self._seen[cell] = self._codes.setdefault(text_of(cell), len(self._codes))
        self._parts.append(np.fromiter(map(self._seen.__getitem__, cells), dtype=np.int32, count=len(cells)))

    def done(self) -> Text:
        return Text(np.concatenate(self._parts), tuple(self._codes))


def text_of(cell: str) -> str:
    """Returns the cell without blanks around it; empty when it says that nothing is known."""
    found = cell.strip()
    return "" if found.lower() in MISSING_WORDS else found


@contextmanager
def _text(path: Path, encoding: str) -> Iterator[IO[str]]:
    """Opens the file and says in one line what is wrong with it, whatever the reader stumbles over."""
    try:
        with _bytes(path) as data:
            yield io.TextIOWrapper(data, encoding=encoding, newline="")
    except LookupError:
        raise InvalidInput(f"expected an encoding such as utf-8 or windows-1252, got {encoding!r}") from None
    except UnicodeDecodeError:
        line = _first_bad_line(path, encoding)
        raise InvalidInput(
            f"{path.name} line {line}: expected {encoding.removesuffix('-sig')}, got bytes of another encoding; "
            f"save it "
            "as UTF-8, or name its encoding with --encoding (often windows-1252)"
        ) from None
    except csv.Error as error:
        raise InvalidInput(f"{path.name}: {error}") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise InvalidInput(f"{path.name}: expected gzip, {error}") from error


@contextmanager
def _bytes(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as raw:
        if path.suffix.lower() != ".gz":
            yield raw
            return
        with gzip.open(raw) as data:
            yield cast(BinaryIO, data)


def _encoding_of(path: Path) -> str:
    with _bytes(path) as data:
        return "utf-16" if data.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _first_bad_line(path: Path, encoding: str) -> int:
    with _bytes(path) as data:
        for number, line in enumerate(data, 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                return number
    return 1
