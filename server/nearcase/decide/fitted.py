"""What was fitted for a finding: calibration, operating points with their held-out performance, and their limits.

`nearcase-eval fit` writes one such file for each finding; it is sealed by its hash and a server refuses an edited one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nearcase.decide.calibrate import Calibration
from nearcase.decide.canonical import digest, format_of, seal, unseal
from nearcase.decide.curve import CurvePoint, check_curve, check_rates
from nearcase.decide.familiar import Familiarity
from nearcase.decide.finding import Floors, Scorer
from nearcase.decide.groups import Group, check_groups
from nearcase.decide.point import MOST_PATIENTS, FittedPoint, Pair, Refusal, check_count, check_line
from nearcase.decide.probe import Probe
from nearcase.decide.prompt import PromptHead
from nearcase.decide.rate import Rate, check_prevalence
from nearcase.errors import InvalidInput
from nearcase.types import Interval

FORMAT = "nearcase-fitted/5"

_OLDER = ("nearcase-fitted/1", "nearcase-fitted/2", "nearcase-fitted/3", "nearcase-fitted/4")
"""Formats that say too little of the library, of groups of people, or of what is called and what is not, or chose
groups on the held-out patients: fit again."""

UNITS = ("image", "patient")

CALIBRATION, TEST = "calibration", "test"
"""Names of the two splits: thresholds and calibration are chosen on the first, performance is told of the second."""


Values = tuple[tuple[str, int], ...]
"""How many cases have each value of the finding's label, in the order of the values."""


COHORT = "cohort:"
"""Begins the name of a cohort's images as a library, which a server's library never is."""


@dataclass(frozen=True, slots=True)
class Library:
    """The reference set at one moment."""

    snapshot: str  # names its state: equal names, equal cases; "" where it changed while it was asked
    labelled_count: int  # cases that tell the finding's outcome, in the finding's scope
    values: Values = ()  # of a fit's library: those cases
    changed_at_s: float = 0.0  # of a fit's library: when the last of them was added or changed, seconds since 1970, UTC

    def changes(self, now: Library, kept: Values) -> tuple[int, int]:
        """Returns how many labelled cases of this library, a fit's, are gone or changed, and how many came or changed.

        Args:
            now: The library today.
            kept: Its labelled cases that were neither added nor changed since the fit.
        """
        then, left = dict(self.values), {} if self.snapshot.startswith(COHORT) else dict(kept)
        gone = sum(max(0, count - left.get(value, 0)) for value, count in then.items())
        foreign = sum(max(0, count - then.get(value, 0)) for value, count in left.items())
        return gone, now.labelled_count - sum(left.values()) + foreign


@dataclass(frozen=True, slots=True)
class Split:
    """One part of the data; a patient is in one part only."""

    name: str  # CALIBRATION, TEST, or others such as that which a probe was trained on
    images: int
    patients: int
    positive_patients: int  # with at least one positive image
    negative_patients: int  # with at least one negative image; a patient may be both

    def __post_init__(self) -> None:
        check_line(self.name, "name")
        check_count(self.images, MOST_PATIENTS, "images")
        if not 0 <= self.patients <= self.images:
            message = f"expected patients from 0 to {self.images} images, got {self.patients}"
            raise InvalidInput(message, field="patients")
        for name, count in (("positive", self.positive_patients), ("negative", self.negative_patients)):
            if not 0 <= count <= self.patients:
                message = f"expected {name}_patients from 0 to {self.patients} patients, got {count}"
                raise InvalidInput(message, field=f"{name}_patients")


