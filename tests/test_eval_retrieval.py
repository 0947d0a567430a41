from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score, ndcg_score

from nearcase.errors import InvalidInput
from nearcase_eval.estimate import State
from nearcase_eval.retrieval import average_precisions, mir_metrics, ndcg_at, precision_at, recall_at, retrieval
from nearcase_eval.sample import Floats

RANKINGS = arrays.arrays(np.float64, (3, 12), elements=st.sampled_from([0.0, 0.0, 1.0]))


def by_name(relevance: object, total: object, **options: object) -> dict[str, float | None]:
    found = retrieval(relevance, total, **options)  # type: ignore[arg-type]
    return {each.name: each.estimate.value for each in found}


def test_by_hand() -> None:
    found = by_name([[1, 0, 1, 0]], [3], cutoffs=(1, 3))
    assert found["precision@1"] == 1.0
    assert found["precision@3"] == pytest.approx(2 / 3)
    assert found["recall@3"] == pytest.approx(2 / 3)
    assert found["mAP"] == pytest.approx((1 + 2 / 3) / 3)
    assert found["ndcg@3"] == pytest.approx((1 + 0.5) / (1 + 1 / math.log2(3) + 0.5))


@given(RANKINGS)
def test_whole_rankings_are_scikit_learns(relevance: Floats) -> None:
    total = relevance.sum(axis=1)
    scores = np.arange(12, 0, -1.0)
    for row, count in zip(relevance, total, strict=True):
        if count == 0:
            continue
        one, counts = row[None, :], np.array([count])
        assert average_precisions(one, counts)[0] == pytest.approx(average_precision_score(row, scores))
        assert ndcg_at(one, counts, 5)[0] == pytest.approx(ndcg_score(one, scores[None, :], k=5))
        assert recall_at(one, counts, 12)[0] == 1.0


def test_graded_relevance_is_scikit_learns() -> None:
    grades, scores = np.array([[0.0, 3.0, 1.0, 2.0]]), np.array([[4.0, 3.0, 2.0, 1.0]])
    assert ndcg_at(grades, np.array([3.0]), 3)[0] == pytest.approx(ndcg_score(grades, scores, k=3))


def test_queries_without_relevant_cases_are_left_out_and_counted() -> None:
    found = {each.name: each for each in retrieval([[0, 0], [1, 0]], [0, 2], cutoffs=(2,))}
    assert (found["recall@2"].estimate.value, found["recall@2"].undefined) == (0.5, 1)
    assert (found["precision@2"].estimate.value, found["precision@2"].undefined) == (0.25, 0)
    assert retrieval([[0, 0]], [0], cutoffs=(1,))[-1].estimate.state is State.NOT_ESTIMABLE


def test_fewer_cases_found_than_asked_for() -> None:
    relevance = np.array([[1.0, np.nan, np.nan], [np.nan, np.nan, np.nan]])
    assert precision_at(relevance, 3)[0] == 1.0
    assert np.isnan(precision_at(relevance, 3)[1])
    assert recall_at(relevance, np.array([2.0, 2.0]), 3).tolist() == [0.5, 0.0]


@given(RANKINGS)
def test_mir_metrics_are_those_of_the_published_notebook(relevance: Floats) -> None:
    found = {each.name: each.estimate.value for each in mir_metrics(relevance)}
    first = relevance[:, :10]
    published = [average_precision_score(row, list(range(10))[::-1]) if row.any() else 0.0 for row in first]
    assert found["AP"] == pytest.approx(np.mean(published))
    for k in (3, 5, 10):
        assert found[f"P@{k}"] == pytest.approx(first[:, :k].mean())


def test_queries_of_one_patient_are_not_independent() -> None:
    rng = np.random.default_rng(1)
    relevance = np.repeat((rng.random((40, 5)) < 0.5).astype(float), 10, axis=0)
    patient = np.repeat(np.arange(40), 10)
    total = np.full(400, 20)
    by_patient = retrieval(relevance, total, cutoffs=(5,), patient=patient)[0].estimate
    by_query = retrieval(relevance, total, cutoffs=(5,))[0].estimate
    assert by_patient.se == pytest.approx((by_query.se or 0) * np.sqrt(10), rel=0.02)


def test_refuses_what_can_not_be() -> None:
    with pytest.raises(InvalidInput, match="1 queries found more"):
        retrieval([[1, 1]], [1], cutoffs=(1,))
    with pytest.raises(InvalidInput, match=r"cutoffs in 1\.\.2"):
        retrieval([[1, 1]], [2], cutoffs=(3,))
    with pytest.raises(InvalidInput, match="shape"):
        retrieval([1, 1], [2])
