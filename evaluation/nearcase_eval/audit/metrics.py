"""Any scikit-learn-style metric by its dotted name, in every group: fairlearn's value, our interval over patients."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput, Unready
from nearcase_eval.audit.attributes import Attribute
from nearcase_eval.audit.frame import Frame, Outcome
from nearcase_eval.audit.plan import Plan
from nearcase_eval.audit.report import MetricRow, Point
from nearcase_eval.bootstrap import bootstrap_metric
from nearcase_eval.estimate import Estimate, State, not_estimable
from nearcase_eval.sample import Bools, Floats, Sample

REPLICATES = 1000
REFUSED = "the metric refused the rows"
CALLED = ":called"
"""After the name: the metric takes calls (0 or 1 at the first operating point) instead of scores."""

Metric = Callable[..., float]


def metric_of(name: str) -> Metric:
    """Returns the function metric(y_true, y_score) that a dotted name such as sklearn.metrics.brier_score_loss names.

    Raises:
        InvalidInput: There is no such function.
    """
    module, _, function = name.removesuffix(CALLED).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError):
        raise InvalidInput(f"--metric: there is no function {name!r} to import", field="metric") from None
    if not callable(found):
        raise InvalidInput(f"--metric: expected a function, {name!r} is none", field="metric")
    return found  # type: ignore[no-any-return]


def metrics_of(
    frame: Frame, outcome: Outcome, attributes: Sequence[Attribute], points: Sequence[Point], plan: Plan
) -> Iterator[MetricRow]:
    """Yields the metrics of one finding: over all test rows, then in each group with enough patients."""
    rows = frame.usable(outcome, frame.test)
    data = frame.sample(outcome, rows)
    for name in plan.metrics:
        metric = metric_of(name)
        values = _values(name, data, points)
        overall = _estimate(metric, data, values, plan)
        if overall.reason.startswith(REFUSED):
            raise InvalidInput(_hint(name, overall.reason), field="metric")
        yield MetricRow(outcome.finding.name, name, "", "all test rows", overall)
        for attribute in attributes:
            grouping = attribute.among(rows[frame.test])
            words = np.array([*grouping.names, ""], dtype=object)[grouping.codes]
            places = [place for place in range(len(grouping.names)) if _enough(data, grouping.mask(place), plan)]
            by_group = _by_group(name, data, values, words, [grouping.names[place] for place in places])
            for place in places:
                mask = grouping.mask(place)
                found = _estimate(metric, data.rows(mask), values[mask], plan)
                group = grouping.names[place]
                if found.value is not None and not np.isclose(found.value, by_group[group], rtol=1e-9, atol=1e-12):
                    raise InvalidInput(f"--metric: {name!r} gives two answers for the same rows", field="metric")
                yield MetricRow(outcome.finding.name, name, attribute.name, group, found)


def _values(name: str, data: Sample, points: Sequence[Point]) -> Floats:
    if not name.endswith(CALLED):
        return data.score
    thresholds = [point.threshold.value for point in points if point.threshold.value is not None]
    if not thresholds:
        raise InvalidInput(f"--metric: {name!r} needs an operating point, none could be chosen", field="metric")
    return (data.score >= thresholds[0]).astype(np.float64)


def _enough(data: Sample, mask: Bools, plan: Plan) -> bool:
    positive, negative = data.patients_among(mask & data.truth), data.patients_among(mask & ~data.truth)
    return plan.minimum.assess(positive, negative)[0] is not State.NOT_ESTIMABLE


def _hint(name: str, reason: str) -> str:
    if name.endswith(CALLED):
        return f"--metric: {name!r}: {reason}"
    return f"--metric: {name!r}: {reason}; a metric of calls, not scores, is named {name + CALLED!r}"


def _by_group(
    name: str, data: Sample, values: Floats, words: NDArray[np.object_], names: Sequence[str]
) -> dict[str, float]:
    """Returns fairlearn's MetricFrame over the groups that can be estimated: it must not see the others."""
    if not names:
        return {}
    try:
        from fairlearn.metrics import MetricFrame
    except ModuleNotFoundError:
        raise Unready("--metric needs fairlearn: pip install 'nearcase[evaluation]'") from None
    kept = np.isin(words, np.array(names, dtype=object))
    try:
        found = MetricFrame(
            metrics=metric_of(name),
            y_true=data.truth[kept].astype(np.int64),
            y_pred=values[kept],
            sensitive_features=words[kept].astype(str),
        ).by_group
    except Exception as error:  # whatever a function that we do not know raises
        raise InvalidInput(_hint(name, _said(error)), field="metric") from error
    return {name: float(found[name]) for name in names}


def _estimate(metric: Metric, data: Sample, values: Floats, plan: Plan) -> Estimate:
    truth, patients = data.truth.astype(np.int64), data.patients_among()
    try:
        return bootstrap_metric(
            metric,
            truth,
            values,
            patient=data.patient,
            replicates=min(REPLICATES, plan.replicates),
            seed=plan.seed,
            level=plan.level,
        )
    except Exception as error:  # whatever a function that we do not know raises
        return not_estimable(_said(error), n=data.n, patients=patients, method="named metric", level=plan.level)


def _said(error: Exception) -> str:
    return f"{REFUSED} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
