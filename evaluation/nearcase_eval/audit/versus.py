"""Section 9: this score against another on the same rows, over all and in every group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nearcase_eval.audit.attributes import Attribute
from nearcase_eval.audit.frame import Frame, Outcome
from nearcase_eval.audit.plan import Plan
from nearcase_eval.audit.report import Versus
from nearcase_eval.comparison import compare
from nearcase_eval.estimate import State
from nearcase_eval.sample import Bools


def versus_of(frame: Frame, outcome: Outcome, attributes: Sequence[Attribute], plan: Plan) -> Iterator[Versus]:
    """Yields the comparisons of one finding; groups with too few patients are left out, as they are in the gaps."""
    if outcome.compared is None:
        return
    rows = frame.usable(outcome, frame.test, compared=True)
    if found := _one(frame, outcome, rows, "", "all test rows", plan):
        yield found
    for attribute in attributes:
        grouping = attribute.among(np.ones(int(frame.test.sum()), dtype=np.bool_))
        for place, name in enumerate(grouping.names):
            mask = np.zeros(frame.n, dtype=np.bool_)
            mask[frame.test] = grouping.mask(place)
            if found := _one(frame, outcome, rows & mask, attribute.name, name, plan):
                yield found


def _one(frame: Frame, outcome: Outcome, rows: Bools, attribute: str, group: str, plan: Plan) -> Versus | None:
    data = frame.sample(outcome, rows)
    positive, negative = data.patients_among(data.truth), data.patients_among(~data.truth)
    if plan.minimum.assess(positive, negative)[0] is State.NOT_ESTIMABLE or outcome.compared is None:
        return None
    first, second = outcome.finding.score, str(outcome.finding.compared)
    scores = {first: data.score, second: outcome.compared[rows]}
    found = compare(data.truth, scores, patient=data.patient, level=plan.level)
    difference = found.differences[0]
    noninferior = None if plan.margin is None else difference.is_noninferior(plan.margin)
    if difference.identical and plan.margin is not None:
        noninferior = True
    name = outcome.finding.name
    return Versus(name, attribute, group, found.areas[0], found.areas[1], difference, plan.margin, noninferior)
