"""CPU time of one patient-bootstrap replicate of every group's AUROC: nearcase_eval beside fairlearn's MetricFrame.

One run, the same rows, the same groups, CPU seconds of the whole process (time.process_time, so that neither a busy
machine nor a second thread helps). A MetricFrame replicate is what its `n_boot` does: draw rows, compute the frame
again. Ours includes drawing the patients; sorting is done once and is printed apart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from fairlearn.metrics import MetricFrame
from sklearn.metrics import roc_auc_score

from nearcase_eval.bootstrap import bootstrap_areas
from nearcase_eval.groups import Grouping
from nearcase_eval.sample import Sample, sample_of
from nearcase_eval.weighted_pass import Segment, has_numba, segment_of, weighted_areas


@dataclass(frozen=True, slots=True)
class Result:
    """What this script found; seconds are CPU."""

    rows: int
    patients: int
    groups: int
    sort_once_s: float
    numpy_replicate_s: float
    numba_replicate_s: float | None  # None without numba
    metricframe_replicate_s: float
    numpy_ratio: float
    numba_ratio: float | None
    largest_difference: float  # of a group's AUROC between ours and MetricFrame, on the data themselves


def cohort(rows: int, groups: int) -> tuple[Sample, Grouping]:
    """Synthetic rows: 2.8 images a patient, scores with ties, groups of unequal size."""
    rng = np.random.default_rng(7)
    patient = rng.integers(0, max(1, int(rows / 2.8)), size=rows)
    truth = rng.random(rows) < 0.1
    score = np.round(rng.normal(size=rows) + truth, 3)
    share = np.arange(1, groups + 1) / np.arange(1, groups + 1).sum()
    codes = rng.choice(groups, size=rows, p=share).astype(np.int64)
    names = tuple(f"group {index}" for index in range(groups))
    return sample_of(truth, score, patient), Grouping("group", names, codes)


def cpu_s(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def replicate_s(segments: list[Segment], patients: int, replicates: int, *, compiled: bool) -> float:
    """CPU seconds of one replicate of all segments, after a first call that loads and compiles."""
    bootstrap_areas(segments, patients, replicates=1, seed=0, compiled=compiled)
    work = cpu_s(lambda: bootstrap_areas(segments, patients, replicates=replicates, seed=1, compiled=compiled), 1)
    return work / replicates


def metricframe(data: Sample, grouping: Grouping, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> MetricFrame:
    """The AUROC of the rows by group."""
    return MetricFrame(
        metrics=roc_auc_score,
        y_true=data.truth[rows],
        y_pred=data.score[rows],
        sensitive_features=grouping.codes[rows],
    )


def measure(rows: int, groups: int, replicates: int, frames: int) -> Result:
    """Runs the three beside each other."""
    data, grouping = cohort(rows, groups)
    masks = [grouping.mask(index) for index in range(groups)]
    sort_s = cpu_s(lambda: [segment_of(data), *(segment_of(data, mask) for mask in masks)], 1)
    segments = [segment_of(data), *(segment_of(data, mask) for mask in masks)]
    rng = np.random.default_rng(1)
    frame_s = cpu_s(lambda: metricframe(data, grouping, rng.integers(rows, size=rows)), frames)
    numpy_s = replicate_s(segments, data.patients, replicates, compiled=False)
    numba_s = replicate_s(segments, data.patients, replicates, compiled=True) if has_numba() else None
    theirs = metricframe(data, grouping, np.arange(rows)).by_group
    ours = [roc_of(part, data.patients) for part in segments[1:]]
    return Result(
        rows,
        data.patients,
        groups,
        sort_s,
        numpy_s,
        numba_s,
        frame_s,
        frame_s / numpy_s,
        frame_s / numba_s if numba_s else None,
        max(abs(value - float(theirs[index])) for index, value in enumerate(ours)),
    )


def roc_of(part: Segment, patients: int) -> float:
    """The AUROC of a segment when every patient is drawn once."""
    return float(weighted_areas([part], np.ones((patients, 1), dtype=np.uint8))[0, 0])


def show(found: Result) -> None:
    """Prints the table."""
    print(f"{found.rows:,} rows, {found.patients:,} patients, {found.groups} groups and the whole; CPU seconds")
    print(f"  sort, once                          {found.sort_once_s:.4f}")
    print(f"  MetricFrame, per replicate          {found.metricframe_replicate_s:.4f}")
    print(f"  nearcase, NumPy, per replicate      {found.numpy_replicate_s:.6f}   {found.numpy_ratio:,.0f} times less")
    if found.numba_replicate_s is not None and found.numba_ratio is not None:
        seconds, ratio = found.numba_replicate_s, found.numba_ratio
        print(f"  nearcase, numba, per replicate      {seconds:.6f}   {ratio:,.0f} times less")
    print(f"  largest difference of a group's AUROC: {found.largest_difference:.1e}")


def main() -> None:
    """Measures, prints and, when asked to, writes JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--replicates", type=int, default=500, help="of ours")
    parser.add_argument("--frames", type=int, default=5, help="replicates of MetricFrame")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = measure(options.rows, options.groups, options.replicates, options.frames)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(asdict(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
