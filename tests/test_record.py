"""A record replays to the same bits, an edited one is found out, and what changed since is told."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest
from decisions import ASKED, CHOICES, CONTEXT, MASS, fit, group, hits, resealed
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcase.decide.array import Array
from nearcase.decide.calibrate import Calibration
from nearcase.decide.canonical import digest, dump, load
from nearcase.decide.changes import Change, compare
from nearcase.decide.decision import Asked, Decided, decide
from nearcase.decide.familiar import Ellipsoid, Familiarity
from nearcase.decide.finding import Finding, Floors, Scorer
from nearcase.decide.fitted import Fitted, Library, Residuals, read_fitted, write_fitted
from nearcase.decide.groups import Group
from nearcase.decide.operating import Choice
from nearcase.decide.point import Refusal
from nearcase.decide.probe import Layer, Probe
from nearcase.decide.prompt import PromptHead
from nearcase.decide.record import Record, read_record, redacted, replay, write_record
from nearcase.decide.record_file import blotted
from nearcase.errors import InvalidInput, Unsupported
from nearcase.types import Call, CaseFacts, Decision, Hit, Interval

PROBE = Probe(
    ("0", "1"),
    Array.of([0.1, 0.2]),
    Array.of([1.0, 2.0]),
    (Layer(Array.of([[0.5], [0.25]]), Array.of([-0.1])),),
)
PROMPTS = PromptHead(("0", "1"), Array.of(np.eye(2)), 2.0)
WHOLE = fit(
    auroc=Interval(0.8, 0.7, 0.9),
    refusals=(Refusal("high", "too few", 299, 100),),
    familiarity=Familiarity(
        0.01, 0.1, 0.0, Ellipsoid(Array.of([0.0, 0.0]), Array.of([[0.6, 0.8]]), Array.of([0.3]), 0.1, 9.0)
    ),
    groups=(
        group("sex", "F"),
        Group("age", "18-40", False, 3, "few", 18.0, 40.0),
        group("age", "40-90", 40.0, 90.0),
    ),
    probe=PROBE,
    prompts=PROMPTS,
    residuals=Residuals(3.0, 0.9, 100),
)
SCORERS = (
    Scorer(k=5),
    Scorer(k=5, is_weighted=False, class_weights=(("1", 3.0),)),
    Scorer("probe"),
    Scorer("prompt"),
    Scorer("blend", blend=(("neighbours", 0.3), ("probe", 0.2), ("prompt", 0.1))),
)
CALIBRATIONS = (None, WHOLE.calibration, Calibration("platt", 0.2, 0.05, slope=1.3, intercept=-0.7))


near = st.floats(-1, 1).map(lambda cosine: cosine if cosine < 0 else 0.5 + cosine / 2)


Question = tuple[Finding, Fitted, list[Hit], Asked]


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Every scorer at every kind of point, with what is called and what is not."""
    pairs = draw(st.lists(st.tuples(near, st.sampled_from(["0", "1", "2", None])), max_size=12))
    finding = dataclasses.replace(
        MASS,
        scorer=draw(st.sampled_from(SCORERS)),
        floors=Floors(similarity=draw(st.sampled_from([None, None, 0.7])), agreement=draw(st.sampled_from([0.0, 0.7]))),
    )
    fitted = dataclasses.replace(WHOLE, scorer=finding.scorer, calibration=draw(st.sampled_from(CALIBRATIONS)))
    sex, years = draw(st.sampled_from([("F", 61.5), ("F", 61.5), ("F", 40.0), ("", None)]))
    asked = Asked(
        CaseFacts(patient_id="Doe^Jane", sex=sex, age_years=years),
        np.array(draw(st.sampled_from([(1.0, 0.0), (0.6, -0.8)])), np.float32),
        draw(st.sampled_from((None, *CHOICES, *[Choice("both")] * 4))),
        draw(st.floats(0.05, 0.95)),
        is_one_of_many=True,
    )
    found = hits([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return finding, fitted, found, asked


def decisions() -> st.SearchStrategy[Decided]:
    return questions().map(lambda question: decide(*question, CONTEXT))


def bits(decision: Decision) -> bytes:
    """Every float with all of its digits."""
    return dump(redacted(decision))


@given(decisions())
def test_a_record_replays_to_the_same_bits(decided: Decided) -> None:
    record = read_record(write_record(decided.record))
    again = replay(record)
    assert record == decided.record
    assert bits(again) == bits(decided.decision)
    assert again.record_id == decided.decision.record_id == record.record_id
    assert redacted(again) == redacted(decided.decision)


@given(questions())
def test_the_calls_at_other_points_are_those_of_asking_there(question: Question) -> None:
    finding, fitted, found, asked = question
    calls = decide(*question, CONTEXT).decision.point_calls
    assert {said.name for said in calls} >= set(fitted.point_names)
    for said in calls:
        if said.name in fitted.point_names:
            there = dataclasses.replace(asked, choice=Choice(said.name))
            decided = decide(finding, fitted, found, there, CONTEXT).decision
            assert (decided.call, decided.abstain_reason) == (said.call, said.abstain_reason)


@pytest.mark.parametrize("similarity", [1, np.float32(0.9), np.float64(0.9)])
def test_numbers_of_other_types_replay_too(similarity: float) -> None:
    decided = decide(MASS, fit(), hits([similarity], ["1"]), ASKED, CONTEXT)
    assert bits(replay(read_record(write_record(decided.record)))) == bits(redacted_floats(decided.decision))


def redacted_floats(decision: Decision) -> Decision:
    (piece,) = decision.evidence
    hit = dataclasses.replace(piece.hit, similarity=float(piece.hit.similarity))
    return dataclasses.replace(decision, evidence=(dataclasses.replace(piece, hit=hit),))


def usual(seed: int = 0) -> Decided:
    rng = np.random.default_rng(seed)
    found = hits(rng.uniform(0.9, 1, 20).tolist(), [str(value) for value in rng.integers(0, 2, 20)])
    asked = dataclasses.replace(ASKED, prevalence=0.1, choice=Choice(target_sensitivity=0.9))
    return decide(MASS, fit(), found, asked, CONTEXT)


def test_a_hundred_decisions_replay_in_another_process() -> None:
    made = [usual(seed) for seed in range(100)]
    assert {each.decision.call for each in made} >= {Call.POSITIVE, Call.NEGATIVE}
    lines = b"".join(write_record(each.record) for each in made)
    program = (
        "import sys\n"
        "from nearcase.decide.canonical import digest\n"
        "from nearcase.decide.record import Record, read_record, redacted, replay\n"
        "for line in sys.stdin.buffer: print(digest(redacted(replay(read_record(line)))))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=lines, capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().split() == [digest(redacted(each.decision)) for each in made]


def test_a_flipped_bit_is_found_wherever_it_is() -> None:
    record = usual().record
    data = write_record(record)
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 300):
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(0, 8))
        assert readable(bytes(flipped)) in (None, record)  # what is around the record says nothing


def readable(data: bytes) -> Record | None:
    try:
        return read_record(data)
    except InvalidInput:
        return None


def test_an_edited_threshold_is_found_even_with_a_new_hash() -> None:
    record = usual(1).record
    selected = record.basis.selected
    assert selected is not None
    lower = dataclasses.replace(selected, point=dataclasses.replace(selected.point, threshold=0.001))
    forged = dataclasses.replace(record, basis=dataclasses.replace(record.basis, selected=lower))
    with pytest.raises(InvalidInput, match="another") as caught:
        replay(read_record(write_record(forged)))
    assert caught.value.reason == "REPLAY_DIFFERS"


@pytest.mark.parametrize(
    "scorer",
    [Scorer(temperature=-1e300), Scorer(class_weights=(("0", 0.0), ("1", 0.0)))],
    ids=["overflow", "no weight"],
)
def test_a_record_that_nothing_can_be_computed_from_is_refused(scorer: Scorer) -> None:
    record = usual(1).record
    finding = dataclasses.replace(record.basis.finding, scorer=scorer)
    forged = dataclasses.replace(record, basis=dataclasses.replace(record.basis, finding=finding))
    with pytest.raises(InvalidInput) as caught:
        replay(read_record(write_record(forged)))
    assert caught.value.reason in ("RECORD_INVALID", "REPLAY_DIFFERS")


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"format":"nearcase-fitted/1","sha256":"","body":{}}', b"[" * 100_000],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_record(data)
    assert caught.value.reason == "RECORD_INVALID"


