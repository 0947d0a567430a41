"""What a fairness audit costs: CPU of a bootstrap replicate beside MetricFrame, and a whole audit of a large table.

Three measurements in one run. First that of bootstrap.py. Then `nearcase-audit run` as a user starts it, on a file with
`--rows` rows and `--labels` findings, sex, age, sex x age and three operating points, without resampling: wall time,
CPU time and peak memory of the process. Last the patient bootstrap of the AUROCs of that table (all rows, and eight
groups of sex x age), with the patients drawn once for all findings.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import bootstrap
import numpy as np

from nearcase_eval.bootstrap import patient_weights
from nearcase_eval.sample import Sample
from nearcase_eval.weighted_pass import Segment, segment_of, weighted_areas

COMMAND = "from nearcase_eval.audit_cli import main; main()"
POINTS = ("threshold=0.3", "threshold=0.5", "threshold=0.7")
EDGES = (40, 60, 80)
"""Four ages x two sexes: the eight groups of the comparison with MetricFrame."""


@dataclass(frozen=True, slots=True)
class Audit:
    """A whole run of the command."""

    rows: int
    labels: int
    file: str
    first_output_s: float
    wall_s: float
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True, slots=True)
class Replicates:
    """The patient bootstrap of every AUROC."""

    rows: int
    labels: int
    aurocs: int
    replicates: int
    wall_s: float
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True, slots=True)
class Result:
    """What this script found."""

    replicate: bootstrap.Result
    audit: Audit
    bootstrap: Replicates


def columns(rows: int, labels: int) -> dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]]:
    """Synthetic rows, two of each patient."""
    rng = np.random.default_rng(7)
    patient = rng.permutation(rows) // 2
    found: dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]] = {
        "patient_id": patient,
        "sex": np.array(["F", "M"])[rng.integers(2, size=patient.max() + 1)][patient],
        "age": rng.integers(5, 95, size=patient.max() + 1)[patient],
    }
    for label in range(labels):
        truth = rng.random(rows) < 0.1
        found[f"label_{label}"] = truth.astype(np.int8)
        found[f"score_{label}"] = 1.0 / (1.0 + np.exp(-(rng.normal(size=rows) + 1.5 * truth - 1.5)))
    return found


def write_table(folder: Path, rows: int, labels: int) -> Path:
    """Writes Parquet when pyarrow is installed, else CSV."""
    found = columns(rows, labels)
    if importlib.util.find_spec("pyarrow"):
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(found), folder / "scores.parquet")
        return folder / "scores.parquet"
    lines = zip(*(column.tolist() for column in found.values()), strict=True)
    with (folder / "scores.csv").open("w", encoding="utf-8") as stream:
        stream.write(",".join(found) + "\n")
        stream.writelines(",".join(map(str, line)) + "\n" for line in lines)
    return folder / "scores.csv"


def run_audit(rows: int, labels: int) -> Audit:
    """Runs the command in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        table = write_table(Path(name), rows, labels)
        arguments = ["run", str(table), "--cross", "sex,age", "--boot", "0", "--out", str(Path(name) / "out")]
        arguments += [part for point in POINTS for part in ("--op", point)]
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        if process.stderr is None:
            raise ValueError("expected a process with a pipe for its messages")
        said = process.stderr.readline()
        first_s = time.monotonic() - start
        said += process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode == 2:
            raise SystemExit(said)
        cpu_s = usage.ru_utime + usage.ru_stime
        return Audit(rows, labels, table.suffix[1:], first_s, wall_s, cpu_s, usage.ru_maxrss / 1024)


def segments_of(rows: int, labels: int) -> tuple[list[Segment], int]:
    """All rows and the eight groups of sex x age of every finding, sorted."""
    found = columns(rows, labels)
    patient = found["patient_id"].astype(np.int64)
    sex, age = found["sex"] == "F", np.searchsorted(EDGES, found["age"].astype(np.int64), side="right")
    masks = [np.ones(rows, dtype=np.bool_)]
    masks += [mask & (age == place) for mask in (sex, ~sex) for place in range(len(EDGES) + 1)]
    patients = int(patient.max()) + 1
    segments = []
    for label in range(labels):
        truth, score = found[f"label_{label}"] == 1, found[f"score_{label}"].astype(np.float64)
        data = Sample(truth, score, patient, patients)
        segments += [segment_of(data, mask) for mask in masks]
    return segments, patients


def run_bootstrap(rows: int, labels: int, replicates: int) -> Replicates:
    """Draws the patients and computes every AUROC, after a first small call that loads and compiles."""
    segments, patients = segments_of(rows, labels)
    weighted_areas(segments[:1], np.ones((patients, 1), dtype=np.uint8), compiled=None)
    start, cpu = time.monotonic(), time.process_time()
    for weights in patient_weights(patients, replicates, seed=1):
        weighted_areas(segments, weights)
    wall_s, cpu_s = time.monotonic() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Replicates(rows, labels, len(segments), replicates, wall_s, cpu_s, peak)


def show(found: Result) -> None:
    """Prints the tables."""
    bootstrap.show(found.replicate)
    audit, drawn = found.audit, found.bootstrap
    print(f"\nnearcase-audit run, {audit.rows:,} rows x {audit.labels} findings ({audit.file}), nothing resampled")
    print(f"  first output                        {audit.first_output_s:.2f} s")
    print(f"  whole run                           {audit.wall_s:.1f} s   ({audit.cpu_s:.1f} CPU s)")
    print(f"  peak memory                         {audit.peak_mib:,.0f} MiB")
    print(f"\npatient bootstrap, {drawn.replicates:,} replicates of {drawn.aurocs} AUROCs, {drawn.rows:,} rows")
    print(f"  all replicates                      {drawn.wall_s:.1f} s   ({drawn.cpu_s:.1f} CPU s)")
    print(f"  peak memory                         {drawn.peak_mib:,.0f} MiB")


def main() -> None:
    """Measures, prints and, when asked to, writes JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the audit and the bootstrap")
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--frame-rows", type=int, default=100_000, help="rows of the comparison with MetricFrame")
    parser.add_argument("--frames", type=int, default=5, help="replicates of MetricFrame")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    audit = run_audit(options.rows, options.labels)
    drawn = run_bootstrap(options.rows, options.labels, options.replicates)
    frame = bootstrap.measure(options.frame_rows, 8, min(500, options.replicates), options.frames)
    found = Result(frame, audit, drawn)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(asdict(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
