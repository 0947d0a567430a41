"""Every reason not to call is reached, comes with a sentence, and takes the call's numbers with it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from decisions import ASKED, CONTEXT, LIBRARY, MASS, fit, group, hits
from hypothesis import given
from hypothesis import strategies as st

from nearcase.decide.abstain import Reason
from nearcase.decide.array import Array
from nearcase.decide.decision import Asked, Context, decide
from nearcase.decide.familiar import Ellipsoid, Familiarity
from nearcase.decide.finding import Finding, Floors, Scope, Scorer, undeclared
from nearcase.decide.fitted import Fitted, Library
from nearcase.decide.groups import Group
from nearcase.decide.operating import Choice
from nearcase.decide.rate import apart, decimal, percent
from nearcase.errors import InvalidInput, NotFound
from nearcase.index.filter_text import parse
from nearcase.index.filters import matches
from nearcase.retrieve.cases import to_payload
from nearcase.types import Call, Case, CaseFacts, Decision, Hit

HITS = hits([0.99, 0.985, 0.98, 0.975], ["1", "1", "0", "1"])
GROUPS = (
    group("sex", "F"),
    Group("sex", "M", False, 3, "only 3 patients"),
    group("age", "18-40", 18.0, 40.0),
    group("age", "40-90", 40.0, 90.0),
)
UNSEEN = dataclasses.replace(group("sex", "F"), positives=((0.4,),) * 5 + ((1.0,),) * 5)
ALARMED = dataclasses.replace(group("sex", "F"), negatives=((0.6,),) * 5 + ((0.0,),) * 5)
"""Women whose finding, or whose health, is not seen at the point "middle"."""
LINE = Ellipsoid(Array.of([1.0, 0.0]), Array.of([[1.0, 0.0]]), Array.of([0.01]), 0.04, 3.0)


def decided(
    finding: Finding = MASS,
    fitted: Fitted | None = None,
    found: list[Hit] = HITS,
    asked: Asked = ASKED,
    context: Context = CONTEXT,
) -> Decision:
    return decide(finding, fitted or fit(finding), found, asked, context).decision


def with_floors(**floors: object) -> Finding:
    return dataclasses.replace(MASS, floors=Floors(**floors))  # type: ignore[arg-type]


def asked_of(**facts: object) -> Asked:
    return dataclasses.replace(ASKED, facts=CaseFacts(**facts))  # type: ignore[arg-type]


def at(vector: list[float]) -> Asked:
    return dataclasses.replace(ASKED, vector=np.array(vector, np.float32))


SCOPED = dataclasses.replace(MASS, scope=Scope(modalities=("MG",), at_least_years=18.0))
FAMILIAR = fit(familiarity=Familiarity(0.01, 0.9, 0.9, LINE))
OTHER_LIBRARY = dataclasses.replace(CONTEXT, library=Library("snapshot-2", 210), kept=LIBRARY.values)


def now(labelled_count: int, *kept: tuple[str, int]) -> Context:
    """Another library, with so many cases that are as they were at the fit."""
    return dataclasses.replace(CONTEXT, library=Library("snapshot-2", labelled_count), kept=kept)


REACHED: dict[Reason, list[Decision]] = {
    Reason.OUT_OF_SCOPE: [
        decided(SCOPED, asked=asked_of(modality="CT")),
        decided(SCOPED, asked=asked_of(age_years=3.0)),
        decided(
            dataclasses.replace(MASS, scope=Scope("modality = MG and source = here")), asked=asked_of(modality="CT")
        ),
    ],
    Reason.NO_EVIDENCE: [decided(found=[]), decided(found=hits([0.9], [None])), decided(found=hits([0.9], ["maybe"]))],
    Reason.ENCODER_CHANGED: [decided(context=dataclasses.replace(CONTEXT, encoder="encoder-2"))],
    Reason.FINDING_CHANGED: [
        decided(MASS.with_k(5), fit()),
        decided(dataclasses.replace(MASS, version="2"), fit()),
        decided(dataclasses.replace(MASS, scope=Scope("source = here")), fit()),
        decided(with_floors(agreement=0.1), fit()),
        decided(with_floors(similarity=0.1), fit()),
        decided(with_floors(groups=("sex",)), fit(groups=GROUPS), asked=asked_of(sex="F")),
        decided(fitted=fit(with_floors(agreement=0.1))),
    ],
    Reason.SEVERAL_IMAGES: [decided(asked=dataclasses.replace(ASKED, image_count=2))],
    Reason.LIBRARY_CHANGED: [
        decided(context=OTHER_LIBRARY),
        decided(with_floors(library_change=0.04), context=OTHER_LIBRARY),
        decided(with_floors(library_change=1.0), context=now(200, ("0", 0), ("1", 0))),  # each replaced by another
        decided(with_floors(library_change=0.1), context=now(200, ("0", 108), ("1", 92))),  # another library
        decided(with_floors(library_change=0.09), context=now(200, ("0", 110), ("1", 80))),  # ten were relabelled
        decided(with_floors(library_change=0.05), context=now(190, ("0", 115), ("1", 74))),  # 11 gone, 1 came
        decided(with_floors(library_change=1.0), context=dataclasses.replace(OTHER_LIBRARY, kept=None)),
    ],
    Reason.SCOPE_NARROWED: [decided(context=dataclasses.replace(CONTEXT, is_narrowed=True))],
    Reason.TOO_LITTLE_EVIDENCE: [decided(with_floors(evidence=201))],
    Reason.NOTHING_SIMILAR: [
        decided(with_floors(similarity=0.995)),
        decided(fitted=FAMILIAR, found=hits([0.899], ["1"]), asked=at([1.0, 0.0])),
    ],
    Reason.OUT_OF_DISTRIBUTION: [
        decided(fitted=FAMILIAR, found=hits([0.95, 0.8], ["1", "0"]), asked=at([1.0, 0.0])),
        decided(fitted=FAMILIAR, asked=at([0.0, 1.0])),
    ],
    Reason.GROUP_NOT_VALIDATED: [
        decided(fitted=fit(groups=GROUPS), asked=asked_of(sex="M", age_years=50.0)),
        decided(fitted=fit(groups=GROUPS), asked=asked_of(sex="O", age_years=50.0)),
        decided(fitted=fit(groups=GROUPS), asked=asked_of(age_years=50.0)),
        decided(fitted=fit(groups=GROUPS), asked=asked_of(sex="F", age_years=90.0)),
        decided(fitted=fit(groups=(UNSEEN,)), asked=asked_of(sex="F")),
        decided(fitted=fit(groups=(UNSEEN,)), asked=asked_of()),
        decided(fitted=fit(groups=(ALARMED,)), asked=asked_of(sex="F")),
        decided(
            fitted=fit(groups=(dataclasses.replace(UNSEEN, positives=((0.7,),) * 10),)),
            asked=dataclasses.replace(asked_of(sex="F"), choice=Choice("both")),
        ),  # the rule-in point alone misses them
        decided(
            fitted=fit(groups=(UNSEEN,)),
            asked=dataclasses.replace(asked_of(sex="F"), choice=Choice(target_specificity=0.8)),
        ),
        decided(with_floors(groups=("sex",)), asked=asked_of(sex="F")),
    ],
    Reason.NEIGHBOURS_DISAGREE: [
        decided(with_floors(agreement=0.8), found=hits([0.99, 0.985], ["1", "0"])),
        decided(with_floors(agreement=0.8), found=hits([0.985, 0.99], ["1", "0"])),
    ],
    Reason.MEASUREMENT_ONLY: [
        decided(
            dataclasses.replace(
                MASS, is_number=True, positive_values=(), negative_values=(), default_operating_point=""
            )
        )
    ],
    Reason.POINT_NOT_SUPPORTED: [
        decided(asked=dataclasses.replace(ASKED, choice=Choice("no such"), is_one_of_many=True)),
        decided(
            fitted=fit(positives=20),
            asked=dataclasses.replace(ASKED, choice=Choice(target_sensitivity=0.9), is_one_of_many=True),
        ),
    ],
    Reason.NO_OPERATING_POINT: [
        decide(MASS, None, HITS, ASKED, CONTEXT).decision,
        decide(undeclared("mass"), None, HITS, ASKED, CONTEXT).decision,
        decided(dataclasses.replace(MASS, default_operating_point="")),
    ],
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_reached_and_says_why(reason: Reason) -> None:
    for decision in REACHED[reason]:
        assert decision.call is Call.ABSTAIN
        assert decision.abstain_reason == reason.value
        assert decision.explanation.endswith(".")
        assert "\n" not in decision.explanation
        numbers = (decision.probability, decision.operating_point, decision.rule_out_point, decision.ppv, decision.npv)
        assert numbers == (None,) * 5


def test_without_a_reason_a_call_is_made() -> None:
    for decision in (
        decided(),
        decided(SCOPED, asked=asked_of(modality="MG", age_years=40.0)),
        decided(SCOPED),  # a file that states no modality
        decided(with_floors(library_change=0.05), context=OTHER_LIBRARY),
        decided(with_floors(library_change=0.1), context=now(200, ("0", 110), ("1", 80))),
        decided(with_floors(library_change=0.06), context=now(190, ("0", 115), ("1", 74))),
        decided(with_floors(evidence=200, similarity=0.99, agreement=0.5)),
        decided(fitted=FAMILIAR, asked=at([1.0, 0.1])),
        decided(fitted=fit(groups=GROUPS), asked=asked_of(sex="F", age_years=89.9)),
        decided(fitted=fit(groups=GROUPS[2:]), asked=asked_of(sex="M")),  # every age group was validated
        decided(fitted=fit(groups=GROUPS[:1]), asked=asked_of()),
        decided(
            fitted=fit(groups=(UNSEEN,)), asked=dataclasses.replace(asked_of(sex="F"), choice=Choice("lax"))
        ),  # at another point they are not missed
    ):
        assert decision.call is Call.POSITIVE, decision
        assert decision.abstain_reason == ""


def test_a_score_is_shown_with_an_abstention() -> None:
    decision = decided(with_floors(similarity=0.999))
    assert decision.score == decided().score
    assert decision.votes == decided().votes
    assert decision.evidence


def test_a_point_that_one_finding_lacks_is_an_error_when_it_alone_was_asked() -> None:
    with pytest.raises(NotFound):
        decided(asked=dataclasses.replace(ASKED, choice=Choice("no such")))


def test_an_ellipsoid_needs_the_embedding() -> None:
    with pytest.raises(InvalidInput, match="embedding"):
        decided(fitted=FAMILIAR)


def test_distance_is_mahalanobis_of_the_whole_covariance() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    variances = np.array([4.0, 2.0, 0.5, 0.5, 0.5])
    covariance = basis @ np.diag(variances) @ basis.T
    mean = rng.normal(size=5)
    shape = Ellipsoid(Array.of(mean), Array.of(basis[:, :2].T), Array.of(variances[:2]), 0.5, 3.0)
    for _ in range(10):
        vector = rng.normal(size=5)
        away = vector - mean
        expected = np.sqrt(away @ np.linalg.inv(covariance) @ away)
        assert shape.distance(vector.astype(np.float32)) == pytest.approx(expected, rel=1e-4)


def test_only_values_that_count_are_evidence() -> None:
    found = hits([0.99, 0.98, 0.97], ["1", "uncertain", "0"])
    assert [piece.value for piece in decided(found=found).evidence] == ["1", "0"]
    every = dataclasses.replace(MASS, negative_values=())
    assert len(decided(every, found=found).evidence) == 3


def test_positive_values_do_not_disagree_among_themselves() -> None:
    finding = dataclasses.replace(with_floors(agreement=0.9), positive_values=("1", "2"))
    assert decided(finding, found=hits([0.99, 0.99], ["1", "2"])).call is Call.POSITIVE


@given(st.lists(st.tuples(st.floats(0.5, 1), st.sampled_from(["0", "1", None]), st.booleans()), max_size=20))
def test_a_case_outside_the_scope_changes_nothing(drawn: list[tuple[float, str | None, bool]]) -> None:
    """Through the finding's own filter, as the index would apply it."""
    finding = dataclasses.replace(MASS, scope=Scope("not source = elsewhere", ("MG",), (), 18.0, 90.0))
    where = parse(finding.scope.text)
    cases = [
        Hit(
            Case(
                f"case-{number:02}",
                CaseFacts(modality="MG" if is_in else "CT", age_years=50.0),
                {} if value is None else {"mass": value},
            ),
            similarity,
        )
        for number, (similarity, value, is_in) in enumerate(drawn)
    ]

    def answer(found: list[Hit]) -> Decision:
        in_scope = [hit for hit in found if matches(where, to_payload(hit.case))]
        count = sum("mass" in hit.case.labels for hit in in_scope)
        context = dataclasses.replace(CONTEXT, library=LIBRARY, labelled_count=count)
        return decide(finding, fit(finding), in_scope, ASKED, context).decision

    assert answer(cases) == answer([hit for hit in cases if hit.case.facts.modality == "MG"])