def test_a_record_holds_no_patient_data_and_no_embedding() -> None:
    facts = CaseFacts(patient_id="Doe^Jane", study_uid="1.2.3.4", sex="F", age_years=33.25, study_date="20200229")
    vector = np.array([0.6, 0.8], np.float32)
    asked = dataclasses.replace(ASKED, facts=facts, vector=vector)
    prior = dataclasses.replace(hits([0.99], ["1"])[0].case, facts=facts, thumbnail_jpeg=b"picture")
    found = [dataclasses.replace(hits([0.99], ["1"])[0], case=prior)]
    decided = decide(MASS, WHOLE, found, asked, CONTEXT)
    text = write_record(decided.record).decode()
    for secret in ("Doe", "1.2.3.4", "33.25", "20200229", "picture", base64.b64encode(vector.tobytes()).decode()):
        assert secret not in text
    assert '"name":"18-40"' in text
    assert decided.decision.evidence[0].hit is found[0]


# What was erased


def named(record: Record) -> Record:
    """With case ids as a library gives them."""
    priors = tuple(
        dataclasses.replace(prior, case_id=str(uuid.UUID(int=number)))
        for number, prior in enumerate(record.basis.priors)
    )
    return dataclasses.replace(record, basis=dataclasses.replace(record.basis, priors=priors))


