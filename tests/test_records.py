"""The folder of records: what is half written is removed, and what was erased is in no record, whenever it was kept."""

from __future__ import annotations

import dataclasses
import uuid
from pathlib import Path

import pytest
from decisions import ASKED, CONTEXT, MASS, fit, hits

from nearcase.decide.decision import decide
from nearcase.decide.record import Record, read_record
from nearcase.decide.record_file import FORMAT, OLDER, write_sealed
from nearcase.errors import InvalidInput, NotFound
from nearcase.serve.records import MAX_REMEMBERED, Records


def record_naming(*numbers: int) -> Record:
    record = decide(MASS, fit(), hits([0.9] * len(numbers), ["1"] * len(numbers)), ASKED, CONTEXT).record
    pairs = zip(record.basis.priors, numbers, strict=True)
    priors = tuple(dataclasses.replace(prior, case_id=name(number)) for prior, number in pairs)
    return dataclasses.replace(record, basis=dataclasses.replace(record.basis, priors=priors))


def name(number: int) -> str:
    return str(uuid.UUID(int=number))


def test_blotting_changes_only_the_records_that_name_it(tmp_path: Path) -> None:
    records, kept = Records(tmp_path), [record_naming(1, 2), record_naming(2, 3), record_naming(3, 4)]
    records.keep(map(write_sealed, kept))
    assert records.blot({name(2)}.__contains__) == 2
    assert records.blot({name(2)}.__contains__) == 0
    for record in kept[:2]:
        with pytest.raises(InvalidInput, match="erased"):
            read_record(records.read(record.record_id))
    assert read_record(records.read(kept[2].record_id)) == kept[2]
    assert not [path for path in tmp_path.rglob("*.json") if name(2).encode() in path.read_bytes()]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]


def test_a_decision_that_found_the_case_before_it_was_erased_is_blotted_as_it_is_kept(tmp_path: Path) -> None:
    records, late = Records(tmp_path), record_naming(1, 2)
    assert records.blot({name(2)}.__contains__) == 0
    for number in range(MAX_REMEMBERED - 1):
        records.blot({name(100 + number)}.__contains__)
    records.keep([write_sealed(late)])
    with pytest.raises(InvalidInput, match="erased"):
        read_record(records.read(late.record_id))


def test_what_was_half_written_is_removed_by_the_next_server(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.keep([write_sealed(record_naming(1))])
    half = tmp_path / "parts" / "tmp123"
    half.write_bytes(name(2).encode())
    Records(tmp_path)
    assert not half.exists()
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_an_edited_record_that_names_it_is_removed(tmp_path: Path) -> None:
    records, record = Records(tmp_path), record_naming(1, 2)
    records.keep([write_sealed(record)])
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(file.read_bytes().replace(b'"answer":"', b'"answer":"0'))
    assert records.blot({name(9)}.__contains__) == 0
    assert file.exists()
    assert records.blot({name(2)}.__contains__) == 1
    with pytest.raises(NotFound):
        records.read(record.record_id)


@pytest.mark.parametrize("form", OLDER)
def test_a_record_of_an_older_form_that_names_it_is_removed_whole(tmp_path: Path, form: str) -> None:
    records, record = Records(tmp_path), record_naming(1, 2)
    records.keep([write_sealed(record)])
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(file.read_bytes().replace(FORMAT.encode(), form.encode()))
    assert records.blot({name(9)}.__contains__) == 0
    assert file.exists()
    assert records.blot({name(2)}.__contains__) == 1
    assert not file.exists()
