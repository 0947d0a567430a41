"""The columns of a part file, as docs/export.md describes them; pyarrow is needed to import this module."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nearcase.errors import InvalidInput
from nearcase.transfers import StoredCase
from nearcase.types import Case, CaseFacts, LabelChange

if TYPE_CHECKING:
    from nearcase.types import Embedding

FACTS = tuple(field.name for field in dataclasses.fields(CaseFacts))
_CHANGE = pa.struct(
    [
        pa.field("name", pa.string()),
        pa.field("old", pa.string()),
        pa.field("new", pa.string()),
        pa.field("changed_at_s", pa.float64()),
        pa.field("changed_by", pa.string()),
    ]
)
_OTHERS = {
    "labels": pa.map_(pa.string(), pa.string()),
    "given": pa.list_(pa.string()),
    "flags": pa.list_(pa.string()),
    "history": pa.list_(_CHANGE),
    "source": pa.string(),
    "frame_number": pa.int32(),
    "frame_count": pa.int32(),
    "content_sha256": pa.string(),
    "added_at_s": pa.float64(),
    "thumbnail_jpeg": pa.binary(),
}


def schema_of(dimension: int) -> Any:
    """Returns the schema of a part: one row is one case; null is "not stated"."""
    facts = {name: pa.float64() if name == "age_years" else pa.string() for name in FACTS}
    columns = {"case_id": pa.string()} | facts | _OTHERS | {"vector": pa.list_(pa.float32(), dimension)}
    return pa.schema(
        [pa.field(name, kind, nullable=name not in ("case_id", "vector")) for name, kind in columns.items()]
    )


def to_table(cases: Sequence[StoredCase], dimension: int) -> Any:
    """Returns the cases as one table."""
    schema = schema_of(dimension)
    rows = [_row(stored.case) for stored in cases]
    values = np.concatenate([stored.vector for stored in cases]) if cases else np.empty(0, np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float32()), dimension)
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in list(schema)[:-1]]
    return pa.table([*columns, vectors], schema=schema)


def to_cases(table: Any, dimension: int) -> list[StoredCase]:
    """The inverse of to_table, for a table of any program that keeps to the document.

    Raises:
        InvalidInput: A column is absent, unknown or of another type, or a vector is null or of another length.
    """
    whole = _conformed(table, dimension)
    vectors = _vectors(whole.column("vector").combine_chunks(), dimension)
    rows = whole.drop_columns(["vector"]).to_pylist()
    return [StoredCase(_case(row), vector) for row, vector in zip(rows, vectors, strict=True)]


def check_columns(schema: Any, dimension: int) -> None:
    """Refuses a schema whose columns are not those of a part, in whatever order.

    Raises:
        InvalidInput: A column is absent, unknown or can not be read as its type.
    """
    _conformed(schema.empty_table(), dimension)


def _conformed(table: Any, dimension: int) -> Any:
    """Selects and casts, so that another program may write large strings or a plain list."""
    expected = schema_of(dimension)
    if sorted(table.column_names) != sorted(expected.names):
        different = sorted(set(table.column_names) ^ set(expected.names)) or ["one twice"]
        raise _refusal(f"expected the columns of docs/export.md, got a difference in {_short(different[0])}")
    try:
        return table.select(expected.names).cast(expected)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError):
        raise _refusal("expected columns of the types of docs/export.md, without null ids or vectors") from None


def _vectors(column: Any, dimension: int) -> Embedding:
    """(N, D)"""
    values = column.flatten()
    if column.null_count or values.null_count or len(values) != len(column) * dimension:
        raise _refusal(f"expected in vector {dimension} numbers in every row")
    matrix: Embedding = np.asarray(values.to_numpy(zero_copy_only=False), np.float32).reshape(-1, dimension)
    return matrix


def _row(case: Case) -> dict[str, object]:
    stated = {name: getattr(case.facts, name) for name in FACTS}
    return {name: None if value == "" else value for name, value in stated.items()} | {
        "case_id": case.case_id,
        "labels": sorted(case.labels.items()),
        "given": list(case.given),
        "flags": list(case.flags),
        "history": [dataclasses.asdict(change) for change in case.history],
        "source": case.source or None,
        "frame_number": case.frame_number,
        "frame_count": case.frame_count,
        "content_sha256": case.content_sha256 or None,
        "added_at_s": case.added_at_s,
        "thumbnail_jpeg": case.thumbnail_jpeg or None,
    }


def _case(row: dict[str, Any]) -> Case:
    facts = {name: row[name] for name in FACTS if row[name] is not None}
    pairs = row["labels"] or []
    if len(dict(pairs)) != len(pairs) or any(None in pair for pair in pairs):
        raise _refusal("expected in labels each name once, with a value")
    return Case(
        case_id=row["case_id"],
        facts=CaseFacts(**facts),
        labels=dict(pairs),
        source=row["source"] or "",
        given=_texts(row["given"]),
        frame_number=1 if row["frame_number"] is None else row["frame_number"],
        frame_count=1 if row["frame_count"] is None else row["frame_count"],
        content_sha256=row["content_sha256"] or "",
        added_at_s=row["added_at_s"] or 0.0,
        thumbnail_jpeg=row["thumbnail_jpeg"] or b"",
        flags=_texts(row["flags"]),
        history=tuple(_change(change) for change in row["history"] or ()),
    )


def _texts(values: list[str | None] | None) -> tuple[str, ...]:
    if values and None in values:
        raise _refusal("expected lists without nulls in them")
    return tuple(value for value in values or () if value is not None)


def _change(change: dict[str, Any] | None) -> LabelChange:
    if change is None or change["name"] is None or change["changed_at_s"] is None:
        raise _refusal("expected in history a name and a time of each change")
    texts = (change["name"], change["old"] or "", change["new"] or "")
    return LabelChange(*texts, change["changed_at_s"], change["changed_by"] or "")


def _short(name: str) -> str:
    return "".join(letter for letter in name[:40] if letter.isprintable())


def _refusal(message: str) -> InvalidInput:
    return InvalidInput(message, reason="EXPORT_INVALID")
