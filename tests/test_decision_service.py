"""Decisions over gRPC, on a real library with real fits: calls, points, every reason to abstain, and replay."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from decisions import group
from made_library import POINT, declare, fill, finding_text, fitted_on, made_cases, reference_of
from serving import serving

from nearcase.client import Client
from nearcase.decide.familiar import Familiarity
from nearcase.decide.findings import read_finding
from nearcase.decide.fitted import Fitted, Library
from nearcase.decide.groups import Group
from nearcase.decide.point import Refusal
from nearcase.decide.record import read_record, redacted, replay
from nearcase.errors import InvalidInput, NotFound, Unready, Unsupported
from nearcase.types import Call, Decision
from nearcase.v1 import decision_pb2, decision_pb2_grpc
from nearcase_eval.fit_reference import Reference
from nearcase_eval.fit_scores import positive_share, shares_of

pytestmark = pytest.mark.system
CASES = made_cases()
WOMAN = next(case for case, _ in CASES if case.facts.sex == "F").case_id
ON_MR = next(case for case, _ in CASES if case.facts.modality == "MR").case_id
MASS = finding_text("mass", POINT)
FAR = Refusal("sensitivity-99_9999999-pac", "it needs more patients than there are", 2_995_732_357, 40)
NUMBER = (
    'name = "bone-age"\nversion = "1"\nlabel = "bone_age"\nanswer = "number"\nunit = "months"\n'
    'fitted = "bone-age.json"\n[scorer]\nk = 25\n'
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deciding")
    fill(folder, CASES)
    return folder


@pytest.fixture(scope="module")
def reference(data: Path) -> Reference:
    return reference_of(data, MASS)


@pytest.fixture(scope="module")
def fitted(reference: Reference) -> Fitted:
    return fitted_on(reference, MASS)


@pytest.fixture(scope="module")
def findings(data: Path, reference: Reference, fitted: Fitted) -> Path:
    """One finding for each way to abstain, beside the one that calls."""
    folder = data / "findings"
    declare(folder, MASS, fitted)
    declare(folder, finding_text("probed", POINT, scorer='kind = "probe"\nk = 25'), probed(reference))
    variants: dict[str, tuple[str, dict[str, object]]] = {
        "ct": ('[scope]\nmodality = ["CT"]\n', {"refusals": (FAR,)}),
        "ct-filter": ('[scope]\nfilter = "modality = CT"\n', {}),
        "nowhere": ('[scope]\nfilter = "source = nowhere"\n', {}),
        "demanding": ("[abstain]\nminimum_evidence = 100000\n", {}),
        "narrow": ("[abstain]\nleast_similarity = 0.9999\n", {}),
        "unanimous": ("[abstain]\nleast_agreement = 1.0\n", {}),
        "other-encoder": ("", {"encoder": "another:0:x:fp32"}),
        "other-library": ("", {"library": Library("1-0", 1, (("1", 1),))}),
        "unlike": ("", {"familiarity": Familiarity(0.01, nearest=-1.0, mean=0.9999)}),
        "men-only": ("", {"groups": (Group("sex", "F", False, 3, "too few"), group("sex", "M"))}),
    }
    for name, (more, changes) in variants.items():
        text = finding_text(name, more).replace('version = "1"\n', f'version = "1"\n{POINT}')
        declare(folder, text, replace(fitted, **changes))  # type: ignore[arg-type]
    declare(folder, finding_text("pointless"), fitted)
    number = read_finding(NUMBER, "bone-age.toml")
    declare(folder, NUMBER, fitted_on(reference_of(data, NUMBER), NUMBER))
    assert number.is_number
    return folder


def probed(reference: Reference) -> Fitted:
    return fitted_on(reference, finding_text("probed", POINT, scorer='kind = "probe"\nk = 25'))


@pytest.fixture(scope="module")
def address(data: Path, findings: Path) -> Iterator[str]:
    with serving(data, "--findings", str(findings)) as server:
        yield server.address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    with Client(address) as found:
        yield found


def one(client: Client, finding: str, case_id: str = WOMAN, **asked: object) -> Decision:
    return client.decide(case_id=case_id, finding=finding, **asked).decisions[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "finding", "asked"),
    [
        ("OUT_OF_SCOPE", "ct", {"case_id": ON_MR}),
        ("OUT_OF_SCOPE", "ct-filter", {"case_id": ON_MR}),
        ("NO_EVIDENCE", "nowhere", {}),
        ("ENCODER_CHANGED", "other-encoder", {}),
        ("FINDING_CHANGED", "mass", {"k": 5}),
        ("LIBRARY_CHANGED", "other-library", {}),
        ("SCOPE_NARROWED", "mass", {"where": "sex = F"}),
        ("TOO_LITTLE_EVIDENCE", "demanding", {}),
        ("NOTHING_SIMILAR", "narrow", {}),
        ("OUT_OF_DISTRIBUTION", "unlike", {}),
        ("GROUP_NOT_VALIDATED", "men-only", {}),
        ("NEIGHBOURS_DISAGREE", "unanimous", {}),
        ("MEASUREMENT_ONLY", "bone-age", {}),
        ("NO_OPERATING_POINT", "pointless", {}),
    ],
)
def test_each_reason_to_abstain(client: Client, reason: str, finding: str, asked: dict[str, object]) -> None:
    decision = one(client, finding, **{"case_id": WOMAN, **asked})  # type: ignore[arg-type]
    assert (decision.call, decision.abstain_reason) == (Call.ABSTAIN, reason)
    assert decision.explanation.endswith(".")
    assert decision.operating_point is None
    assert decision.probability is None


def test_a_target_that_one_of_many_can_not_give_is_its_abstention(client: Client) -> None:
    every = client.decide(case_id=WOMAN, sensitivity=0.9999).decisions
    told = {decision.finding: decision.abstain_reason for decision in every}
    assert told["mass"] == "POINT_NOT_SUPPORTED"
    assert told["bone-age"] == "MEASUREMENT_ONLY"
    assert "bone_age" not in told  # the label that a declared finding tells
    with pytest.raises(Unsupported, match="patients") as refused:
        one(client, "mass", sensitivity=0.9999)
    assert refused.value.reason == "TARGET_UNSUPPORTED"


def test_all_findings_leave_out_those_for_other_images(client: Client) -> None:
    asked = {decision.finding for decision in client.decide(case_id=ON_MR).decisions}
    assert "mass" in asked
    assert "ct" not in asked


def test_a_point_changes_the_call_and_never_the_score(client: Client, fitted: Fitted) -> None:
    points = client.operating_points("mass")
    names = [point.name for point in points]
    assert names == list(fitted.point_names[: len(names)])
    assert {point.name: point for point in points} == {point.name: point.shown for point in fitted.points}
    assert all(point.called_sensitivity for point in points)
    flagged = []
    for name in names:
        decisions = [one(client, "mass", case.case_id, operating_point=name) for case, _ in CASES[:60:2]]
        assert all(decision.operating_point and decision.operating_point.name == name for decision in decisions)
        flagged.append([decision.call is Call.POSITIVE for decision in decisions])
        scores = [decision.score for decision in decisions]
        assert scores == [one(client, "mass", case.case_id).score for case, _ in CASES[:60:2]]
    assert all(
        lax >= strict
        for one_point, next_point in itertools.pairwise(flagged)
        for lax, strict in zip(one_point, next_point, strict=True)
    )
    assert sum(flagged[0]) > sum(flagged[-1])


@pytest.mark.parametrize("scorer", ["mass", "probed"])
def test_the_server_scores_as_the_fit_did_bit_for_bit(
    client: Client, reference: Reference, fitted: Fitted, scorer: str
) -> None:
    text = MASS if scorer == "mass" else finding_text("probed", POINT, scorer='kind = "probe"\nk = 25')
    finding, made = read_finding(text, "x.toml"), None if scorer == "mass" else probed(reference)
    by_patient: dict[tuple[str, str], set[float]] = {}
    for each in reference.asked:
        score = positive_share(finding, shares_of(each, finding, made))
        by_patient.setdefault((each.patient, each.facts.instance_uid), set()).add(score)
    for case, _ in CASES[::20]:
        expected = by_patient[f"patient |{case.facts.patient_id}", case.facts.instance_uid]
        assert one(client, scorer, case.case_id).score in expected


def test_prevalence_moves_what_a_call_means(client: Client) -> None:
    common, rare = one(client, "mass", prevalence=0.5), one(client, "mass", prevalence=0.01)
    assert common.score == rare.score
    assert common.ppv
    assert rare.ppv
    assert common.ppv.value > rare.ppv.value
    assert common.probability is not None
    assert rare.probability is not None
    assert common.probability >= rare.probability
    by_cost = one(client, "mass", prevalence=0.2, cost_ratio=5.0)
    assert by_cost.operating_point
    assert by_cost.operating_point.method == "cost"
    with pytest.raises(InvalidInput, match="prevalence"):
        one(client, "mass", cost_ratio=5.0)


def test_curve_points_and_names(client: Client, fitted: Fitted) -> None:
    roc = client.roc("mass")
    assert roc.auroc == fitted.auroc
    assert len(roc.points) == len(fitted.curve)
    assert [point.threshold for point in roc.points] == sorted((p.threshold for p in roc.points), reverse=True)
    assert (roc.points[0].true_positive_rate, roc.points[0].false_positive_rate) < (0.5, 0.5)
    for missing in (lambda: client.roc("absent"), lambda: one(client, "absent"), lambda: client.operating_points("x")):
        with pytest.raises(NotFound) as unknown:
            missing()
        assert unknown.value.reason == "FINDING_NOT_FOUND"
    with pytest.raises(NotFound) as point:
        one(client, "mass", operating_point="absent")
    assert point.value.reason == "OPERATING_POINT_NOT_FOUND"
    with pytest.raises(Unsupported) as none:
        client.roc("bone-age")
    assert none.value.reason == "NOT_FITTED"
    summary = next(each for each in client.findings() if each.name == "mass")
    assert summary.operating_points == fitted.point_names
    assert summary.labelled_count == len(CASES)
    (far,) = next(each for each in client.findings() if each.name == "ct").refused_points
    assert (far.name, far.patients_needed, far.patients) == (FAR.name, FAR.patients_needed, FAR.patients)


def test_points_come_in_pages(address: str, fitted: Fitted) -> None:
    with grpc.insecure_channel(address) as channel:
        stub, names, token = decision_pb2_grpc.DecisionServiceStub(channel), [], ""
        while True:
            request = decision_pb2.ListOperatingPointsRequest(finding="mass", page_size=2, page_token=token)
            page = stub.ListOperatingPoints(request)
            assert len(page.operating_points) <= 2
            names += [point.name for point in page.operating_points]
            token = page.next_page_token
            if not token:
                break
        assert names == list(fitted.point_names[: len(fitted.points)])
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListOperatingPoints(decision_pb2.ListOperatingPointsRequest(finding="mass", page_token="x"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_number_has_a_measurement_with_its_interval(client: Client) -> None:
    found = one(client, "bone-age").measurement
    assert found
    assert (found.method, found.unit, found.level) == ("conformal", "months", 0.9)
    assert found.low < found.mean < found.high


def test_a_hundred_decisions_replay_after_a_restart(data: Path, findings: Path, address: str) -> None:
    with Client(address) as client:
        made = [one(client, "mass", case.case_id, prevalence=0.1) for case, _ in CASES[:100]]
        records = {decision.record_id: client.record(decision.record_id) for decision in made}
    assert len(records) == 100
    with pytest.raises(NotFound), Client(address) as client:
        client.record("0" * 64)
    folder = data / "records"
    for decision in made:  # as another process finds them: on the disk alone
        kept = (folder / decision.record_id[:2] / f"{decision.record_id}.json").read_bytes()
        assert kept == records[decision.record_id]
        again = replay(read_record(kept))
        assert again.record_id == decision.record_id
        assert redacted(again) == redacted(decision)
    edited = kept.replace(b'"prevalence":0.1', b'"prevalence":0.2', 1)
    assert edited != kept
    with pytest.raises(InvalidInput) as refused:
        read_record(edited)
    assert refused.value.reason == "RECORD_INVALID"


def test_the_library_without_fits_still_shows_votes(tmp_path: Path) -> None:
    fill(tmp_path, CASES[:20])
    with serving(tmp_path) as server, Client(server.address) as client:
        assert [each.name for each in client.findings()] == ["bone_age", "mass"]
        decision = one(client, "mass", CASES[0][0].case_id)
        assert (decision.abstain_reason, len(decision.evidence)) == ("NO_OPERATING_POINT", 10)


def test_a_server_refuses_a_fit_that_was_edited(tmp_path: Path, fitted: Fitted) -> None:
    declare(tmp_path / "findings", MASS, fitted)
    file = tmp_path / "findings" / "mass.json"
    edited = file.read_bytes().replace(b'"unit":"image"', b'"unit":"patient"')
    assert edited != file.read_bytes()
    file.write_bytes(edited)
    with (
        pytest.raises(Unready, match=r"mass\.toml, line \d+.*edited"),
        serving(tmp_path / "data", "--findings", str(tmp_path / "findings")),
    ):
        pass
