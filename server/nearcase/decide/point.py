"""Operating points as they were fitted: a threshold, the promise that was made, and what it did on held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nearcase.decide.rate import Rate
from nearcase.errors import InvalidInput
from nearcase.types import OperatingPoint

METHODS = ("empirical", "conformal", "pac", "youden", "cost", "fixed")


@dataclass(frozen=True, slots=True)
class FittedPoint:
    """One threshold; scores at or above are positive."""

    name: str
    threshold: float
    method: str  # one of METHODS
    guarantee: str  # the promise and its confidence, in words; empty where nothing is promised
    sensitivity: Rate  # held-out
    specificity: Rate  # held-out
    positive_patients: int  # in the held-out data
    negative_patients: int

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidInput(f"expected a method of {', '.join(METHODS)}, got another", field="method")

    @property
    def shown(self) -> OperatingPoint:
        """The point with its intervals, as answers have it."""
        return OperatingPoint(
            name=self.name,
            threshold=self.threshold,
            method=self.method,
            guarantee=self.guarantee,
            sensitivity=self.sensitivity.interval,
            specificity=self.specificity.interval,
            positive_patients=self.positive_patients,
            negative_patients=self.negative_patients,
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """Two points for three calls: positive from the rule-in point on, negative below the rule-out point."""

    name: str
    rule_in: str  # name of a point
    rule_out: str

    def check(self, points: Mapping[str, FittedPoint]) -> None:
        """Refuses a pair whose points do not exist or leave no room between them.

        Raises:
            InvalidInput: Where that is so.
        """
        if self.rule_in not in points or self.rule_out not in points:
            raise InvalidInput(f"expected fitted points for the pair {self.name}, got other names", field="pairs")
        if points[self.rule_in].threshold < points[self.rule_out].threshold:
            raise InvalidInput(f"expected rule-in at or above rule-out in the pair {self.name}", field="pairs")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A point that was asked of the fit and that the data could not support."""

    name: str
    reason: str  # one sentence
    patients_needed: int
    patients: int  # that there were
