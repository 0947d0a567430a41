"""Reads one row group of a part file in a child process, where a file made to exhaust memory ends only the child.

A page of a Parquet file states how large it will become, and may lie; no check of the footer helps. So the footer is
checked for what it states, and the child's limits hold for what it does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nearcase.errors import InvalidInput
from nearcase.exchange.columns import check_columns, to_cases
from nearcase.exchange.messages import batches
from nearcase.exchange.rows import check_stored

MAX_GROUP_ROWS = 4096
MAX_GROUP_BYTES = 256 * 2**20
MAX_GROUPS = 10_000
ROWS_PER_STEP = 256


def read_group_job(data: bytes, options: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Runs in the child: describes a part, or returns one of its row groups as messages.

    Args:
        data: Nothing; the file is named, since it is larger than what is read of it at once.
        options: "path", "dimension", "now_s", and "group": a number, or None to describe.

    Raises:
        InvalidInput: The file is no such part, or a row is not one that a library could have given out.
    """
    pa.set_memory_pool(pa.system_memory_pool())  # others reserve more than the child may have
    path, dimension, group = Path(options["path"]), options["dimension"], options["group"]
    try:
        with pq.ParquetFile(path) as file:
            if group is None:
                return {"group_rows": _group_rows(file, dimension)}, []
            return {}, _messages(file, group, dimension, options["now_s"])
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, pa.ArrowMemoryError):
            raise MemoryError from None
        raise _refusal(f"expected a Parquet file, got one that can not be read ({type(error).__name__})") from None


def _group_rows(file: Any, dimension: int) -> list[int]:
    check_columns(file.schema_arrow, dimension)
    if file.metadata.num_row_groups > MAX_GROUPS:
        raise _refusal(f"expected at most {MAX_GROUPS} row groups, got {file.metadata.num_row_groups}")
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    for number, group in enumerate(groups):
        if not 0 <= group.num_rows <= MAX_GROUP_ROWS:
            raise _refusal(f"row group {number}: expected at most {MAX_GROUP_ROWS} rows, got {group.num_rows}")
        if not 0 <= group.total_byte_size <= MAX_GROUP_BYTES:
            raise _refusal(f"row group {number}: expected at most {MAX_GROUP_BYTES} bytes, got more")
    return [group.num_rows for group in groups]


def _messages(file: Any, group: int, dimension: int, now_s: float) -> list[bytes]:
    messages: list[bytes] = []
    row = sum(file.metadata.row_group(number).num_rows for number in range(group))
    for step in file.iter_batches(ROWS_PER_STEP, row_groups=[group], use_threads=False):
        cases = to_cases(pa.Table.from_batches([step]), dimension)
        for number, stored in enumerate(cases, row + 1):
            try:
                check_stored(stored, dimension, now_s)
            except InvalidInput as error:
                raise _refusal(f"row {number}: {error}") from None
        messages += [message.SerializeToString() for message in batches(cases)]
        row += len(cases)
    return messages


def _refusal(message: str) -> InvalidInput:
    return InvalidInput(message, reason="EXPORT_INVALID")
