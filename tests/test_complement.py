"""A filter parted into what it asks for and what it leaves out counts the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import filters, payloads

from nearcase.index.base import Payload
from nearcase.index.complement import parted
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, matches

CT, MALE, FLAGGED = Equals("modality", "CT"), Equals("sex", "M"), In("flags", ("excluded", "no-consent"))


@given(where=filters(), stored=st.lists(payloads(), max_size=10))
def test_the_difference_of_both_counts_is_the_count(where: Filter, stored: list[Payload]) -> None:
    asked, left_out = parted(where)
    kept = [payload for payload in stored if asked is None or matches(asked, payload)]
    lost = [payload for payload in kept if left_out is not None and matches(left_out, payload)]
    assert len(kept) - len(lost) == sum(matches(where, payload) for payload in stored)


def test_what_every_search_leaves_out_is_told_apart() -> None:
    assert parted(CT) == (CT, None)
    assert parted(Not(FLAGGED)) == (None, FLAGGED)
    assert parted(And((CT, Not(FLAGGED)))) == (CT, FLAGGED)
    assert parted(And((And((CT, Not(MALE))), Not(FLAGGED)))) == (CT, Or((MALE, FLAGGED)))
    assert parted(Or((CT, Not(FLAGGED)))) == (Or((CT, Not(FLAGGED))), None)