@dataclass(frozen=True, slots=True)
class Residuals:
    """How far a number was off in new patients: |answer - truth| is at most this, with this coverage (conformal)."""

    bound: float
    level: float
    patients: int

    def __post_init__(self) -> None:
        if not self.bound >= 0.0:
            raise InvalidInput(f"expected a bound from 0, got {self.bound:g}", field="bound")
        if not 0.0 < self.level < 1.0:
            raise InvalidInput(f"expected a level inside 0..1, got {self.level:g}", field="level")
        if self.patients < 1:
            raise InvalidInput(f"expected patients from 1, got {self.patients}", field="patients")


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
    floors: Floors  # at the fit; below these no call is made
    encoder: str  # identity of the encoder's card
    library: Library
    unit: str  # that promises are of: an image of a new patient, or the patient by their highest image
    splits: tuple[Split, ...]
    calibration: Calibration | None = None
    points: tuple[FittedPoint, ...] = ()
    pairs: tuple[Pair, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    curve: tuple[CurvePoint, ...] = ()  # strictest first
    auroc: Interval | None = None  # held-out
    prevalence: float | None = None  # held-out, each patient by the share of their images
    called: Rate | None = None  # held-out images on which a call is made at the finding's default point
    familiarity: Familiarity | None = None
    groups: tuple[Group, ...] = ()
    gap: float = 0.1  # by which a validated group's AUROC and rates may be below those of all
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
        check_groups(self.groups)
        if not 0.0 <= self.gap <= 1.0:
            raise InvalidInput(f"expected a gap inside 0..1, got {self.gap:g}", field="gap")
        if self.prevalence is not None:
            check_prevalence(self.prevalence)
        if len({split.name for split in self.splits} & {CALIBRATION, TEST}) != 2:
            raise InvalidInput(f"expected the splits {CALIBRATION} and {TEST}, got others", field="splits")
        if len({split.name for split in self.splits}) != len(self.splits):
            raise InvalidInput("expected different names of splits, got one twice", field="splits")
        self._check_counts()
        self._check_rates()

    def _check_counts(self) -> None:
        counts = [count for _, count in self.library.values]
        if min(counts, default=1) < 1 or sum(counts) != self.library.labelled_count or not self.library.snapshot:
            message = f"expected library.values of 1 or more that add up to its labelled_count, got {sum(counts)}"
            raise InvalidInput(message, field="library")
        if [value for value, _ in self.library.values] != sorted(dict(self.library.values)):
            raise InvalidInput("expected library.values in their order, each once", field="library")
        calibration = self._split(CALIBRATION)
        last = self.curve[-1] if self.curve else None
        if last and last.positives_called != calibration.positive_patients:
            raise InvalidInput(
                "expected a curve whose last point calls every patient of positive_patients, got others", field="curve"
            )
        if last and last.negatives_called != calibration.negative_patients:
            raise InvalidInput(
                "expected a curve whose last point calls every patient of negative_patients, got others", field="curve"
            )
        for split in self.splits:
            if self.curve and split.positive_patients + split.negative_patients < split.patients:
                message = (
                    f"expected positive_patients and negative_patients to be all patients of {split.name}, got fewer"
                )
                raise InvalidInput(message, field="splits")

    def _check_rates(self) -> None:
        places = [(each.threshold, each.sensitivity, each.specificity) for each in self.curve]
        places += [(each.threshold, each.sensitivity, each.specificity) for each in self.points]
        check_rates(places)
        held_out = self.held_out
        expected = (held_out.positive_patients, held_out.negative_patients)
        for _, sensitivity, specificity in places:
            if (sensitivity.effective_n, specificity.effective_n) != expected:
                message = f"expected rates of the {expected[0]} and {expected[1]} held-out patients, got of others"
                raise InvalidInput(message, field="effective_n")
        area = self.auroc
        if area and not (0.0 <= area.low <= area.value <= area.high <= 1.0 and 0.0 < area.level < 1.0):
            raise InvalidInput("expected auroc inside 0..1 and inside its interval, got it elsewhere", field="auroc")

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
        InvalidInput: With reason FITTED_INVALID: the bytes are no such file, were edited since they were written, say
            what no fit can say, or are of an older nearcase.
    """
    if (stated := format_of(data)) in _OLDER:
        message = f"expected a file {FORMAT}, got {stated} of an older nearcase: run nearcase-eval fit again"
        raise InvalidInput(message, reason="FITTED_INVALID")
    return unseal(FORMAT, Fitted, data, reason="FITTED_INVALID")


def write_fitted(fitted: Fitted) -> bytes:
    """Returns the file: canonical, so that equal fits are equal bytes."""
    return seal(FORMAT, fitted)
