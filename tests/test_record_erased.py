"""What is left of an erased case or query in a record: nothing that tells of it, and nothing that can be tried."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from decisions import ASKED, CONTEXT, MASS, hits
from test_record import WHOLE, named, usual

from nearcase.decide.decision import Asked, decide
from nearcase.decide.record import read_record, write_record
from nearcase.decide.record_file import blotted
from nearcase.types import CaseFacts


def test_the_answer_that_hashes_erased_cases_goes_with_them() -> None:
    """Whoever has the rest of the record could try an id, a value and a similarity against it."""
    record = named(usual().record)
    data = write_record(record)
    assert record.answer.encode() in data
    for names in ({record.basis.priors[3].case_id}, {record.origin.image_sha256}):
        left = blotted(data, names.__contains__)
        assert left is not None
        assert record.answer.encode() not in left
        assert record.salts[1].encode() not in left


def test_one_of_several_images_that_were_decided_as_one_takes_the_query_with_it() -> None:
    images = ("cd" * 32, "ef" * 32)
    asked = dataclasses.replace(ASKED, vector=np.array([0.6, 0.8], np.float32), images=images, image_count=2)
    data = write_record(decide(MASS, WHOLE, hits([0.99, 0.98], ["1", "0"]), asked, CONTEXT).record)
    assert read_record(data).origin.images == images
    for erased in images:
        left = blotted(data, {erased}.__contains__)
        assert left is not None
        assert not any(each.encode() in left for each in (*images, ASKED.image_sha256))
    assert blotted(data, {"01" * 32}.__contains__) is None


def test_nothing_is_left_of_an_erased_query() -> None:
    facts = CaseFacts(sex="F", age_years=33.25)
    asked = dataclasses.replace(ASKED, facts=facts, vector=np.array([0.6, 0.8], np.float32))
    found = hits([0.99, 0.98], ["1", "0"])

    def body_of(asked: Asked) -> dict[str, Any]:
        record = decide(MASS, WHOLE, found, asked, CONTEXT).record
        left = blotted(write_record(record), {asked.image_sha256}.__contains__)
        assert left is not None
        body: dict[str, Any] = json.loads(left)["body"]
        return body | {"leaves": [], "leaf_count": len(body["leaves"])}

    whole = write_record(decide(MASS, WHOLE, found, asked, CONTEXT).record)
    assert b'"distance":' in whole
    assert b'"name":"18-40"' in whole
    another = dataclasses.replace(
        asked, facts=CaseFacts(sex="M", age_years=70.0), vector=np.array([1.0, 0.0], np.float32), image_sha256="cd" * 32
    )
    assert body_of(asked) == body_of(another)  # the body does not tell whom it was about
