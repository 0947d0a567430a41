"""Exports are whole or refused: what is written is read again bit for bit, by pyarrow alone too."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import time
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from environments import PROJECT
from stored_cases import DIMENSION, IDENTITY, equal, stored_cases

from nearcase.errors import InvalidInput, Unready
from nearcase.exchange.columns import schema_of, to_cases, to_table
from nearcase.exchange.manifest import NAME, PARTIAL, Manifest, read_manifest
from nearcase.exchange.reading import ExportReader
from nearcase.exchange.row_groups import read_group_job
from nearcase.exchange.writing import ExportWriter, export_folder
from nearcase.intake.sandbox import Sandbox
from nearcase.transfers import LibraryIdentity, StoredCase

PAGE = PROJECT / "docs" / "export.md"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(read_group_job, workers=1, wall_s=60.0, cpu_s=60, result_bytes=512 << 20) as made:
        yield made


def opened(folder: Path, identity: LibraryIdentity = IDENTITY, where: str = "") -> Any:
    return export_folder(folder, identity, where, now="2026-11-23T09:00:00+00:00", version="0.1.0")


def write(folder: Path, cases: list[StoredCase], *, rows_per_part: int = 8) -> Manifest:
    with opened(folder) as writer:
        assert isinstance(writer, ExportWriter)
        assert sum(writer.write(cases, rows_per_part=rows_per_part)) == len(cases)
        return writer.finish(IDENTITY.snapshot)


def read(folder: Path, sandbox: Sandbox, **options: Any) -> list[StoredCase]:
    return [stored for rows in ExportReader(folder, sandbox).rows(**options) for stored in rows.cases]


def rewrite(folder: Path, name: str, table: Any, **options: Any) -> None:
    """Puts another table in the place of a part, with a hash and sizes that fit it."""
    pq.write_table(table, folder / name, **options)
    fit(folder, name, row_count=table.num_rows)


def fit(folder: Path, name: str, **changes: object) -> None:
    stated = json.loads((folder / NAME).read_text())
    data = (folder / name).read_bytes()
    found = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)} | changes
    stated["parts"] = [part | found if part["name"] == name else part for part in stated["parts"]]
    stated["case_count"] = sum(part["row_count"] for part in stated["parts"])
    (folder / NAME).write_text(json.dumps(stated))


def test_what_is_written_is_read_again_bit_for_bit(tmp_path: Path, sandbox: Sandbox) -> None:
    cases = stored_cases(21)
    manifest = write(tmp_path / "out", cases)
    assert [part.row_count for part in manifest.parts] == [8, 8, 5]
    back = read(tmp_path / "out", sandbox)
    assert len(back) == 21
    assert all(map(equal, cases, back))
    assert all(map(equal, cases[8:], read(tmp_path / "out", sandbox, from_part="part-00001.parquet")))
    assert not list((tmp_path / "out").glob("*.partial"))


def test_an_export_of_nothing_is_whole(tmp_path: Path, sandbox: Sandbox) -> None:
    assert write(tmp_path, []).case_count == 0
    assert read(tmp_path, sandbox) == []


def test_the_manifest_keeps_to_its_schema(tmp_path: Path) -> None:
    write(tmp_path, stored_cases(3))
    schema = json.loads((PROJECT / "docs" / "export.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((tmp_path / NAME).read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"format": "nearcase-export"}, schema)


def test_the_document_lists_the_columns_as_they_are() -> None:
    rows = re.findall(r"^\| `([a-z_0-9]+)` \| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    dimension = 7
    expected = [(field.name, str(field.type)) for field in schema_of(dimension)]
    kinds = {"list<item: struct<name: string, old: string, new: string, changed_at_s: double, changed_by: string>>"}
    assert [name for name, _ in rows] == [name for name, _ in expected]
    for (name, told), (_, kind) in zip(rows, expected, strict=True):
        same = told.replace("D", str(dimension)) if name == "vector" else told
        assert same.replace(" ", "") in {short(each).replace(" ", "") for each in (kind, *kinds)}, name


def short(kind: str) -> str:
    return kind.replace("item: ", "").replace("element: ", "").replace("entries", "")


def test_pyarrow_alone_reads_an_export_by_the_document(tmp_path: Path) -> None:
    cases = stored_cases(9)
    write(tmp_path, cases)
    stated = json.loads((tmp_path / "export.json").read_text())
    rows: list[dict[str, Any]] = []
    for part in stated["parts"]:
        assert hashlib.sha256((tmp_path / part["name"]).read_bytes()).hexdigest() == part["sha256"]
        rows += pq.read_table(tmp_path / part["name"]).to_pylist()
    assert [row["case_id"] for row in rows] == [stored.case.case_id for stored in cases]
    for row, stored in zip(rows, cases, strict=True):
        assert np.array(row["vector"], np.float32).tobytes() == stored.vector.tobytes()
        assert dict(row["labels"]) == stored.case.labels
        assert row["modality"] == (stored.case.facts.modality or None)
        assert [tuple(change.values()) for change in row["history"]] == [*map(astuple, stored.case.history)]


def test_a_file_of_another_program_is_read(tmp_path: Path, sandbox: Sandbox) -> None:
    """Large strings, plain lists, another order of columns, no compression."""
    cases = stored_cases(5)
    write(tmp_path, cases)
    (name,) = (path.name for path in tmp_path.glob("*.parquet"))
    table = to_table(cases, DIMENSION)
    kinds = {pa.string(): pa.large_string()}
    fields = [pa.field(each.name, kinds.get(each.type, each.type)) for each in table.schema]
    fields[-1] = pa.field("vector", pa.list_(pa.float32()))
    other = table.cast(pa.schema(fields)).select(list(reversed(table.column_names)))
    rewrite(tmp_path, name, other, compression="none", row_group_size=2)
    assert all(map(equal, cases, read(tmp_path, sandbox)))


# Going on


def test_an_interrupted_export_goes_on_after_the_last_whole_part(tmp_path: Path, sandbox: Sandbox) -> None:
    cases = stored_cases(20)
    with opened(tmp_path) as writer:
        steps = writer.write(failing(cases, 13), rows_per_part=8)
        with pytest.raises(RuntimeError):
            list(steps)
    (tmp_path / "part-00001.parquet").write_bytes(b"renamed, and killed before it was named")
    (tmp_path / "part-00002.parquet.partial").write_bytes(b"killed")
    assert read_manifest(tmp_path) is None
    with opened(tmp_path) as writer:
        assert writer.after_case_id == cases[7].case.case_id
        list(writer.write([each for each in cases if each.case.case_id > writer.after_case_id], rows_per_part=8))
        manifest = writer.finish("another")
    assert manifest.changed_meanwhile
    assert json.loads((tmp_path / NAME).read_text())["changed_meanwhile"] is True
    assert all(map(equal, cases, read(tmp_path, sandbox)))


def failing(cases: list[StoredCase], at: int) -> Iterator[StoredCase]:
    yield from cases[:at]
    raise RuntimeError


def test_only_the_same_export_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        list(writer.write(stored_cases(8)))
    for identity, where in ((replace(IDENTITY, encoder_identity="other"), ""), (IDENTITY, "sex = F")):
        with pytest.raises(InvalidInput, match="another export"), opened(tmp_path, identity, where):
            pass
    (tmp_path / "part-00000.parquet").write_bytes(b"short")
    with pytest.raises(InvalidInput, match="part-00000"), opened(tmp_path):
        pass


def test_a_folder_with_other_things_or_a_whole_export_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="empty folder"), opened(tmp_path / "other"):
        pass
    write(tmp_path / "whole", stored_cases(2))
    with pytest.raises(InvalidInput, match="another folder"), opened(tmp_path / "whole"):
        pass


def test_a_full_disk_leaves_whole_parts_and_the_export_goes_on(tmp_path: Path, sandbox: Sandbox) -> None:
    """A limit on the size of files refuses as a full disk does."""
    cases = stored_cases(600)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(tmp_path) as writer:
        list(writer.write(cases[:8]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            with pytest.raises(Unready, match="the part can not be written: File too large"):
                list(writer.write(cases[8:]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PARTIAL, "part-00000.parquet"]
    with opened(tmp_path) as writer:
        list(writer.write(cases[8:]))
        writer.finish("")
    assert all(map(equal, cases, read(tmp_path, sandbox)))


def test_two_processes_do_not_write_one_export(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(Unready, match="another process"), opened(tmp_path):
        pass


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    write(tmp_path / "out", stored_cases(2))
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
    assert (tmp_path / "out" / "part-00000.parquet").stat().st_mode & 0o077 == 0


# Files that nobody vouches for


def test_a_changed_byte_is_noticed_before_a_row_is_read(tmp_path: Path, sandbox: Sandbox) -> None:
    write(tmp_path, stored_cases(20))
    path = tmp_path / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    rows = ExportReader(tmp_path, sandbox).rows()
    assert next(rows).part == "part-00000.parquet"
    with pytest.raises(InvalidInput, match=r"part-00001.parquet: its sha256"):
        next(rows)


BAD_ROWS: dict[str, tuple[str, Any]] = {
    "no UUID": ("case_id", "x"),
    "control character": ("source", "a\nb"),
    "label name": ("labels", [("a=b", "1")]),
    "label twice": ("labels", [("a", "1"), ("a", "2")]),
    "no label value": ("labels", [("a", None)]),
    "flag": ("flags", ["deleted"]),
    "given": ("given", ["name"]),
    "frame": ("frame_number", 0),
    "hash": ("content_sha256", "ABC"),
    "date": ("study_date", "2015-01-01"),
    "age": ("age_years", float("nan")),
    "time": ("added_at_s", float("inf")),
    "tomorrow": ("added_at_s", time.time() + 2 * 86400.0),
    "picture": ("thumbnail_jpeg", b"GIF89a"),
    "NaN": ("vector", [float("nan")] * DIMENSION),
    "zero": ("vector", [0.0] * DIMENSION),
    "long": ("vector", [1.0] * DIMENSION),
    "history": ("history", [{"name": "m", "old": "", "new": "1", "changed_at_s": None, "changed_by": ""}]),
}


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_row_is_told_with_its_part_and_number(bad: str, tmp_path: Path, sandbox: Sandbox) -> None:
    write(tmp_path, stored_cases(12))
    table = pq.read_table(tmp_path / "part-00001.parquet")
    column, value = BAD_ROWS[bad]
    rows = table.to_pylist()
    rows[2][column] = value
    rewrite(tmp_path, "part-00001.parquet", pa.Table.from_pylist(rows, schema=table.schema))
    with pytest.raises(InvalidInput, match=r"part-00001\.parquet: ") as refused:
        read(tmp_path, sandbox)
    assert column in str(refused.value)
    assert bad in ("label twice", "no label value", "history") or "row 3" in str(refused.value)


def test_wrong_columns_and_counts_are_refused(tmp_path: Path, sandbox: Sandbox) -> None:
    write(tmp_path, stored_cases(4))
    name = "part-00000.parquet"
    table = pq.read_table(tmp_path / name)
    tables = {
        "sex": table.drop_columns(["sex"]),
        "extra": table.append_column("extra", pa.array([1] * 4)),
        "types": table.set_column(0, "case_id", pa.array([1] * 4)),
        "null": pa.Table.from_pylist([{**row, "case_id": None} for row in table.to_pylist()], schema=nullable(table)),
    }
    for word, other in tables.items():
        rewrite(tmp_path, name, other)
        with pytest.raises(InvalidInput, match="columns|case_id" if word in ("types", "null") else word):
            read(tmp_path, sandbox)
    rewrite(tmp_path, name, table)
    fit(tmp_path, name, row_count=3)
    with pytest.raises(InvalidInput, match="expected 3 rows"):
        read(tmp_path, sandbox)


def nullable(table: Any) -> Any:
    return pa.schema([pa.field(each.name, each.type) for each in table.schema])


def test_a_bomb_ends_its_child_and_nothing_else(tmp_path: Path, sandbox: Sandbox) -> None:
    """One text of 8 MiB that each of 4096 rows repeats: 32 GiB in memory, some kilobytes in the file."""
    write(tmp_path, stored_cases(2))
    name = "part-00000.parquet"
    row = pq.read_table(tmp_path / name).to_pylist()[0]
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), pa.array(["x" * (8 << 20)]))
    table = pa.Table.from_pylist([row] * 4096, schema=schema_of(DIMENSION))
    index = table.column_names.index("source")
    rewrite(tmp_path, name, table.set_column(index, "source", long), compression="zstd")
    assert (tmp_path / name).stat().st_size < 2 << 20
    with pytest.raises(InvalidInput, match=r"part-00000.parquet"):
        read(tmp_path, sandbox)
    assert memory_bytes() < 2 << 30


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_too_large_row_groups_are_refused_by_the_footer(tmp_path: Path, sandbox: Sandbox) -> None:
    write(tmp_path, stored_cases(2))
    row = pq.read_table(tmp_path / "part-00000.parquet").to_pylist()[0]
    table = pa.Table.from_pylist([row] * 5000, schema=schema_of(DIMENSION))
    rewrite(tmp_path, "part-00000.parquet", table)
    with pytest.raises(InvalidInput, match="row group 0: expected at most 4096 rows, got 5000"):
        read(tmp_path, sandbox)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"format_version": 2},
        {"dimension": "16"},
        {"dimension": 0},
        {"case_count": 99},
        {"parts": {}},
        {"parts": [{"name": "../secret.parquet"}]},
        {"encoder_identity": None},
    ],
)
def test_a_wrong_manifest_is_refused(change: dict[str, Any], tmp_path: Path, sandbox: Sandbox) -> None:
    write(tmp_path, stored_cases(2))
    stated = json.loads((tmp_path / NAME).read_text())
    for part in change.get("parts", []):
        change = {"parts": [stated["parts"][0] | part]}
    (tmp_path / NAME).write_text(json.dumps(stated | change))
    with pytest.raises(InvalidInput, match=r"export\.json"):
        read(tmp_path, sandbox)


def test_what_is_no_export_is_refused(tmp_path: Path, sandbox: Sandbox) -> None:
    with pytest.raises(InvalidInput, match=r"a folder with export\.json"):
        ExportReader(tmp_path, sandbox)
    write(tmp_path, stored_cases(2))
    with pytest.raises(InvalidInput, match="the name of a part"):
        read(tmp_path, sandbox, from_part="part-7")
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    fit(tmp_path, path.name)
    with pytest.raises(InvalidInput, match="expected a Parquet file"):
        read(tmp_path, sandbox)
    target = tmp_path / "elsewhere"
    path.rename(target)
    path.symlink_to(target)
    with pytest.raises(InvalidInput, match="expected a file"):
        read(tmp_path, sandbox)
    (tmp_path / NAME).rename(tmp_path / PARTIAL)
    with pytest.raises(InvalidInput, match="whole when its command has ended"):
        ExportReader(tmp_path, sandbox)


def test_a_table_and_cases_are_inverse() -> None:
    cases = stored_cases(7)
    assert all(map(equal, cases, to_cases(to_table(cases, DIMENSION), DIMENSION)))
    with pytest.raises(InvalidInput):
        to_cases(to_table(cases, DIMENSION), DIMENSION + 1)