def test_an_erased_case_leaves_the_seal_and_every_other_proof() -> None:
    record = named(usual().record)
    data = write_record(record)
    gone = record.basis.priors[3]
    left = blotted(data, {gone.case_id}.__contains__)
    assert left is not None
    assert gone.case_id.encode() not in left
    assert record.salts[5].encode() not in left  # without it nobody can try whether a case was there
    assert record.basis.priors[2].case_id.encode() in left
    assert json.loads(left)["sha256"] == record.record_id
    assert blotted(left, {gone.case_id}.__contains__) is None
    with pytest.raises(InvalidInput, match="2 of its 12 parts") as caught:
        read_record(left)
    assert caught.value.reason == "EVIDENCE_ERASED"


def test_an_edited_record_is_told_from_an_erased_one() -> None:
    record = named(usual(1).record)
    left = blotted(write_record(record), {record.basis.priors[0].case_id}.__contains__)
    assert left is not None
    for old, new in (
        (b'"prevalence":0.1', b'"prevalence":0.2'),
        (b'"value":"1"', b'"value":"0"'),
        (b"null", b'{"case_id":"x"}'),
    ):
        assert left.replace(old, new, 1) != left
        with pytest.raises(InvalidInput) as caught:
            read_record(left.replace(old, new, 1))
        assert caught.value.reason == "RECORD_INVALID"
    fewer = json.loads(left)
    fewer["leaves"].pop()
    with pytest.raises(InvalidInput) as caught:
        read_record(dump(fewer))
    assert caught.value.reason == "RECORD_INVALID"


def test_a_record_about_an_erased_image_is_to_be_removed() -> None:
    record = usual().record
    with pytest.raises(InvalidInput, match="removed whole"):
        blotted(write_record(record), {ASKED.image_sha256}.__contains__)
    assert blotted(write_record(record), {"cd" * 32}.__contains__) is None


def test_a_broken_file_that_names_an_erased_case_is_refused() -> None:
    name = "6f1a3c52-3c1e-5b7e-9a55-6e6561726361"
    with pytest.raises(InvalidInput):
        blotted(f'{{"case_id":"{name}"}}'.encode(), {name}.__contains__)


# What changed


def test_nothing_changed_in_the_same_question() -> None:
    assert compare(usual().record, usual().record) == ()


