"""What a run's own files say was measured: scores.csv, retrieval.json and the audit's report.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearcase.errors import InvalidInput
from nearcase_eval.ages import ages_of
from nearcase_eval.audit.as_json import read_report
from nearcase_eval.auroc import auroc
from nearcase_eval.groups import by_sex
from nearcase_eval.run import NEIGHBOURS, PROBE
from nearcase_eval.table import Row, read_rows

SCORES, RETRIEVAL, REPORT = "scores.csv", "retrieval.json", "audit/report.json"
SCORERS = {NEIGHBOURS: "vote of the neighbours", PROBE: "linear probe"}
TRUTH = "y_"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number with what it rests on; value is None where it could not be estimated or is hidden."""

    finding: str
    metric: str
    group: str  # empty: all test rows
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    patients: int | None
    remark: str  # state and reason, verdict
    file: str  # of the run


@dataclass(frozen=True, slots=True)
class Counts:
    """What the run's queries are."""

    images: int
    patients: int
    with_age: int
    with_sex: int
    findings: Mapping[str, tuple[int, int]]  # positives, images whose outcome is known


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run; what is absent was not measured."""

    rows: Sequence[Row]
    findings: tuple[str, ...]
    retrieval: Mapping[str, Mapping[str, Mapping[str, Any]]]
    report: Mapping[str, Any]


def read_run(folder: Path) -> RunFiles:
    """Returns the files of a run of `nearcase-eval run`.

    Raises:
        InvalidInput: There is no scores.csv of such a run, or a file is damaged.
    """
    rows = read_rows(folder / SCORES)
    names = list(rows[0]) if rows else []
    findings = tuple(name.removeprefix(TRUTH) for name in names if name.startswith(TRUTH))
    missing = [f"{prefix}{name}" for name in findings for prefix in SCORERS if f"{prefix}{name}" not in names]
    if not findings or missing or "patient_id" not in names:
        raise InvalidInput(f"{SCORES}: expected the columns of nearcase-eval run, got {', '.join(names[:12])}")
    report = folder / REPORT
    return RunFiles(rows, findings, _retrieval(folder / RETRIEVAL), read_report(report) if report.is_file() else {})


def _retrieval(path: Path) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
        return {name: dict(metrics) for name, metrics in found.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(f"{path.name}: expected the file of nearcase-eval run: {error}") from error


def counts(run: RunFiles) -> Counts:
    """Returns how many images, patients, ages, sexes and outcomes there are."""
    known = {name: [row[f"{TRUTH}{name}"] for row in run.rows if row[f"{TRUTH}{name}"]] for name in run.findings}
    return Counts(
        images=len(run.rows),
        patients=len({row["patient_id"] for row in run.rows}),
        with_age=int(np.isfinite(ages_of([row.get("age", "") for row in run.rows]).years).sum()),
        with_sex=len(run.rows) - by_sex([row.get("sex", "") for row in run.rows]).missing,
        findings={name: (values.count("1"), len(values)) for name, values in known.items()},
    )


def areas(run: RunFiles) -> Iterator[Measurement]:
    """Yields the AUROC of each finding by each scorer, computed from the scores here, clustered by patient."""
    for finding in run.findings:
        for prefix, scorer in SCORERS.items():
            rows = [row for row in run.rows if row[f"{TRUTH}{finding}"] and row[f"{prefix}{finding}"]]
            truth = [row[f"{TRUTH}{finding}"] == "1" for row in rows]
            score = np.array([_number(row[f"{prefix}{finding}"]) for row in rows])
            found = auroc(truth, score, patient=[row["patient_id"] for row in rows])
            remark = f"{scorer}; {found.method}" + (f"; {found.state.value}: {found.reason}" if found.reason else "")
            yield Measurement(
                finding, "AUROC", "", found.value, found.low, found.high, found.n, found.patients, remark, SCORES
            )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInput(f"{SCORES}: expected numbers as scores, got {text[:20]!r}") from error


def retrieved(run: RunFiles) -> Iterator[Measurement]:
    """Yields the retrieval metrics."""
    for finding, metrics in run.retrieval.items():
        for name, found in metrics.items():
            yield _measurement(finding, name, "", found, "mean over queries", RETRIEVAL)


def overall(run: RunFiles) -> Iterator[Measurement]:
    """Yields AUPRC, partial AUROC and calibration of the audit."""
    for each in run.report.get("overall", ()):
        for metric in ("auprc", "partial_auroc", "prevalence"):
            yield _measurement(each["finding"], metric, "", each[metric], "", REPORT)
        for metric in ("slope", "in_the_large", "ece_mass", "brier"):
            if each["calibration"]:
                yield _measurement(
                    each["finding"], f"calibration: {metric}", "", each["calibration"][metric], "", REPORT
                )


def points(run: RunFiles) -> Iterator[Measurement]:
    """Yields sensitivity and specificity of each operating point that the audit tested."""
    for each in run.report.get("points", ()):
        threshold = each["threshold"]["value"]
        remark = f"{each['rule']}, threshold {threshold}, chosen on {each['chosen_on']}"
        for metric in ("sensitivity", "specificity"):
            if each[metric] is not None:
                yield _measurement(each["finding"], metric, "", each[metric], remark, REPORT)


def groups(run: RunFiles, *, crossed: bool) -> Iterator[Measurement]:
    """Yields the AUROC of each group, of single attributes or of crossed ones; once, as no threshold matters."""
    seen: set[tuple[str, str]] = set()
    for table in run.report.get("groups", ()):
        key = (table["finding"], table["attribute"])
        if (" x " in table["attribute"]) is crossed and key not in seen:
            seen.add(key)
            for group in table["groups"]:
                if group["n"] or group["state"] == "suppressed":
                    name = f"{table['attribute']}: {group['name']}"
                    yield _measurement(table["finding"], "AUROC", name, group["auroc"], "", REPORT)


def gaps(run: RunFiles) -> Iterator[Measurement]:
    """Yields the largest gap of each attribute and metric, with the verdict."""
    for each in run.report.get("gaps", ()):
        largest = each["gaps"]["largest"]
        between = f"{each['attribute']}: {largest['first']} − {largest['second']}" if largest["first"] else ""
        tolerance = "" if largest["tolerance"] is None else f" against a tolerance of {largest['tolerance']:g}"
        remark = f"{largest['verdict']}{tolerance}" + (f"; {each['rule']}" if each["rule"] else "")
        metric = f"largest gap of {each['metric']}"
        group = between or each["attribute"]
        yield _measurement(each["finding"], metric, group, largest["estimate"], remark, REPORT)


def confounders(run: RunFiles) -> Iterator[Measurement]:
    """Yields what columns such as age and sex predict without the image."""
    for each in run.report.get("confounders", ()):
        for row in each["baselines"]:
            yield _measurement(
                each["finding"], f"AUROC of {' and '.join(row['columns'])} alone", "", row["auroc"], "", REPORT
            )


def _measurement(
    finding: str, metric: str, group: str, found: Mapping[str, Any], remark: str, file: str
) -> Measurement:
    reason = found.get("reason") or ""
    state = found.get("state", "ok")
    remarks = "; ".join(each for each in (remark, f"{state}: {reason}" if state != "ok" else reason) if each)
    value, low, high = (found.get(key) for key in ("value", "low", "high"))
    return Measurement(finding, metric, group, value, low, high, found.get("n"), found.get("patients"), remarks, file)
