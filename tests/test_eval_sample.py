from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.sample import patient_codes, probabilities, sample_of


@pytest.mark.parametrize(
    ("y_true", "y_score", "patient", "message"),
    [
        ([0, 1], [0.1], None, "expected 2 rows in y_score, got 1"),
        ([0, 2], [0.1, 0.2], None, "expected y_true of 0 and 1, got 1 other"),
        ([0, np.nan], [0.1, 0.2], None, "expected finite y_true, got 1 missing"),
        ([0, 1], [0.1, np.nan], None, "expected finite y_score, got 1 missing"),
        ([0, 1], [0.1, np.inf], None, "expected finite y_score"),
        (["no", "yes"], [0.1, 0.2], None, "expected numbers in y_true, got text"),
        ([[0, 1]], [[0.1, 0.2]], None, "expected one axis in y_true, got shape (1, 2)"),
        (1, 0.5, None, "expected one axis"),
        ([0, 1], [0.1, 0.2], ["A"], "expected 2 rows in patient, got 1"),
        ([0, 1], [0.1, 0.2], ["A", None], "expected a patient in every row, 1 of 2 have none"),
        ([0, 1], [0.1, 0.2], [1.0, np.nan], "expected a patient in every row, 1 of 2"),
    ],
)
def test_refuses_with_what_was_expected(
    y_true: ArrayLike, y_score: ArrayLike, patient: ArrayLike | None, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        sample_of(y_true, np.asarray(y_score), None if patient is None else np.asarray(patient, dtype=object))
    assert message in str(caught.value)


def test_score_column_given_as_label_is_refused() -> None:
    with pytest.raises(InvalidInput, match="expected y_true of 0 and 1, got 3 other values"):
        sample_of([0.2, 0.7, 0.9], [0, 1, 1])


def test_refusals_do_not_name_patients() -> None:
    with pytest.raises(InvalidInput) as caught:
        patient_codes(np.array(["DOE^JANE", None], dtype=object), 2)
    assert "DOE" not in str(caught.value)


@pytest.mark.parametrize(
    "patients", [[7, 7, 3], ["b", "b", "a"], np.array(["b", "b", 3], dtype=object), [1.5, 1.5, 2.5]]
)
def test_patients_of_any_type_keep_their_rows_together(patients: ArrayLike) -> None:
    codes, count = patient_codes(patients, 3)
    assert count == 2
    assert codes[0] == codes[1] != codes[2]


def test_codes_are_taken_as_they_are_only_when_none_is_absent() -> None:
    codes, count = patient_codes(["x", "y", "x"], 3)
    again, same = patient_codes(codes, 3)
    assert again is codes
    assert same == count == 2
    assert patient_codes(np.array([0, 2, 2]), 3)[1] == 2  # nobody has code 1
    assert patient_codes(np.array([-1, 0, 1]), 3)[1] == 3


def test_scores_outside_0_to_1_rank_but_are_no_probabilities() -> None:
    assert sample_of([0, 1], [-3.0, 40.0]).n == 2
    with pytest.raises(InvalidInput, match="2 outside"):
        probabilities([-3.0, 40.0])


def test_no_rows_are_a_sample_without_positives() -> None:
    empty = sample_of([], [], [])
    assert (empty.n, empty.positives, empty.patients_among()) == (0, 0, 0)
