"""The report: eleven sections of frozen data; JSON is this and nothing else, the pages are renderings of it."""

from __future__ import annotations

from dataclasses import dataclass

from nearcase_eval.averages import Averages
from nearcase_eval.benefit import NetBenefit
from nearcase_eval.calibration import Calibration
from nearcase_eval.comparison import Difference
from nearcase_eval.confounders import Baseline
from nearcase_eval.estimate import Estimate
from nearcase_eval.gaps import Gap, Gaps, Verdict
from nearcase_eval.operating import OperatingPoint
from nearcase_eval.subgroups import Subgroup
from nearcase_eval.thresholds import Threshold

FORMAT = "nearcase-audit/1"
"""Version of the JSON; a reader refuses another one."""


@dataclass(frozen=True, slots=True)
class Named:
    """A name and a value in words."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Input:
    """A file that was read."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Run:
    """Section 1: what was run on what."""

    tool: str
    version: str
    options: tuple[Named, ...]
    options_sha256: str
    inputs: tuple[Input, ...]
    columns: tuple[Named, ...]  # role to column, as guessed or given
    seed: int
    replicates: int
    date: str | None  # as stated; the clock is not read, so that the same input gives the same bytes
    libraries: tuple[Named, ...]
    rows: int
    patients: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """Patients of the test set who are also in another part."""

    part: str
    patients: int


@dataclass(frozen=True, slots=True)
class System:
    """Section 2: the model and its index, as its card says; None is not provided."""

    name: str | None
    version: str | None
    weights_sha256: str | None
    index_version: str | None
    index_size: int | None
    k: int | None
    distance: str | None
    score: str | None
    findings: tuple[str, ...]
    overlaps: tuple[Overlap, ...]
    overlap_check: str  # one sentence


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that the developer says, or does not."""

    field: str
    text: str | None  # None: not provided


@dataclass(frozen=True, slots=True)
class Step:
    """Rows that left on the way to the test set, or that are left."""

    what: str
    rows: int | None  # None: a count of persons too small to be shown


@dataclass(frozen=True, slots=True)
class FindingFlow:
    """What is there to test one finding with."""

    finding: str
    unlabelled: int
    uncertain: int
    unscored: int  # NaN, infinite or empty
    rows: int
    patients: int
    positives: int
    positive_patients: int
    lowest_score: float | None
    highest_score: float | None
    distinct_scores: int


@dataclass(frozen=True, slots=True)
class Demographic:
    """A group's share of the test patients; None when it is hidden."""

    attribute: str
    group: str
    rows: int | None
    patients: int | None
    share: float | None  # of the patients whose attribute is known
    target_share: float | None  # in the population that the model is meant for, when it was stated


@dataclass(frozen=True, slots=True)
class Flow:
    """Section 4: from the file to the test set."""

    steps: tuple[Step, ...]
    unit: str
    images_per_patient_median: float
    images_per_patient_max: int
    largest_patient_share: float  # of the test rows
    missing: tuple[Step, ...]  # rows without each attribute
    findings: tuple[FindingFlow, ...]
    demographics: tuple[Demographic, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A threshold on the ROC and precision-recall curves."""

    threshold: float | None  # None: above every score
    sensitivity: float
    sensitivity_low: float | None
    sensitivity_high: float | None
    false_positive_rate: float
    precision: float | None


@dataclass(frozen=True, slots=True)
class Overall:
    """Section 5: one finding on all test rows."""

    finding: str
    rows: int
    patients: int
    positives: int
    auroc: Estimate
    auroc_rows: Estimate  # as if rows were independent: too narrow when patients have several
    auprc: Estimate
    prevalence: Estimate
    partial_auroc: Estimate  # specificity 0.9 to 1, standardised
    calibration: Calibration | None
    calibration_reason: str  # why there is none
    benefit: tuple[NetBenefit, ...]
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """Section 6: one operating point of one finding."""

    finding: str
    rule: str
    threshold: Threshold
    chosen_on: str
    prespecified: bool
    test: OperatingPoint | None
    sensitivity: Estimate | None  # the one to quote: with the choice inside when it was chosen on the test rows
    specificity: Estimate | None
    benefit: NetBenefit | None


@dataclass(frozen=True, slots=True)
class GroupCalibration:
    """Calibration of one group."""

    group: str
    in_the_large: Estimate
    slope: Estimate
    observed_expected: Estimate
    brier: Estimate


@dataclass(frozen=True, slots=True)
class GroupTable:
    """Section 7: one finding, one attribute, one operating point."""

    finding: str
    attribute: str
    rule: str | None
    threshold: float | None
    groups: tuple[Subgroup, ...]
    calibration: tuple[GroupCalibration, ...]


@dataclass(frozen=True, slots=True)
class GroupGaps:
    """Section 8: the gaps of one finding, attribute and metric."""

    finding: str
    attribute: str
    metric: str  # auroc, miss_rate, false_alarm_rate
    rule: str | None
    threshold: float | None
    exploratory: bool  # a crossing: shown, but not part of the verdict
    gaps: Gaps
    p: float | None
    p_method: str
    p_adjusted: float | None
    adjustment: str
    family: int


@dataclass(frozen=True, slots=True)
class Odds:
    """Section 8: equalised odds at one operating point."""

    finding: str
    attribute: str
    rule: str
    gap: Gap


@dataclass(frozen=True, slots=True)
class Confounders:
    """Section 8: what the columns say without the image."""

    finding: str
    baselines: tuple[Baseline, ...]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A metric that the auditor named, in one group."""

    finding: str
    metric: str
    attribute: str
    group: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Versus:
    """Section 9: this score against another, on the same rows."""

    finding: str
    attribute: str  # empty: all test rows
    group: str
    first: Estimate
    second: Estimate
    difference: Difference
    margin: float | None
    noninferior: bool | None


@dataclass(frozen=True, slots=True)
class MapEntry:
    """Section 11: where a regulator's or a journal's item is answered."""

    source: str
    item: str
    section: int
    answered: bool
    note: str


@dataclass(frozen=True, slots=True)
class Judged:
    """One line of the summary: a gap in words."""

    finding: str
    attribute: str
    metric: str
    rule: str | None
    verdict: Verdict
    sentence: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a clinician reads first."""

    verdict: Verdict  # the worst of the judged gaps
    sentence: str
    tested: tuple[str, ...]
    judged: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    format: str
    title: str
    summary: Summary
    run: Run
    system: System
    use: tuple[Statement, ...]
    flow: Flow
    overall: tuple[Overall, ...]
    averages: Averages | None
    points: tuple[Point, ...]
    groups: tuple[GroupTable, ...]
    gaps: tuple[GroupGaps, ...]
    odds: tuple[Odds, ...]
    confounders: tuple[Confounders, ...]
    metrics: tuple[MetricRow, ...]
    versus: tuple[Versus, ...]
    limits: tuple[str, ...]
    maps: tuple[MapEntry, ...]