@pytest.mark.parametrize(
    ("where", "facts", "takes"),
    [
        ("modality = MG", {"modality": "CT"}, False),
        ("modality = MG", {}, True),
        ("not sex = M", {"sex": "M"}, False),
        ("not sex = M", {}, True),
        ("age >= 40 and label.site = left", {"age_years": 39.0}, False),
        ("age >= 40 or label.site = left", {"age_years": 39.0}, True),
        ("age >= 40 or modality = MG", {"age_years": 39.0, "modality": "CT"}, False),
        ("not (body_part = CHEST and source = here)", {"body_part": "CHEST"}, True),
        ("not (body_part = CHEST or source = here)", {"body_part": "CHEST"}, False),
        ("patient_key = x and date < 20200101 and not flags = excluded", {"patient_id": "y"}, True),
    ],
)
def test_the_filter_of_a_scope_is_asked_of_what_is_known(where: str, facts: dict[str, object], takes: bool) -> None:
    assert Scope(where).takes(CaseFacts(**facts)) is takes  # type: ignore[arg-type]


def test_a_scope_is_written_in_the_filter_language() -> None:
    scope = Scope("source = a or source = b", ("MG", "DX"), ("CHEST", "and"), 18.0, 90.5)
    where = parse(scope.text)
    inside = {"source": "a", "modality": "DX", "body_part": "and", "age_years": 90.0}
    assert matches(where, inside)
    for change in ({"source": "c"}, {"modality": "CT"}, {"body_part": "SKULL"}, {"age_years": 90.5}):
        assert not matches(where, inside | change)
    assert Scope().text == ""


