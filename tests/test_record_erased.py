"""What is left of an erased case or query in a record: nothing that tells of it, and nothing that can be tried."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decisions import ASKED, CONTEXT, LIBRARY, MASS, Floats, fit
from test_record import WHOLE, named, usual

from nearcase.decide.decision import decide
from nearcase.decide.fitted import Library
from nearcase.decide.record import Record, read_record, write_record
from nearcase.decide.record_file import blotted, write_sealed
from nearcase.errors import InvalidInput
from nearcase.retrieve.snapshot import Snapshot
from nearcase.serve.records import Records
from nearcase.types import Case, CaseFacts, Hit

CASES = tuple(
    Case(str(uuid.UUID(int=at)), CaseFacts(sex="F"), {"mass": str(at % 2)}, content_sha256=f"{at:064x}")
    for at in range(40)
)
VECTORS = np.random.default_rng(3).normal(size=(40, 8))
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
SNAPSHOT = Snapshot(CASES).name
KEPT = (("0", 20), ("1", 20))


def similarities(vector: Floats) -> Floats:
    """What a search with an image finds of every case; whoever has the image gets them from the server."""
    found: Floats = (VECTORS @ vector).astype(np.float32).astype(np.float64)
    return found


def image(number: int) -> tuple[Floats, str]:
    vector = np.random.default_rng(100 + number).normal(size=8)
    return vector / np.linalg.norm(vector), hashlib.sha256(str(number).encode()).hexdigest()


def record_about(number: int, images: tuple[str, ...] = ()) -> Record:
    """A decision about an image in the library of all cases, on which its finding was fitted too."""
    vector, sha256 = image(number)
    hits = [Hit(case, float(s)) for case, s in zip(CASES, similarities(vector), strict=True)]
    library = Library(SNAPSHOT, 40)
    fitted = fit(library=dataclasses.replace(LIBRARY, snapshot=SNAPSHOT, labelled_count=40, values=KEPT))
    asked = dataclasses.replace(ASKED, image_sha256=sha256, images=images)
    context = dataclasses.replace(CONTEXT, library=library, labelled_count=40, kept=KEPT, secret=bytes([number]) * 32)
    return decide(MASS, fitted, hits, asked, context).record


def left_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_bytes()) for file in sorted(folder.rglob("*.json"))]


def test_no_search_with_an_erased_image_finds_the_record_of_it(tmp_path: Path) -> None:
    """The similarities of a decision about another image are found by that image, so that the attack works."""
    records = Records(tmp_path)
    records.keep([write_sealed(record_about(1)), write_sealed(record_about(2))])
    matches = {number: set(similarities(image(number)[0]).tolist()) for number in (1, 2)}

    def matching(number: int) -> list[int]:
        leaves = [[leaf["similarity"] for leaf in each["leaves"][2:] if leaf] for each in left_of(tmp_path)]
        return sorted(sum(similarity in matches[number] for similarity in each) for each in leaves)

    assert matching(1) == matching(2) == [0, 10]
    assert records.blot({image(1)[1]}.__contains__) == 1
    assert matching(1) == [0]
    assert matching(2) == [10]
    assert records.blot({image(1)[1]}.__contains__) == 0


def test_one_of_several_images_that_were_decided_as_one_takes_the_record_with_it() -> None:
    images = ("cd" * 32, "ef" * 32)
    data = write_record(record_about(1, images))
    assert read_record(data).origin.images == images
    for erased in images:
        with pytest.raises(InvalidInput, match="removed whole"):
            blotted(data, {erased}.__contains__)
    assert blotted(data, {"01" * 32}.__contains__) is None


def test_neither_membership_nor_label_of_an_erased_case_can_be_tried() -> None:
    """With its file and facts and all other cases: neither state's name is left, nor a count to take today's from."""
    record = record_about(1)
    data, erased = write_record(record), record.basis.priors[3]
    rest = [case for case in CASES if case.case_id != erased.case_id]
    mine = next(case for case in CASES if case.case_id == erased.case_id)
    names = [Snapshot([*rest, dataclasses.replace(mine, labels={"mass": guess})]).name for guess in "01"]
    assert sum(name.encode() in data for name in names) == 1  # the attack tells the label as long as all is there
    left = blotted(data, {erased.case_id}.__contains__)
    assert left is not None
    assert not any(name.encode() in left for name in (SNAPSHOT, *names))
    assert not any(key in left for key in (b'"labelled_count"', b'"kept"', b'"values":[["0"', b'"snapshot"'))
    assert not any(each.encode() in left for each in (erased.case_id, repr(erased.similarity)))
    assert json.loads(left)["sha256"] == record.record_id


def test_the_places_of_what_is_left_do_not_tell_how_similar_it_was() -> None:
    """Nearest first, an empty place would lie between two similarities."""
    places = []
    for number in range(1, 60):
        record = record_about(number)
        left = blotted(write_record(record), {record.basis.priors[4].case_id}.__contains__)
        assert left is not None
        places.append(json.loads(left)["leaves"][2:].index(None))
        assert read_record(write_record(record)) == record
    assert set(places) == set(range(10))


def test_the_answer_that_hashes_erased_cases_goes_with_them() -> None:
    """Whoever has the rest of the record could try an id, a value and a similarity against it."""
    record = named(usual().record)
    data = write_record(record)
    assert record.answer.encode() in data
    left = blotted(data, {record.basis.priors[3].case_id}.__contains__)
    assert left is not None
    assert record.answer.encode() not in left
    assert record.salts[1].encode() not in left


def test_the_body_does_not_tell_whom_a_decision_was_about() -> None:
    """It stays in the clear whatever is erased later."""
    facts = CaseFacts(sex="F", age_years=33.25)
    asked = dataclasses.replace(ASKED, facts=facts, vector=np.array([0.6, 0.8], np.float32))
    another = dataclasses.replace(
        asked, facts=CaseFacts(sex="M", age_years=70.0), vector=np.array([1.0, 0.0], np.float32), image_sha256="cd" * 32
    )
    found = [Hit(case, 0.9) for case in CASES[:3]]
    files = [write_record(decide(MASS, WHOLE, found, each, CONTEXT).record) for each in (asked, another)]
    assert b'"distance":' in files[0]
    assert b'"name":"18-40"' in files[0]
    bodies = [json.loads(each)["body"] | {"leaves": []} for each in files]
    assert bodies[0] == bodies[1]
