"""Operating points as they were fitted: a threshold, the promise that was made, and what it did on held-out data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nearcase.decide.rate import Rate
from nearcase.errors import InvalidInput
from nearcase.types import OperatingPoint

METHODS = ("empirical", "conformal", "pac", "youden", "cost", "fixed")

HIGHEST = math.nextafter(1.0, 2.0)
"""The threshold that no score reaches."""

MOST_PATIENTS = 2**31 - 1
"""That a point's rates, and the images of a split, may count: more than any library holds, and what answers can say."""

MOST_NEEDED = 2**63 - 1
"""That a point may be said to need; the strictest target below 1 needs 3e16 (log(0.05) / log(target))."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,99}")


@dataclass(frozen=True, slots=True)
class FittedPoint:
    """One threshold; scores at or above are positive."""

    name: str
    threshold: float
    method: str  # one of METHODS
    guarantee: str  # the promise and its confidence, in words; empty where nothing is promised
    sensitivity: Rate  # held-out
    specificity: Rate  # held-out
    positive_patients: int  # that the sensitivity counts
    negative_patients: int  # that the specificity counts
    called_sensitivity: Rate | None = None  # held-out, of the images with a call; None where none has the finding
    called_specificity: Rate | None = None  # likewise; None where all that have a call have the finding

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.method not in METHODS:
            raise InvalidInput(f"expected a method of {', '.join(METHODS)}, got another", field="method")
        check_threshold(self.threshold)
        check_count(max(self.positive_patients, self.negative_patients), MOST_PATIENTS, "positive_patients")
        check_line(self.guarantee, "guarantee")
        counted = (_patients(self.sensitivity), _patients(self.specificity))
        if counted != (self.positive_patients, self.negative_patients):
            message = (
                f"expected sensitivity of {self.positive_patients} positive_patients and specificity of "
                f"{self.negative_patients} negative_patients, got rates of {counted[0]} and {counted[1]}"
            )
            raise InvalidInput(message, field="positive_patients")
        check_called(self.called_sensitivity, self.sensitivity)
        check_called(self.called_specificity, self.specificity)

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
            called_sensitivity=self.called_sensitivity.interval if self.called_sensitivity else None,
            called_specificity=self.called_specificity.interval if self.called_specificity else None,
            called_positive_patients=_patients(self.called_sensitivity),
            called_negative_patients=_patients(self.called_specificity),
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """Two points for three calls: positive from the rule-in point on, negative below the rule-out point."""

    name: str
    rule_in: str  # name of a point
    rule_out: str

    def __post_init__(self) -> None:
        check_name(self.name)

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
    patients_needed: int  # in the calibration part
    patients: int  # that there were in it

    def __post_init__(self) -> None:
        check_name(self.name)
        check_line(self.reason, "reason")
        check_count(self.patients_needed, MOST_NEEDED, "patients_needed")
        check_count(self.patients, MOST_NEEDED, "patients")


def check_name(name: str) -> None:
    """Refuses what is no name of a point: it is printed, and typed on a command line.

    Raises:
        InvalidInput: It is not 1 to 100 letters, digits and signs.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput("expected a name of at most 100 letters, digits, dots and dashes, got another", field="name")


def check_count(count: int, most: int, field: str) -> None:
    """Refuses a number of patients that nobody counted, or that an answer has no room for.

    Raises:
        InvalidInput: It is not from 0 to that many.
    """
    if not 0 <= count <= most:
        raise InvalidInput(f"expected {field} from 0 to {most}, got {count}", field=field)


def check_called(called: Rate | None, of_all: Rate) -> None:
    """Refuses a rate among the images with a call that counts more patients than there are.

    Raises:
        InvalidInput: Where that is so.
    """
    if called is not None and called.effective_n > of_all.effective_n:
        message = f"expected called rates of at most {of_all.effective_n:g} patients, got {called.effective_n:g}"
        raise InvalidInput(message, field="effective_n")


def check_threshold(threshold: float) -> None:
    """Refuses a threshold that no score lies at or just below.

    Raises:
        InvalidInput: It is not inside 0..1.
    """
    if not 0.0 <= threshold <= HIGHEST:
        raise InvalidInput(f"expected a threshold inside 0..1, got {threshold:g}", field="threshold")


def check_line(text: str, field: str) -> None:
    """Refuses text that does not print as one line.

    Raises:
        InvalidInput: It holds a line break or another control character.
    """
    if not text.isprintable():
        raise InvalidInput(f"expected {field} to be one printable line, got other text", field=field)


def _patients(rate: Rate | None) -> int:
    return int(rate.effective_n) if rate else 0
