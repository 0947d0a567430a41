"""Which group of people a query belongs to, and whether the finding was validated there, at the point that is asked."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, combinations

from nearcase.decide.curve import CurvePoint, chosen_rates
from nearcase.decide.point import FittedPoint, check_line
from nearcase.decide.rate import Rate, percent
from nearcase.errors import InvalidInput
from nearcase.types import CaseFacts, Interval

ATTRIBUTES = ("sex", "age")

FEWEST_PATIENTS = 10
"""With the finding, and without, in the calibration data of a group: of fewer no rate is told (Newcombe 2006)."""

AIMS = ("sensitivity", "specificity")

Patients = tuple[tuple[float, ...], ...]
"""The scores of each patient's images."""


DIGITS = 12
"""Of a rate: sums over patients are exact to as many, so that all is 1 and none is 0."""


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Scores in order, and the weight of those below each: a decision looks up, it does not count."""

    scores: tuple[float, ...]
    below: tuple[float, ...]  # of patients, each of whom weighs 1

    @classmethod
    def of(cls, patients: Patients) -> _Ranked:
        """Every image weighs its share of its patient."""
        pairs = sorted((score, 1.0 / len(scores)) for scores in patients for score in scores)
        return cls(tuple(score for score, _ in pairs), tuple(accumulate((each for _, each in pairs), initial=0.0)))

    def called(self, threshold: float) -> float:
        """The mean over patients of the share of their images at or above a threshold."""
        return round(1.0 - self.below[bisect_left(self.scores, threshold)] / self.below[-1], DIGITS)


@dataclass(frozen=True, slots=True)
class Group:
    """One group of people in the calibration data; its reason says why the finding was not validated there at all."""

    attribute: str  # sex or age
    name: str  # M, F, O, or "40-60"
    is_validated: bool
    patients: int
    reason: str = ""  # why not, in words: too few patients, a gap above tolerance
    at_least_years: float | None = None  # of an age group
    below_years: float | None = None
    positives: Patients = ()  # scores of those with the finding; none where it was not validated
    negatives: Patients = ()
    _ranked: tuple[_Ranked, _Ranked] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ranked", (_Ranked.of(self.positives), _Ranked.of(self.negatives)))
        check_line(self.name, "name")
        check_line(self.reason, "reason")
        if self.attribute not in ATTRIBUTES:
            raise InvalidInput("expected an attribute sex or age, got another", field="attribute")
        if self.is_validated == bool(self.reason):
            raise InvalidInput("expected a reason exactly where is_validated is false", field="reason")
        self._check_patients()
        least, below = self.at_least_years, self.below_years
        has_years = least is not None or below is not None
        if has_years != (self.attribute == "age") or (least is not None and below is not None and not least < below):
            raise InvalidInput("expected at_least_years below below_years, for an age group only", field="below_years")

    def _check_patients(self) -> None:
        counts = len(self.positives), len(self.negatives)
        if self.is_validated and (min(counts) < FEWEST_PATIENTS or not max(counts) <= self.patients <= sum(counts)):
            message = (
                f"expected positives and negatives of at least {FEWEST_PATIENTS} patients each that add up to "
                f"{self.patients} patients, got {counts[0]} and {counts[1]}"
            )
            raise InvalidInput(message, field="patients")
        if self.patients < 0:
            raise InvalidInput(f"expected patients from 0, got {self.patients}", field="patients")
        for scores in (*self.positives, *self.negatives):
            if not scores or not all(0.0 <= score <= 1.0 for score in scores):
                raise InvalidInput(
                    "expected scores inside 0..1 of every patient in positives and negatives, got others",
                    field="positives",
                )

    def rates(self, threshold: float) -> tuple[Rate, Rate]:
        """Returns the sensitivity and specificity of a validated group at a threshold, each patient counting once."""
        called, alarmed = (side.called(threshold) for side in self._ranked)
        return Rate(called, len(self.positives)), Rate(round(1.0 - alarmed, DIGITS), len(self.negatives))

    def why_not(self, points: Sequence[FittedPoint], gap: float, curve: Sequence[CurvePoint]) -> str:
        """Returns why the finding is not validated in this group at these points; "" where it is.

        Its rates in the calibration patients are held against those of all calibration patients. A comparison with the
        held-out rates would drop a group where those are high by chance, and what is told of the others would be low.

        The rule is of estimates, not of proven differences: in a small group nothing is ever proven, and a call that is
        not made costs less than one that misses a group's patients (as underdiagnosis, Seyyed-Kalantari 2021).
        """
        if not self.is_validated:
            return self.reason
        for point in points:
            if not curve:
                return f"no fitted curve says what the rates of all are at {point.name}"
            here, there = self.rates(point.threshold), chosen_rates(curve, point.threshold)
            for aim, own, of_all in zip(AIMS, here, there, strict=True):
                if own.value < of_all - gap - 1e-9:
                    return (
                        f"its calibration {aim} at {point.name} is {_shown(own.interval)} in {own.effective_n:g} "
                        f"patients, more than {gap:g} below the {percent(of_all)} of all"
                    )
        return ""


def check_groups(groups: Sequence[Group]) -> None:
    """Refuses groups of which a person could be in two.

    Raises:
        InvalidInput: Two have one name, or the ages of two overlap.
    """
    for one, other in combinations(groups, 2):
        if one.attribute == other.attribute and (one.name == other.name or _overlap(one, other)):
            raise InvalidInput(f"expected groups of {one.attribute} without overlap, got two that do", field="groups")


def _overlap(one: Group, other: Group) -> bool:
    if one.attribute != "age":
        return False
    ends = [each.below_years if each.below_years is not None else float("inf") for each in (one, other)]
    starts = [each.at_least_years if each.at_least_years is not None else 0.0 for each in (one, other)]
    return max(starts) < min(ends)


@dataclass(frozen=True, slots=True)
class QueryGroup:
    """The query's group for one attribute: a bin, never an age."""

    attribute: str
    name: str  # "not stated" or "other" where no fitted group is the query's
    is_validated: bool
    reason: str = ""  # why not


