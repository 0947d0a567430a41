"""proto <-> types: there and back is the same."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st
from test_cases import cases

from nearcase import convert
from nearcase.decide.vote import decide
from nearcase.errors import InvalidInput
from nearcase.types import (
    Bounds,
    Call,
    Case,
    Decision,
    EncoderSummary,
    Hit,
    Interval,
    Measurement,
    OperatingPoint,
    QueryImage,
    SearchResult,
    StageTimings,
    Strength,
    Vote,
)
from nearcase.v1 import decision_pb2, types_pb2

EVERY = frozenset(types_pb2.Case.DESCRIPTOR.fields_by_name)
ENCODER = EncoderSummary("lite0", "1", "ab", 1280, "stretch-1-224", False, "Not medical.", "CPU")
similarities = st.floats(-1, 1)


@given(st.lists(st.tuples(cases, similarities), max_size=4), st.booleans())
def test_a_result_survives_the_wire(pairs: list[tuple[Case, float]], timed: bool) -> None:
    result = SearchResult(
        hits=tuple(Hit(whole(case), similarity) for case, similarity in pairs),
        query_images=(QueryImage(pairs[0][0].facts, 2, 3, ("a", "b"), b"x"),) if pairs else (),
        encoder=ENCODER,
        candidate_count=7,
        timings=StageTimings(1.0, 0.0, 3.0, 4.0, 9.0) if timed else None,
    )
    assert convert.result_from_proto(convert.result_to_proto(result, EVERY)) == result


@given(st.lists(st.tuples(cases, similarities), max_size=4))
def test_a_decision_survives_the_wire(pairs: list[tuple[Case, float]]) -> None:
    hits = [Hit(whole(case), similarity) for case, similarity in pairs]
    for name in {name for hit in hits for name in hit.case.labels} | {"nothing"}:
        decision = decide(name, hits)
        assert convert.decision_from_proto(convert.decision_to_proto(decision, EVERY)) == decision


intervals = st.builds(Interval, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.9, 0.95]))
points = st.builds(
    OperatingPoint,
    name=st.text(),
    threshold=st.floats(0, 1),
    method=st.sampled_from(["pac", "empirical"]),
    guarantee=st.text(),
    sensitivity=intervals,
    specificity=intervals,
    positive_patients=st.integers(0, 9999),
    negative_patients=st.integers(0, 9999),
)
bounds = st.builds(Bounds, st.floats(0, 1), st.floats(0, 1))
numbers = st.floats(allow_nan=False, allow_infinity=False)
decisions = st.builds(
    Decision,
    finding=st.text(),
    call=st.sampled_from(list(Call)),
    votes=st.just((Vote("1", 1.0, 1),)),
    evidence=st.just(()),
    abstain_reason=st.text(),
    explanation=st.text(),
    score=st.none() | st.floats(0, 1),
    probability=st.none() | st.floats(0, 1),
    operating_point=st.none() | points,
    rule_out_point=st.none() | points,
    ppv=st.none() | intervals,
    npv=st.none() | intervals,
    strength=st.none() | st.builds(Strength, bounds, bounds),
    measurement=st.none()
    | st.builds(Measurement, numbers, numbers, numbers, numbers, st.floats(0, 1), st.text(), st.text()),
    record_id=st.text(),
)


@given(decisions)
def test_every_field_of_a_decision_survives_the_wire(decision: Decision) -> None:
    sent = convert.decision_to_proto(decision, EVERY).SerializeToString()
    assert convert.decision_from_proto(decision_pb2.Decision.FromString(sent)) == decision


def whole(case: Case) -> Case:
    """A case as a clock with microseconds would have made it: finer times do not travel."""
    return convert.case_from_proto(convert.case_to_proto(case, EVERY))


def test_a_mask_names_fields_of_a_case() -> None:
    assert convert.check_case_mask(FieldMask()) == EVERY - {"thumbnail_jpeg"}
    assert convert.check_case_mask(FieldMask(paths=["facts", "labels"])) == {"facts", "labels"}
    for wrong in ("colour", "facts.modality", ""):
        with pytest.raises(InvalidInput, match="case_mask"):
            convert.check_case_mask(FieldMask(paths=[wrong]))