def test_a_probe_of_another_encoder_is_not_run() -> None:
    finding = dataclasses.replace(MASS, scorer=Scorer("probe"))
    context = dataclasses.replace(CONTEXT, encoder="encoder-2")
    decision = decide(finding, fit(finding), HITS, at([1.0, 0.0]), context).decision
    assert decision.abstain_reason == "ENCODER_CHANGED"
    assert decision.score is None
    assert sum(vote.share for vote in decision.votes) == pytest.approx(1.0)


def test_a_group_that_fails_at_the_point_says_by_how_much() -> None:
    told = decided(fitted=fit(groups=(UNSEEN,)), asked=asked_of(sex="F")).explanation
    assert "its calibration sensitivity at middle is 50% (24% to 76%) in 10 patients, more than 0.1 below the" in told


def test_the_manual_lists_the_reasons_in_their_order() -> None:
    manual = (Path(__file__).parents[1] / "docs" / "api.md").read_text("utf-8")
    listed = re.findall(r"^\| `([A-Z_]+)` \|", manual.split("| abstain_reason |")[1].split("\n\n")[0], re.MULTILINE)
    assert listed == [reason.value for reason in Reason]


def test_numbers_have_digits_enough_to_tell() -> None:
    assert [percent(share) for share in (0.0, 0.9, 0.994, 0.9996, 1 - 1e-9, 0.0004, 0.018, 0.0999, 1.0)] == [
        "0%",
        "90%",
        "99%",
        "99.96%",
        "99.9999999%",
        "0.040%",
        "1.8%",
        "10%",
        "100%",
    ]
    assert [decimal(share) for share in (0.5, 0.9999, 1.0, 0.0)] == ["0.500", "0.9999", "1", "0"]
    assert apart(0.9000001, 0.9) == ("0.9000001", "0.9")
    assert apart(0.5, 0.5) == ("0.5", "0.5")
    same = decided(context=dataclasses.replace(CONTEXT, library=Library("snapshot-2", 200), kept=None)).explanation
    assert "with 200 labelled cases then and now: some were replaced or changed, or others written" in same
    assert "from 200" not in same
    near = decided(with_floors(similarity=0.99004), found=hits([0.99], ["1"]))
    assert "has similarity 0.99, and 0.99004 is needed" in near.explanation


def test_a_floor_of_the_library_as_a_whole_may_change_after_the_fit() -> None:
    """It chooses between no images: sensitivity and specificity are of all of them either way."""
    finding = with_floors(evidence=10, library_change=0.1)
    assert decided(finding, fit()).call is decided().call is not Call.ABSTAIN
