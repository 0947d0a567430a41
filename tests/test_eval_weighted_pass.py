from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from strategies_eval import samples

from nearcase_eval.sample import Bools, Floats, Ints, sample_of
from nearcase_eval.weighted_pass import CHUNK_CELLS, has_numba, segment_of, weighted_areas


@given(samples(), st.integers(0, 2**32 - 1))
def test_equals_scikit_learn_with_sample_weights(sample: tuple[Bools, Floats, Ints], seed: int) -> None:
    truth, score, patient = sample
    data = sample_of(truth, score, patient)
    weights = np.random.default_rng(seed).integers(0, 4, size=(data.patients, 3), dtype=np.uint8)
    found = weighted_areas([segment_of(data)], weights, compiled=False)[0]
    for column in range(3):
        weight = weights[data.patient, column].astype(float)
        if weight[truth].sum() == 0 or weight[~truth].sum() == 0:
            assert np.isnan(found[column])
        else:
            assert found[column] == pytest.approx(roc_auc_score(truth, score, sample_weight=weight), abs=1e-12)


@pytest.mark.skipif(not has_numba(), reason="numba, the optional accelerator, is not installed")
@given(samples(both=False), st.integers(0, 2**32 - 1))
def test_numba_gives_the_same_bits_as_numpy(sample: tuple[Bools, Floats, Ints], seed: int) -> None:
    truth, score, patient = sample
    data = sample_of(truth, score, patient)
    weights = np.random.default_rng(seed).integers(0, 256, size=(data.patients, 5), dtype=np.uint8)
    segments = [segment_of(data), segment_of(data, data.patient % 2 == 0), segment_of(data, data.patient < 0)]
    slow, fast = (weighted_areas(segments, weights, compiled=choice) for choice in (False, True))
    assert slow.tobytes() == fast.tobytes()


@pytest.mark.skipif(not has_numba(), reason="numba, the optional accelerator, is not installed")
def test_same_bits_when_the_numpy_path_works_in_chunks() -> None:
    rng = np.random.default_rng(1)
    n = 100_000
    data = sample_of(rng.random(n) < 0.1, np.round(rng.normal(size=n), 2), rng.integers(0, 30_000, size=n))
    weights = rng.poisson(1.0, size=(data.patients, 60)).astype(np.uint8)
    assert n * 60 > CHUNK_CELLS
    slow, fast = (weighted_areas([segment_of(data)], weights, compiled=choice) for choice in (False, True))
    assert slow.tobytes() == fast.tobytes()


def test_groups_without_rows_or_segments() -> None:
    data = sample_of([0, 1], [1.0, 2.0])
    weights = np.ones((2, 4), dtype=np.uint8)
    assert weighted_areas([], weights).shape == (0, 4)
    assert np.isnan(weighted_areas([segment_of(data, np.zeros(2, dtype=bool))], weights)).all()
