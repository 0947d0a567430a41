"""Scorers against the published formula by brute force, and against the libraries that train the heads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nearcase.decide.array import Array
from nearcase.decide.finding import Finding, Scorer
from nearcase.decide.fitted import Residuals
from nearcase.decide.neighbours import Prior, in_order, strength, tally, weigh
from nearcase.decide.probe import Layer, Probe
from nearcase.decide.prompt import PromptHead, prompt_head
from nearcase.decide.regress import regress
from nearcase.decide.scorers import Measured, measure, mix, score
from nearcase.errors import InvalidInput, Unready
from nearcase.types import Measurement

VALUES = ("0", "1", "2")
SCALES = ((), (("0", 0.25), ("1", 3.0)))

Floats = NDArray[np.float64]


def published(
    cosines: Floats, values: list[str], k: int, classes: dict[str, float], *, weighted: bool = True
) -> dict[str, float]:
    """softmax(100 cos) over ALL references, top K, sum by class, times class weight, L1; the denominator is kept."""
    logits = 100.0 * cosines
    masses = np.exp(logits - logits.max())
    softmax = masses / masses.sum()
    top = np.argsort(-cosines, kind="stable")[:k]
    sums = dict.fromkeys(VALUES, 0.0)
    for at in top:
        sums[values[at]] += softmax[at] if weighted else 1.0
    scaled = {value: total * classes.get(value, 1.0) for value, total in sums.items()}
    total = sum(scaled.values())
    return {value: each / total for value, each in scaled.items()}


def reference_set(seed: int, tied: bool, n: int = 300) -> tuple[Floats, list[str], list[Prior]]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = rng.normal(size=8)
    cosines = vectors @ (query / np.linalg.norm(query))
    cosines = np.round(cosines, 1) if tied else cosines
    values = [VALUES[at] for at in rng.integers(0, 3, n)]
    priors = [Prior(f"{at:04}", float(cosine), values[at]) for at, cosine in enumerate(cosines)]
    return cosines, values, priors


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("classes", SCALES)
@pytest.mark.parametrize("weighted", [True, False])
def test_shares_are_those_of_the_published_formula(
    seed: int, tied: bool, classes: tuple[tuple[str, float], ...], weighted: bool
) -> None:
    cosines, values, priors = reference_set(seed, tied)
    for k in (1, 10, 64):
        scorer = Scorer(k=k, is_weighted=weighted, class_weights=classes)
        nearest = sorted(priors, key=in_order)[:k]
        found = dict(tally(nearest, weigh(nearest, scorer)))
        expected = published(cosines, values, k, dict(classes), weighted=weighted)
        assert found == pytest.approx({value: expected[value] for value in found}, abs=1e-6)
        assert sum(found.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tied", [False, True])
def test_mass_of_the_whole_softmax_lies_within_its_bounds(seed: int, tied: bool) -> None:
    cosines, values, priors = reference_set(seed, tied)
    masses = np.exp(100.0 * (cosines - cosines.max()))
    positives = np.array([value == "1" for value in values])
    nearest = sorted(priors, key=in_order)[:10]
    top = masses[np.argsort(-cosines, kind="stable")[:10]].sum() / masses.sum()
    for is_exact in (True, False):
        found = strength(nearest, 100.0, len(priors), {"1"}, is_exact=is_exact)
        assert found.in_evidence.low <= top + 1e-12
        assert top <= found.in_evidence.high + 1e-12
        assert found.on_positives.low - 1e-12 <= masses[positives].sum() / masses.sum()
        assert masses[positives].sum() / masses.sum() <= found.on_positives.high + 1e-12


def test_mass_of_an_approximate_search_allows_for_a_nearer_case_that_was_missed() -> None:
    seen = [Prior("a", 0.5, "1"), Prior("b", 0.4, "0")]
    masses = np.exp(100.0 * (np.array([0.5, 0.4, 0.6]) - 0.6))  # the nearest of the three was missed
    top, positive = masses[:2].sum() / masses.sum(), masses[0] / masses.sum()
    exact = strength(seen, 100.0, 3, {"1"}, is_exact=True)
    approximate = strength(seen, 100.0, 3, {"1"}, is_exact=False)
    assert exact.in_evidence.low > top  # so the exact bound would lie
    assert approximate.in_evidence.low <= top
    assert approximate.on_positives.low <= positive <= approximate.on_positives.high


def test_all_mass_is_known_when_every_case_was_weighed() -> None:
    seen = [Prior("a", 0.5, "1"), Prior("b", 0.499, "0")]
    found = strength(seen, 100.0, 2, {"1"}, is_exact=True)
    assert (found.in_evidence.low, found.in_evidence.high) == (1.0, 1.0)
    assert found.on_positives.low == found.on_positives.high == pytest.approx(1 / (1 + np.exp(-0.1)))


def test_similarities_far_apart_neither_overflow_nor_vanish() -> None:
    seen = [Prior("a", 1.0, "1"), Prior("b", -1.0, "0")]
    assert weigh(seen, Scorer(temperature=1e4)) == (1.0, 0.0)
    strength(seen, 1e4, 10**7, {"1"}, is_exact=False)


def test_ties_are_ordered_by_case_id() -> None:
    seen = [Prior(name, 0.9, value) for name, value in (("b", "0"), ("c", "0"), ("a", "1"))]
    assert [prior.case_id for prior in sorted(seen, key=in_order)] == ["a", "b", "c"]


# Heads on the embedding


def embeddings(seed: int, n: int = 60, dimension: int = 6) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(n, dimension))
    unit: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


def test_a_logistic_probe_is_that_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="the extra evaluation is not installed")
    vectors = embeddings(0)
    truth = (vectors[:, 0] + 0.2 * vectors[:, 1] > 0).astype(int)
    model = linear.LogisticRegression().fit((vectors - vectors.mean(0)) / vectors.std(0), truth)
    probe = Probe(
        ("0", "1"),
        Array.of(vectors.mean(0)),
        Array.of(vectors.std(0)),
        (Layer(Array.of(model.coef_.T), Array.of(model.intercept_)),),
    )
    expected = model.predict_proba((vectors - vectors.mean(0)) / vectors.std(0))[:, 1]
    assert [probe.shares(vector)["1"] for vector in vectors] == pytest.approx(expected, abs=1e-5)


def test_a_small_perceptron_is_that_of_scikit_learn() -> None:
    network = pytest.importorskip("sklearn.neural_network", reason="the extra evaluation is not installed")
    vectors = embeddings(1)
    truth = vectors[:, :3].argmax(1)
    model = network.MLPClassifier((5, 4), solver="lbfgs", random_state=0, max_iter=5000).fit(vectors, truth)
    layers = tuple(
        Layer(Array.of(weights), Array.of(bias)) for weights, bias in zip(model.coefs_, model.intercepts_, strict=True)
    )
    probe = Probe(VALUES, Array.of(np.zeros(6)), Array.of(np.ones(6)), layers)
    expected = model.predict_proba(vectors)
    found = np.array([[probe.shares(vector)[value] for value in VALUES] for vector in vectors])
    assert np.allclose(found, expected, atol=1e-3)


def test_prompts_are_averaged_over_templates_and_scaled_by_the_exponential() -> None:
    texts = [embeddings(seed, 3) * 7.0 for seed in (2, 3)]
    vector = embeddings(4)[0]
    found = prompt_head(("0", "1"), texts, 4.513).shares(vector)
    means = [np.mean([row / np.linalg.norm(row) for row in each], axis=0) for each in texts]
    logits = [np.exp(4.513) * float(vector @ (mean / np.linalg.norm(mean))) for mean in means]
    expected = 1.0 / (1.0 + np.exp(logits[0] - logits[1]))
    assert found["1"] == pytest.approx(expected, rel=1e-4)
    assert sum(found.values()) == pytest.approx(1.0)


def test_heads_refuse_what_does_not_fit() -> None:
    layer = Layer(Array.of(np.ones((6, 1))), Array.of([0.0]))
    probe = Probe(("0", "1"), Array.of(np.zeros(6)), Array.of(np.ones(6)), (layer,))
    with pytest.raises(InvalidInput, match="embedding of 6"):
        probe.shares(embeddings(0, dimension=5)[0])
    with pytest.raises(InvalidInput, match="one output for each of 3"):
        Probe(VALUES, Array.of(np.zeros(6)), Array.of(np.ones(6)), (layer,))
    with pytest.raises(InvalidInput, match="scales above 0"):
        Probe(("0", "1"), Array.of(np.zeros(6)), Array.of(np.zeros(6)), (layer,))
    with pytest.raises(InvalidInput, match="fit each other"):
        Probe(("0", "1"), Array.of(np.zeros(6)), Array.of(np.ones(6)), (layer, layer))
    with pytest.raises(InvalidInput, match="unit length"):
        PromptHead(("0", "1"), Array.of(np.ones((2, 6))), 4.5)
    with pytest.raises(InvalidInput, match="logarithm"):
        PromptHead(("0", "1"), Array.of(embeddings(0, 2)), 91.2)
    with pytest.raises(InvalidInput, match="finite"):
        Array.of([np.nan])


def test_a_scorer_without_its_weights_is_not_ready() -> None:
    with pytest.raises(Unready) as caught:
        measure(Finding("mass", "1", "mass", scorer=Scorer("probe")), None, embeddings(0)[0])
    assert caught.value.reason == "SCORER_ABSENT"


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_blend_is_the_weighted_mean(a: float, b: float, p: float, q: float) -> None:
    scorer = Scorer("blend", blend=(("neighbours", a), ("probe", b)))
    priors = [Prior("a", 0.9, "1"), Prior("b", 0.9, "0")]
    shares = dict(score(scorer, priors, [Measured("probe", (("1", q), ("0", 1 - q)))]))
    assert shares["1"] == pytest.approx((a * 0.5 + b * q) / (a + b))
    mixed = dict(mix([((("1", p),), 0.5), ((("0", 1.0),), 0.5)]))
    assert mixed == pytest.approx({"1": p / 2, "0": 0.5})


def test_a_scorer_whose_measurement_is_missing_gives_no_shares() -> None:
    assert score(Scorer("probe"), [Prior("a", 0.9, "1")], ()) == ()


# Numbers


def measured(shares: dict[str, float], residuals: Residuals | None = None) -> Measurement:
    found = regress(tuple(sorted(shares.items(), key=lambda item: -item[1])), residuals, "months")
    assert found is not None
    return found


def test_a_number_is_the_largest_class_and_the_mean_of_the_top_three() -> None:
    found = measured({"120": 0.4, "132": 0.3, "144": 0.2, "12": 0.1})
    assert found.most_likely == 120
    assert found.mean == pytest.approx((120 * 0.4 + 132 * 0.3 + 144 * 0.2) / 0.9)
    assert (found.low, found.high, found.method, found.unit) == (12, 144, "evidence", "months")


def test_fitted_residuals_give_the_interval_its_level() -> None:
    found = measured({"120": 0.5, "132": 0.5}, Residuals(15.0, 0.9, 100))
    assert (found.mean, found.low, found.high, found.level, found.method) == (126, 111, 141, 0.9, "conformal")


def test_equal_numbers_are_one_value_and_other_text_is_none() -> None:
    assert measured({"12": 0.4, "12.0": 0.35, "13": 0.25}).most_likely == 12
    assert regress((("unknown", 1.0), ("nan", 0.0)), None, "") is None


@given(st.dictionaries(st.integers(0, 200).map(str), st.floats(1e-6, 1), min_size=1, max_size=30))
def test_the_mean_lies_in_its_interval_and_among_the_values(shares: dict[str, float]) -> None:
    assume(shares)
    found = measured(shares)
    numbers = [float(value) for value in shares]
    assert min(numbers) - 1e-9 <= found.low <= found.mean <= found.high <= max(numbers) + 1e-9
