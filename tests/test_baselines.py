"""Precision@1 and its two baselines, on cases worked by hand and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from nearcase.demo import baselines
from nearcase.errors import InvalidInput

QUERIES = ("CT", "CT", "MR")
LIBRARY = ("CT", "MR", "US", "CT")
EVERY_PAIR = np.ones((3, 4), dtype=np.bool_)


def test_rows_are_the_modalities_in_order_and_then_all() -> None:
    rows = baselines.compare(
        QUERIES, LIBRARY, allowed=EVERY_PAIR, server_first=("CT", "US", "MR"), grey_first=("MR", "MR", "MR")
    )
    figures = [(row.modality, row.query_count, row.server, row.random, row.grey) for row in rows]
    assert figures == [
        ("CT", 2, 0.5, 0.5, 0.0),
        ("MR", 1, 1.0, 0.25, 1.0),
        ("all", 3, pytest.approx(2 / 3), pytest.approx((0.5 + 0.5 + 0.25) / 3), pytest.approx(1 / 3)),
    ]


def test_a_query_without_a_hit_counts_as_wrong() -> None:
    rows = baselines.compare(("CT",), ("CT",), allowed=np.array([[True]]), server_first=("",), grey_first=("CT",))
    assert [row.server for row in rows] == [0.0, 0.0]


def test_random_share_equals_what_drawn_unit_vectors_do() -> None:
    rng = np.random.default_rng(7)
    allowed = np.array([[True, True, True, False], [True, True, True, True], [False, True, True, True]])
    right = np.zeros(3)
    draws = 4000
    for _ in range(draws):
        vectors = rng.standard_normal((7, 16))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        first = baselines.first_modalities(vectors[:3] @ vectors[3:].T, LIBRARY, allowed)
        right += [found == wanted for found, wanted in zip(first, QUERIES, strict=True)]
    expected = baselines.random_precision(np.asarray(QUERIES), np.asarray(LIBRARY), allowed)
    assert expected.tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 3])
    np.testing.assert_allclose(right / draws, expected, atol=0.03)  # four standard errors


def test_own_group_never_comes_first_however_alike() -> None:
    allowed = baselines.other_groups(("a", "b"), ("a", "b", "c"))
    similarity = np.array([[1.0, -0.9, -0.8], [0.2, 1.0, 0.1]])
    assert baselines.first_modalities(similarity, ("CT", "MR", "US"), allowed) == ("US", "CT")


def test_ties_go_to_the_image_that_comes_first() -> None:
    assert baselines.first_modalities(np.zeros((1, 3)), ("US", "CT", "MR"), np.array([[False, True, True]])) == ("CT",)


def test_grey_vectors_ignore_brightness_contrast_and_size() -> None:
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :], 64, axis=0)
    brighter = (ramp * 2 + 60).astype(np.uint8)
    larger = np.kron(ramp, np.ones((2, 2), dtype=np.uint8))
    color = np.stack([ramp] * 3, axis=-1)
    vectors = baselines.grey_vectors([ramp, brighter, larger, color, ramp[:, ::-1]])
    assert vectors.shape == (5, 1024)
    np.testing.assert_allclose(vectors @ vectors[0], [1, 1, 1, 1, -1], atol=1e-6)


@pytest.mark.parametrize("level", [0, 1, 77, 255])
def test_a_flat_image_is_like_nothing(level: int) -> None:
    flat = np.full((50, 40, 3), level, dtype=np.uint8)
    assert not baselines.grey_vectors([flat]).any()


@pytest.mark.parametrize("successes", [0, 1, 4, 9])
def test_wilson_limits_solve_the_score_equation(successes: int) -> None:
    n, z = 9, 1.959964
    for limit in baselines.wilson_95(successes, n):
        assert (successes / n - limit) ** 2 == pytest.approx(z**2 * limit * (1 - limit) / n, abs=1e-12)


def test_wilson_matches_a_published_example() -> None:
    # Newcombe, Statistics in Medicine 1998;17:857, table I: 15 of 148 gives 0.0624 to 0.1605.
    assert baselines.wilson_95(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(InvalidInput, match="successes"):
        baselines.wilson_95(successes, n)


def test_words_give_count_and_interval() -> None:
    row = baselines.Row("CT", 3, 2 / 3, baselines.wilson_95(2, 3), 0.3, 0.0)
    assert baselines.in_words(row) == "2 of 3 (67%); with n = 3 the true figure may lie anywhere from 21% to 94%"


@pytest.mark.parametrize(
    ("queries", "allowed", "first", "said"),
    [
        ((), np.ones((0, 1), dtype=np.bool_), (), "at least one query"),
        (("CT",), np.ones((1, 1), dtype=np.bool_), (), "one first neighbour for each of 1 queries"),
        (("CT",), np.ones((1, 2), dtype=np.bool_), ("CT",), "shape"),
        (("CT",), np.zeros((1, 1), dtype=np.bool_), ("CT",), "another patient"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    queries: tuple[str, ...],
    allowed: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    first: tuple[str, ...],
    said: str,
) -> None:
    with pytest.raises(InvalidInput, match=said):
        baselines.compare(queries, ("CT",), allowed=allowed, server_first=first, grey_first=first)