def test_changes_name_causes_cases_and_results() -> None:
    was = usual().record
    basis = was.basis
    nearest = basis.priors[0]
    now = dataclasses.replace(
        basis,
        library=Library("snapshot-2", 201),
        priors=(
            dataclasses.replace(nearest, case_id="new"),
            dataclasses.replace(basis.priors[1], similarity=0.5),
            *basis.priors[2:],
        ),
    )
    found = compare(was, dataclasses.replace(was, basis=now))
    changes = {change.what: change for change in found}
    assert changes["library"] == Change("library", "snapshot-1", "snapshot-2")
    assert changes[f"case {nearest.case_id}"].now == ""
    assert changes["case new"].was == ""
    assert changes[f"case {basis.priors[1].case_id}"].now == f"0.5 {basis.priors[1].value}"
    assert (changes["call"].now, changes["reason"].now) == ("abstain", "LIBRARY_CHANGED")
    assert "encoder" not in changes


# Fits


def test_a_fit_survives_its_file() -> None:
    data = write_fitted(WHOLE)
    again = read_fitted(data)
    assert again == WHOLE
    assert write_fitted(again) == data
    assert again.sha256 == WHOLE.sha256 == json.loads(data)["sha256"]


@given(st.integers(0, 5), st.floats(0, 1e300), st.floats(0, 1, exclude_min=True, exclude_max=True), st.text(max_size=5))
@settings(max_examples=30)
def test_every_float_of_a_fit_survives(seed: int, bound: float, value: float, name: str) -> None:
    fitted = fit(seed=seed, residuals=Residuals(bound, value, 3), made_by=name)
    assert read_fitted(write_fitted(fitted)) == fitted


def test_a_fit_whose_body_was_edited_is_refused() -> None:
    whole = json.loads(write_fitted(WHOLE))
    whole["body"]["points"][0]["threshold"] = 0.01
    with pytest.raises(InvalidInput, match="edited") as caught:
        read_fitted(json.dumps(whole).encode())
    assert caught.value.reason == "FITTED_INVALID"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("encoder",), 1, "encoder to be str, got int"),
        (("points", 0, "threshold"), "0.5", r"points\[0\].threshold to be float, got str"),
        (("points", 0, "sensitivity", "value"), 1.5, r"points\[0\].sensitivity: expected a rate of value 0..1"),
        (("points", 0, "extra"), 1, r"points\[0\].extra to be no such key"),
        (("auroc",), {"value": 1.0, "low": 1.0, "high": 1.0}, "auroc.level to be there"),
        (("probe", "mean", "data"), "!!", "probe.mean.data to be base64"),
        (("splits",), {}, "splits to be a list"),
    ],
)
def test_a_fit_of_another_shape_is_refused(path: tuple[str | int, ...], value: object, message: str) -> None:
    body = json.loads(write_fitted(WHOLE))["body"]
    part = body
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(InvalidInput, match=message):
        read_fitted(resealed(body))


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(InvalidInput, match="finite"):
        load(Interval, json.loads('{"value":1e999,"low":0,"high":1,"level":0.95}'))
    with pytest.raises(InvalidInput, match="finite"):
        load(Interval, {"value": 10**400, "low": 0, "high": 1, "level": 0.95})
    with pytest.raises(InvalidInput, match="finite"):
        dump(Interval(float("nan"), 0.0, 1.0))


# A target that cannot be supported reaches the caller


def test_a_refused_target_leaves_no_record() -> None:
    asked = dataclasses.replace(ASKED, choice=Choice(target_sensitivity=0.999))
    with pytest.raises(Unsupported, match="2995 patients"):
        decide(MASS, fit(), hits([0.9], ["1"]), asked, CONTEXT)


def test_deciding_takes_little_time() -> None:
    """The aim is 10 ms of CPU beside the search; the best of several runs, as machines are busy."""
    finding, fitted = MASS.with_k(100), fit(MASS.with_k(100))
    found = hits(np.linspace(0.9, 1, 100).tolist(), ["0", "1"] * 50)
    taken = []
    for _ in range(10):
        start = time.process_time()
        decide(finding, fitted, found, ASKED, CONTEXT)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.01
