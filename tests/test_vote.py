"""The published routine against brute force, and the laws of a vote."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcase.decide.vote import TEMPERATURE, decide
from nearcase.types import Call, Case, CaseFacts, Hit

VALUES = ("0", "1", "2")


def hits(similarities: list[float], values: list[str | None]) -> list[Hit]:
    return [
        Hit(Case(f"case-{number:03}", CaseFacts(), labels={} if value is None else {"mass": value}), similarity)
        for number, (similarity, value) in enumerate(zip(similarities, values, strict=True))
    ]


def brute_force(similarities: np.ndarray, values: list[str], k: int) -> dict[str, float]:
    """softmax(100 cos) over ALL references, top K, summed by class, L1-normalised: as published, denominator kept."""
    weights = np.exp(TEMPERATURE * (similarities - similarities.max()))
    weights /= weights.sum()
    top = sorted(range(len(weights)), key=lambda at: -similarities[at])[:k]
    sums = {value: sum(weights[at] for at in top if values[at] == value) for value in set(values)}
    total = sum(sums.values())
    return {value: share / total for value, share in sums.items() if any(values[at] == value for at in top)}


@pytest.mark.parametrize("seed", range(20))
def test_shares_equal_the_softmax_over_the_whole_reference_set(seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarities = np.sort(rng.uniform(0.5, 1, 200))[::-1]
    values = [VALUES[at] for at in rng.integers(0, 3, 200)]
    top = hits(similarities[:10].tolist(), list(values[:10]))
    expected = brute_force(similarities, values, 10)
    assert {vote.value: vote.share for vote in decide("mass", top).votes} == pytest.approx(expected, abs=1e-9)


cases = st.lists(st.tuples(st.floats(-1, 1), st.sampled_from((*VALUES, None))), min_size=1, max_size=30)


@given(cases)
def test_shares_add_up_and_counts_are_the_evidence(pairs: list[tuple[float, str | None]]) -> None:
    decision = decide("mass", hits([pair[0] for pair in pairs], [pair[1] for pair in pairs]))
    labelled = [value for _, value in pairs if value is not None]
    assert sum(vote.count for vote in decision.votes) == len(decision.evidence) == len(labelled)
    assert decision.call is Call.ABSTAIN
    if labelled:
        assert sum(vote.share for vote in decision.votes) == pytest.approx(1)
        assert [vote.share for vote in decision.votes] == sorted((vote.share for vote in decision.votes), reverse=True)
        assert decision.abstain_reason == "NO_OPERATING_POINT"
    else:
        assert decision.abstain_reason == "NO_EVIDENCE"


@given(cases, st.randoms())
def test_the_order_of_hits_changes_nothing(pairs: list[tuple[float, str | None]], random: object) -> None:
    straight = hits([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    shuffled = list(straight)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' random.Random
    one, other = decide("mass", straight), decide("mass", shuffled)
    assert one.evidence == other.evidence
    assert [vote.value for vote in one.votes] == [vote.value for vote in other.votes]


def test_a_tie_is_shared_equally() -> None:
    votes = decide("mass", hits([0.9, 0.9], ["1", "0"])).votes
    assert [(vote.value, vote.share) for vote in votes] == [("0", 0.5), ("1", 0.5)]
