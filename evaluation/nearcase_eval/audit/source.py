"""Tables as the audit reads them: only the columns that are asked for, numbers as float64, text as codes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput, NotFound
from nearcase_eval.sample import Floats

Codes = NDArray[np.int32]

MISSING_WORDS = frozenset({"", "nan", "na", "n/a", "null", "none", "."})
"""What exports write for nothing, in lower case."""

SAMPLE_ROWS = 200
"""Rows that are looked at to guess which column is what."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text column: values[codes[i]] is the cell of row i."""

    codes: Codes  # (N,)
    values: tuple[str, ...]  # each once, stripped, in order of first appearance; missing words are ""

    def cells(self) -> NDArray[np.object_]:
        """Returns the cells, (N,) of str."""
        return np.array(self.values, dtype=object)[self.codes] if self.values else np.zeros(0, dtype=object)

    def rows(self, index: NDArray[np.int64]) -> Text:
        """Returns the chosen rows; -1 gives a missing cell."""
        values = self.values if "" in self.values else (*self.values, "")
        codes = np.where(index < 0, values.index(""), self.codes[index] if self.codes.size else 0)
        return Text(codes.astype(np.int32), values)

    @property
    def missing(self) -> int:
        """Rows without a value."""
        return int(np.count_nonzero(self.codes == self.values.index(""))) if "" in self.values else 0


@dataclass(frozen=True, slots=True)
class Table:
    """The columns that were read, all of the same length."""

    rows: int
    numbers: Mapping[str, Floats]  # missing is NaN
    texts: Mapping[str, Text]


class Source(Protocol):
    """A file with named columns."""

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names, in the file's order."""
        ...

    @property
    def how(self) -> str:
        """How it is read, in words for people: encoding and separator."""
        ...

    def sample(self) -> Mapping[str, Sequence[str]]:
        """Returns the first cells of each column as text."""
        ...

    def read(self, numbers: Sequence[str], texts: Sequence[str]) -> Table:
        """Returns the columns; raises InvalidInput where a number is none or a line is broken."""
        ...


def open_source(path: Path, *, encoding: str | None = None) -> Source:
    """Returns the table in a .csv, .tsv, .csv.gz or .parquet file.

    Args:
        path: The file.
        encoding: Of a CSV; without it UTF-8, or UTF-16 when the file starts with its mark.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It can not be read as what its name says.
        Unready: Parquet, and pyarrow is not installed.
    """
    if not path.is_file():
        raise NotFound(f"expected a table at {path.name}, found no file")
    if path.suffix.lower() in (".parquet", ".pq"):
        from nearcase_eval.audit.parquet_source import ParquetSource

        return ParquetSource.open(path)
    from nearcase_eval.audit.csv_source import CsvSource

    return CsvSource.open(path, encoding=encoding)


def sha256_of(path: Path) -> str:
    """Returns the hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_known(columns: Sequence[str], wanted: Sequence[str], name: str) -> None:
    """Raises InvalidInput when a wanted column is not there."""
    if missing := [column for column in wanted if column not in columns]:
        raise InvalidInput(f"{name}: there is no column {missing[0]!r}; it has {', '.join(columns)}")
