"""Section 4: how many rows came in, why some left, and who the test patients are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nearcase_eval.audit.attributes import Attribute, stated
from nearcase_eval.audit.frame import Frame, Outcome
from nearcase_eval.audit.report import Demographic, FindingFlow, Flow, Overlap, Step
from nearcase_eval.sample import Bools, present


def flow_of(frame: Frame, attributes: Sequence[Attribute], target: Mapping[str, Mapping[str, float]]) -> Flow:
    """Returns section 4; `target` holds shares of the intended population, by attribute and group."""
    patient = frame.patient[frame.test]
    counts = np.bincount(patient, minlength=frame.patients)
    counts = counts[counts > 0]
    return Flow(
        tuple(_steps(frame)),
        "patient" if frame.has_patients else "row: no column names the patients",
        float(np.median(counts)) if counts.size else 0.0,
        int(counts.max(initial=0)),
        float(counts.max(initial=0) / max(patient.size, 1)),
        tuple(Step(each.name, each.grouping.missing) for each in attributes if not each.exploratory),
        tuple(_finding(frame, outcome) for outcome in frame.outcomes),
        tuple(row for each in attributes if not each.exploratory for row in _demographics(frame, each, target)),
        tuple(dict.fromkeys(note for each in attributes for note in each.grouping.notes)),
    )


def overlaps_of(frame: Frame) -> tuple[Overlap, ...]:
    """Returns how many test patients are in each other part of the split."""
    tested = _patients(frame, frame.test)
    parts = ((name, mask & ~frame.test) for name, mask in frame.parts.items())
    return tuple(
        Overlap(name, int(np.count_nonzero(tested & _patients(frame, mask)))) for name, mask in parts if mask.any()
    )


def _patients(frame: Frame, rows: Bools) -> Bools:
    seen = np.zeros(frame.patients, dtype=np.bool_)
    seen[frame.patient[rows]] = True
    return seen


def _steps(frame: Frame) -> Iterator[Step]:
    yield Step("rows in the file", frame.rows_read)
    if frame.duplicates:
        yield Step("dropped: repeat another row in every column", frame.duplicates)
    if frame.unmatched:
        yield Step("kept, but without a line in the metadata", frame.unmatched)
    for name, mask in sorted(frame.parts.items()):
        if not np.any(mask & frame.test):
            role = "used to choose thresholds" if np.any(mask & frame.calibrate) else "not used"
            yield Step(f"in the part {name!r}: {role}", int(mask.sum()))
    no_part = frame.n - sum(int(mask.sum()) for mask in frame.parts.values())
    if frame.parts and no_part:
        yield Step("in no part of the split: not used", no_part)
    yield Step("test rows", int(frame.test.sum()))


def _finding(frame: Frame, outcome: Outcome) -> FindingFlow:
    rows = frame.usable(outcome, frame.test)
    data = frame.sample(outcome, rows)
    labelled = frame.test & outcome.known
    return FindingFlow(
        outcome.finding.name,
        int(np.count_nonzero(frame.test & ~outcome.known)),
        outcome.uncertain,
        int(np.count_nonzero(labelled)) - data.n,
        data.n,
        data.patients_among(),
        data.positives,
        data.patients_among(data.truth),
        float(data.score.min()) if data.n else None,
        float(data.score.max()) if data.n else None,
        int(np.unique(data.score).size),
    )


def _demographics(
    frame: Frame, attribute: Attribute, target: Mapping[str, Mapping[str, float]]
) -> Iterator[Demographic]:
    grouping = stated(attribute.grouping)
    patient = frame.patient[frame.test]
    known = present(patient[attribute.grouping.codes >= 0], frame.patients)
    for place, name in enumerate(grouping.names):
        mask = grouping.mask(place)
        count = present(patient[mask], frame.patients)
        is_group = place < len(attribute.grouping.names)
        share = count / known if is_group and known else None
        yield Demographic(attribute.name, name, int(mask.sum()), count, share, target.get(attribute.name, {}).get(name))
