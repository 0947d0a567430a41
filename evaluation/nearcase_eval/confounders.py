"""What age, sex and other columns predict without the image, beside the score, on the same patients.

A score that beats chance but not these columns may have learned the patients instead of the finding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearcase.errors import InvalidInput
from nearcase_eval.auroc import estimate_of
from nearcase_eval.clustered import area_of
from nearcase_eval.comparison import Difference, difference_of
from nearcase_eval.estimate import Estimate, not_estimable
from nearcase_eval.logistic import maximise
from nearcase_eval.sample import Floats, Ints, Sample, is_missing, one_axis, same_length, sample_of

RIDGE = 1.0
"""Penalty on each standardised coefficient: a rare category must not run away; far too small to matter elsewhere."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The AUROC of columns alone, cross-validated by patient."""

    columns: tuple[str, ...]
    auroc: Estimate
    score_minus_baseline: Difference | None  # paired on the same rows; None when the baseline is not estimable


def baselines(
    y_true: ArrayLike,
    y_score: ArrayLike,
    columns: Mapping[str, ArrayLike],
    *,
    patient: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Baseline, ...]:
    """Returns one baseline for each column and, for two or more, one for all of them together.

    A column of floats or integers enters with its square (risk need not rise with age), any other as categories; what
    is missing is a category of its own. Rows are predicted by a logistic regression on the patients of other folds.
    The intervals take the predictions as given.

    Raises:
        InvalidInput: There are no columns, fewer than two folds, or the arrays do not fit.
    """
    if not columns or folds < 2:
        raise InvalidInput(f"expected a column and two folds, got {len(columns)} and {folds}", field="columns")
    data = sample_of(y_true, y_score, patient)
    designs = {name: design_of(name, values, data.n) for name, values in columns.items()}
    choices: list[tuple[str, ...]] = [(name,) for name in designs]
    choices += [tuple(designs)] if len(designs) > 1 else []
    fold = patient_folds(data, folds, seed)
    return tuple(_baseline(data, names, np.hstack([designs[name] for name in names]), fold, level) for names in choices)


def design_of(name: str, values: ArrayLike, n: int) -> Floats:
    """Returns the columns of a design matrix, (N, C), standardised.

    Raises:
        InvalidInput: There are not n values.
    """
    column = one_axis(values, name)
    same_length(n, column.size, name)
    if n == 0:
        return np.zeros((0, 1))
    parts = _numeric(column.astype(np.float64)) if column.dtype.kind in "fiu" else _categories(column)
    spread = parts.std(axis=0)
    found: Floats = (parts - parts.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    return found


def patient_folds(data: Sample, folds: int, seed: int) -> Ints:
    """Returns the fold of each row, (N,): all rows of a patient in one, patients with positives spread evenly."""
    has_positive = np.zeros(data.patients, dtype=np.bool_)
    has_positive[data.patient[data.truth]] = True
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.flatnonzero(has_positive == kind)) for kind in (True, False)])
    fold = np.empty(data.patients, dtype=np.int64)
    fold[order] = np.arange(order.size) % folds
    found: Ints = fold[data.patient]
    return found


def _numeric(column: Floats) -> Floats:
    known = np.isfinite(column)
    center = float(column[known].mean()) if known.any() else 0.0
    scale = float(column[known].std()) or 1.0 if known.any() else 1.0
    level = np.where(known, (column - center) / scale, 0.0)
    return np.column_stack([level, level**2, ~known])


def _categories(column: NDArray[Any]) -> Floats:
    words = np.array(["" if is_missing(each) else str(each).strip() for each in column])
    found: Floats = (words[:, None] == np.unique(words)[None, :]).astype(np.float64)
    return found


def _baseline(data: Sample, names: tuple[str, ...], design: Floats, fold: Ints, level: float) -> Baseline:
    predicted = _cross_validated(data, design, fold)
    title = " and ".join(names)
    score, alone = area_of(data), None if predicted is None else area_of(replace(data, score=predicted))
    if score is None or alone is None or not math.isfinite(alone.value):
        reason = "too few patients of a class for cross-validation"
        patients = data.patients_among()
        return Baseline(names, not_estimable(reason, n=data.n, patients=patients, method="AUROC", level=level), None)
    estimate = estimate_of(alone, level=level)
    estimate = replace(estimate, method=f"cross-validated by patient, {estimate.method}")
    return Baseline(names, estimate, difference_of("score", score, title, alone, level=level))


def _cross_validated(data: Sample, design: Floats, fold: Ints) -> Floats | None:
    """Returns the log odds of each row without the intercept, (N,).

    A held-out fold with more positives leaves fewer to the others, whose intercept is then lower: with it, columns that
    say nothing would come out below 0.5.
    """
    found = np.empty(data.n)
    ridge = np.append(0.0, np.full(design.shape[1], RIDGE))
    for each in np.unique(fold):
        held, rest = fold == each, fold != each
        if not 0 < np.count_nonzero(data.truth[rest]) < np.count_nonzero(rest):
            return None
        fitted = maximise(np.column_stack([np.ones(rest.sum()), design[rest]]), data.truth[rest], ridge=ridge)
        if fitted is None:
            return None
        found[held] = design[held] @ fitted[0][1:]
    return found
