"""Parquet tables through pyarrow, which is imported only here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearcase.errors import InvalidInput, Unready
from nearcase_eval.audit.csv_source import text_of
from nearcase_eval.audit.source import SAMPLE_ROWS, Table, Text, check_known
from nearcase_eval.sample import Floats


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """A Parquet file."""

    path: Path
    columns: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> ParquetSource:
        """Returns the source; raises Unready without pyarrow, InvalidInput when the file is no Parquet."""
        return cls(path, tuple(_file(path).schema_arrow.names))

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def how(self) -> str:
        """The format."""
        return "Parquet"

    def sample(self) -> Mapping[str, Sequence[str]]:
        """Returns the first cells of each column."""
        head = next(_file(self.path).iter_batches(SAMPLE_ROWS), None)
        if head is None:
            return {name: [] for name in self.columns}
        return {name: [_cell(value) for value in column] for name, column in head.to_pydict().items()}

    def read(self, numbers: Sequence[str], texts: Sequence[str]) -> Table:
        """Returns the columns."""
        check_known(self.columns, [*numbers, *texts], self.name)
        table = _file(self.path).read(columns=[*dict.fromkeys((*numbers, *texts))])
        return Table(
            table.num_rows,
            {name: self._numbers(name, table.column(name)) for name in numbers},
            {name: _text(table.column(name)) for name in texts},
        )

    def _numbers(self, name: str, column: Any) -> Floats:
        import pyarrow

        try:
            found = column.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
            raise InvalidInput(
                f"{self.name}: expected numbers in the score column {name!r}, got {column.type}; if this column holds "
                "labels, exchange --label and --score",
                field=name,
            ) from None
        return np.asarray(found, dtype=np.float64)


def _file(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise Unready(
            "reading Parquet needs pyarrow: pip install 'nearcase[parquet]', or save the table as CSV"
        ) from None
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InvalidInput(f"{path.name} is no Parquet file that can be read: {str(error).splitlines()[0]}") from error


def _text(column: Any) -> Text:
    encoded = column.combine_chunks().dictionary_encode()
    if hasattr(encoded, "combine_chunks"):
        encoded = encoded.combine_chunks()
    raw = encoded.indices.to_numpy(zero_copy_only=False)
    values: dict[str, int] = {}
    moved = [values.setdefault(text_of(_cell(value)), len(values)) for value in encoded.dictionary.to_pylist()]
    if encoded.null_count:
        moved.append(values.setdefault("", len(values)))
        raw = np.where(np.isnan(raw), len(moved) - 1, raw)
    codes = np.array(moved, dtype=np.int32)[raw.astype(np.int64)] if moved else np.zeros(0, dtype=np.int32)
    return Text(codes, tuple(values))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
