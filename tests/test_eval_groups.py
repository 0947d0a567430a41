from __future__ import annotations

import numpy as np
import pytest

from nearcase.errors import InvalidInput
from nearcase_eval.ages import ages_of
from nearcase_eval.estimate import State
from nearcase_eval.groups import SEYYED_EDGES, Grouping, Minimum, by_age, by_column, by_sex, class_patients, crossed
from nearcase_eval.sample import sample_of


def named(grouping: Grouping) -> list[str | None]:
    return [None if code < 0 else grouping.names[code] for code in grouping.codes]


def test_age_bins_are_closed_on_the_left() -> None:
    found = by_age(ages_of([0, 17.99, 18, 39.9, 40, 60, 79.99, 80, 120, 155, None]))
    assert found.names == ("0-18", "18-40", "40-60", "60-80", "80+")
    assert named(found) == [
        "0-18", "0-18", "18-40", "18-40", "40-60", "60-80", "60-80", "80+", "80+", None, None,
    ]  # fmt: skip
    assert (found.missing, len(found.notes)) == (2, 2)


def test_seyyed_preset() -> None:
    found = by_age(ages_of(["019Y", "020Y", "80"]), SEYYED_EDGES)
    assert named(found) == ["0-20", "20-40", "80+"]


def test_a_cap_below_the_last_edge_is_not_guessed() -> None:
    found = by_age(ages_of(["90+", "65+"]))
    assert named(found) == ["80+", None]
    assert "1 capped ages could be in several bins and count as missing" in found.notes


def test_edges_must_ascend() -> None:
    for edges in ((40, 18), (0, 20), ()):
        with pytest.raises(InvalidInput, match="ascending age edges"):
            by_age(ages_of([1]), edges)


def test_sex_words_and_no_guessing_of_numbers() -> None:
    found = by_sex(np.array(["F", "female", "m", "Male ", "O", "1", 0, None, "", "unknown"], dtype=object))
    assert named(found) == ["F", "F", "M", "M", "O", None, None, None, None, None]
    assert found.notes == ("2 sexes are not stated", "3 sexes can not be read: expected F, M or O")


def test_any_column_in_the_order_of_its_text() -> None:
    found = by_column("site", np.array(["Ülm", "Bern", None, "Bern "], dtype=object))
    assert (found.names, named(found)) == (("Bern", "Ülm"), ["Ülm", "Bern", None, "Bern"])


def test_crossing_counts_add_up_to_the_whole() -> None:
    sex, age = by_sex(["F", "M", "F", "", "M"]), by_age(ages_of([20, 30, 50, 50, None]))
    found = crossed(sex, age)
    assert len(found.names) == 10
    assert named(found) == ["F, 18-40", "M, 18-40", "F, 40-60", None, None]
    assert sum(int(found.mask(place).sum()) for place in range(10)) + found.missing == 5
    with pytest.raises(InvalidInput, match="expected 5 rows"):
        crossed(sex, by_sex(["F"]))


def test_states_count_patients() -> None:
    rule = Minimum()
    assert rule.assess(9, 500)[0] is State.NOT_ESTIMABLE
    assert "9 patients with positives" in rule.assess(9, 500)[1]
    assert rule.assess(10, 500)[0] is State.LOW_PRECISION
    assert rule.assess(50, 50) == (State.OK, "")
    assert rule.assess(None, 50) == (State.OK, "")
    assert Minimum(0, 0, 0).assess(0, 5)[0] is State.NOT_ESTIMABLE  # never from nobody
    data = sample_of([1, 1, 1, 0], [1.0, 2.0, 3.0, 4.0], ["a", "a", "a", "a"])
    assert class_patients(data, np.ones(4, dtype=bool)) == (1, 1, 1)