def groups_of(
    facts: CaseFacts,
    groups: Sequence[Group],
    required: Iterable[str],
    points: Sequence[FittedPoint] = (),
    gap: float = 0.0,
    curve: Sequence[CurvePoint] = (),
) -> tuple[QueryGroup, ...]:
    """Returns the query's group for each attribute that was validated or must have been.

    Args:
        facts: Of the query.
        groups: As fitted.
        required: Attributes for which the query's group must have been validated.
        points: Where the calls change; the group's rates there count too.
        gap: By which they may be below those of all.
        curve: Which says those of all.
    """
    wanted = {group.attribute for group in groups} | set(required)

    def why_not(group: Group) -> str:
        return group.why_not(points, gap, curve)

    return tuple(
        _group_of(attribute, facts, [each for each in groups if each.attribute == attribute], why_not)
        for attribute in ATTRIBUTES
        if attribute in wanted
    )


def _group_of(attribute: str, facts: CaseFacts, groups: Sequence[Group], why_not: Callable[[Group], str]) -> QueryGroup:
    if not groups:
        return QueryGroup(attribute, "other", False, f"the finding was not validated by {attribute}")
    is_stated = bool(facts.sex) if attribute == "sex" else facts.age_years is not None
    if not is_stated:
        failed = [group for group in groups if why_not(group)]
        reason = f"it is not stated, and {failed[0].name} was not validated" if failed else ""
        return QueryGroup(attribute, "not stated", not failed, reason)
    for group in groups:
        if _is_in(facts, group):
            why = why_not(group)
            return QueryGroup(attribute, group.name, not why, why)
    return QueryGroup(attribute, "other", False, "no such group was in the validation")


def _is_in(facts: CaseFacts, group: Group) -> bool:
    if group.attribute == "sex":
        return facts.sex == group.name
    years, least, below = facts.age_years, group.at_least_years, group.below_years
    return years is not None and (least is None or years >= least) and (below is None or years < below)


def _shown(interval: Interval) -> str:
    return f"{percent(interval.value)} ({percent(interval.low)} to {percent(interval.high)})"
