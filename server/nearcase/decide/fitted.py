"""What was fitted for a finding: calibration, operating points with their held-out performance, and their limits.

`nearcase-eval fit` writes one such file for each finding; it is sealed by its hash and a server refuses an edited one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nearcase.decide.calibrate import Calibration
from nearcase.decide.canonical import digest, seal, unseal
from nearcase.decide.curve import CurvePoint, check_curve
from nearcase.decide.familiar import Familiarity
from nearcase.decide.finding import Scorer
from nearcase.decide.point import FittedPoint, Pair, Refusal
from nearcase.decide.probe import Probe
from nearcase.decide.prompt import PromptHead
from nearcase.errors import InvalidInput
from nearcase.types import Interval

FORMAT = "nearcase-fitted/1"

UNITS = ("image", "patient")

CALIBRATION, TEST = "calibration", "test"
"""Names of the two splits: thresholds and calibration are chosen on the first, performance is told of the second."""


@dataclass(frozen=True, slots=True)
class Library:
    """The reference set at one moment."""

    snapshot: str  # names its state: equal names, equal cases
    labelled_count: int  # cases that tell the finding's outcome, in the finding's scope


@dataclass(frozen=True, slots=True)
class Split:
    """One part of the data; a patient is in one part only."""

    name: str  # CALIBRATION, TEST, or others such as that which a probe was trained on
    images: int
    patients: int
    positive_patients: int  # with at least one positive image
    negative_patients: int  # with at least one negative image; a patient may be both


@dataclass(frozen=True, slots=True)
class Group:
    """Whether the finding was validated in one group of people."""

    attribute: str  # sex or age
    name: str  # M, F, O, or "40-60"
    is_validated: bool
    patients: int
    reason: str = ""  # why not, in words: too few patients, a gap above tolerance
    at_least_years: float | None = None  # of an age group
    below_years: float | None = None


@dataclass(frozen=True, slots=True)
class Residuals:
    """How far a number was off in new patients: |answer - truth| is at most this, with this coverage (conformal)."""

    bound: float
    level: float
    patients: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """All that was fitted; written by the evaluation suite, read by the server."""

    finding: str
    finding_version: str
    label: str
    positive_values: tuple[str, ...]
    negative_values: tuple[str, ...]
    scope: str  # in the filter language
    scorer: Scorer
    encoder: str  # identity of the encoder's card
    library: Library
    unit: str  # that the promises and the curve's counts are of: image (one for each patient) or patient
    splits: tuple[Split, ...]
    calibration: Calibration | None = None
    points: tuple[FittedPoint, ...] = ()
    pairs: tuple[Pair, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    curve: tuple[CurvePoint, ...] = ()  # strictest first
    auroc: Interval | None = None  # held-out
    familiarity: Familiarity | None = None
    groups: tuple[Group, ...] = ()
    probe: Probe | None = None
    prompts: PromptHead | None = None
    residuals: Residuals | None = None
    made_by: str = ""  # program, version and seed
    sha256: str = field(init=False, compare=False, default="")  # of the file's body

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "sha256", digest(self))

    def _check(self) -> None:
        names = [*self.point_names, *(refusal.name for refusal in self.refusals)]
        if len(set(names)) != len(names):
            raise InvalidInput("expected different names of operating points, got one twice", field="points")
        for head in (self.probe, self.prompts):
            if head is not None and not set(self.positive_values) <= set(head.values):
                raise InvalidInput("expected every positive value among those of the probe and the prompts")
        if self.unit not in UNITS:
            raise InvalidInput(f"expected a unit {' or '.join(UNITS)}, got another", field="unit")
        for pair in self.pairs:
            pair.check({point.name: point for point in self.points})
        check_curve(self.curve)
        if len({split.name for split in self.splits} & {CALIBRATION, TEST}) != 2:
            raise InvalidInput(f"expected the splits {CALIBRATION} and {TEST}, got others", field="splits")
        calibration = self._split(CALIBRATION)
        if self.curve and self.curve[-1].positives_called != calibration.positive_patients:
            raise InvalidInput("expected a curve whose last point calls every patient with the finding", field="curve")

    @property
    def held_out(self) -> Split:
        """What performance is told of."""
        return self._split(TEST)

    def _split(self, name: str) -> Split:
        return next(split for split in self.splits if split.name == name)

    def has(self, scorer: str) -> bool:
        """Returns whether the weights are here that a scorer needs."""
        return scorer == "neighbours" or (self.probe if scorer == "probe" else self.prompts) is not None

    @property
    def point_names(self) -> tuple[str, ...]:
        """The points and pairs that can be chosen by name, from the most sensitive to the most specific."""
        ordered = sorted(self.points, key=lambda point: point.threshold)
        return (*(point.name for point in ordered), *(pair.name for pair in self.pairs))


def read_fitted(data: bytes) -> Fitted:
    """Returns the fit.

    Raises:
        InvalidInput: With reason FITTED_INVALID: the bytes are no such file, or were edited since they were written.
    """
    return unseal(FORMAT, Fitted, data, reason="FITTED_INVALID")


def write_fitted(fitted: Fitted) -> bytes:
    """Returns the file: canonical, so that equal fits are equal bytes."""
    return seal(FORMAT, fitted)
