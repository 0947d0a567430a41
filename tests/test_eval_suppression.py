from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nearcase.errors import InvalidInput
from nearcase_eval.sample import Ints
from nearcase_eval.suppression import crossing_tables, hidden

COUNTS = arrays.arrays(np.int64, (6, 2), elements=st.sampled_from([0, 1, 10, 11, 40, 300]))


def test_a_second_group_is_hidden_so_that_the_total_does_not_tell() -> None:
    assert hidden([[3], [40], [500]]).tolist() == [True, True, False]
    assert hidden([[30], [40], [500]]).tolist() == [False, False, False]


def test_two_small_groups_hide_each_other_only_if_their_sum_is_large_enough() -> None:
    assert hidden([[6], [7], [500]]).tolist() == [True, True, False]
    assert hidden([[3], [4], [500], [90]]).tolist() == [True, True, False, True]


def test_zero_is_no_secret() -> None:
    assert hidden([[0], [40], [500]]).tolist() == [False, False, False]
    assert hidden([[0], [4], [500]]).tolist() == [False, True, True]


def test_a_small_count_of_any_kind_hides_the_group() -> None:
    assert hidden([[90, 3], [80, 40], [300, 100]]).tolist() == [True, True, False]


@given(COUNTS)
def test_no_row_or_column_gives_a_hidden_cell_away(counts: Ints) -> None:
    tables = crossing_tables(2, 3)
    found = hidden(counts, 11, tables=tables)
    assert not np.any((counts[~found] > 0) & (counts[~found] < 11))
    for cells in tables:
        secret = [cell for cell in cells if found[cell]]
        shown = [cell for cell in cells if not found[cell] and counts[cell].any()]
        if secret and shown:
            total = counts[secret].sum(axis=0)
            assert len(secret) > 1
            assert not np.any((total > 0) & (total < 11))


def test_refuses_a_table_of_the_wrong_shape() -> None:
    with pytest.raises(InvalidInput, match="groups, kinds"):
        hidden(np.zeros((2, 2, 2)))
