"""A fit whose hash is right and whose content no fit can have is refused at load, in one line that names the field."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from decisions import LIBRARY, draws, fit, group, point, resealed

from nearcase.decide.array import Array
from nearcase.decide.familiar import Ellipsoid, Familiarity
from nearcase.decide.fitted import Fitted, Library, Residuals, read_fitted, write_fitted
from nearcase.decide.point import Refusal
from nearcase.errors import InvalidInput
from nearcase.types import Interval

WHOLE = fit(
    auroc=Interval(0.8, 0.7, 0.9),
    prevalence=0.3,
    refusals=(Refusal("high", "too few", 299, 100),),
    familiarity=Familiarity(
        0.01, 0.1, 0.0, Ellipsoid(Array.of([0.0, 0.0]), Array.of([[0.6, 0.8]]), Array.of([0.3]), 0.1, 9.0)
    ),
    groups=(group("sex", "F"), group("age", "18-40", 18.0, 40.0), group("age", "40-90", 40.0, 90.0)),
    residuals=Residuals(3.0, 0.9, 100),
)
BODY = json.loads(write_fitted(WHOLE))["body"]
MIDDLE = len(BODY["curve"]) // 2


def edited(path: tuple[str | int, ...], value: object) -> bytes:
    body: Any = copy.deepcopy(BODY)
    part = body
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return resealed(body)


def refused(data: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read_fitted(data)
    assert caught.value.reason == "FITTED_INVALID"
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_whole_fit_is_read_again() -> None:
    assert read_fitted(resealed(BODY)) == WHOLE


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("prevalence",), 1.0, "prevalence"),
        (("floors", "agreement"), None, "floors.agreement"),
        # counts
        (("splits", 0, "patients"), -1, "patients"),
        (("splits", 0, "images"), 2**31, "images"),
        (("splits", 0, "patients"), 1.5, "splits[0].patients"),
        (("splits", 0, "patients"), True, "splits[0].patients"),
        (("splits", 0, "patients"), 301, "patients"),
        (("splits", 1, "positive_patients"), 301, "positive_patients"),
        (("splits", 1, "positive_patients"), 99, "positive_patients"),
        (("splits", 0, "negative_patients"), 199, "negative_patients"),
        (("points", 0, "positive_patients"), 99, "positive_patients"),
        (("points", 0, "negative_patients"), -200, "negative_patients"),
        (("points", 0, "sensitivity", "effective_n"), 1e9, "sensitivity"),
        (("points", 0, "sensitivity", "effective_n"), 99.5, "effective_n"),
        (("points", 0, "sensitivity", "effective_n"), -100, "effective_n"),
        (("curve", MIDDLE, "positives_called"), -1, "positives_called"),
        (("curve", MIDDLE, "positives_called"), 10**6, "curve"),
        (("curve", 0, "positives_called"), 1, "curve"),
        (("curve", -1, "negatives_called"), 199, "curve"),
        (("curve", MIDDLE, "sensitivity", "effective_n"), 5000.0, "effective_n"),
        (("refusals", 0, "patients_needed"), -1, "patients_needed"),
        (("refusals", 0, "patients_needed"), 2**63, "patients_needed"),
        (("refusals", 0, "patients"), 2**63, "patients"),
        (("library", "labelled_count"), 201, "labelled_count"),
        (("library", "values"), [["0", 250], ["1", -50]], "values"),
        (("library", "values"), [["1", 80], ["0", 120]], "values"),
        (("groups", 0, "patients"), 5, "patients"),
        (("groups", 0, "positives"), [[1.0]] * 9, "positives"),
        (("residuals", "patients"), 0, "patients"),
        # thresholds, rates and intervals
        (("curve", MIDDLE, "threshold"), 0.999, "curve"),
        (("curve", MIDDLE, "sensitivity", "value"), 0.0, "sensitivity"),
        (("curve", MIDDLE, "specificity", "value"), 0.0, "specificity"),
        (("curve", MIDDLE, "specificity", "value"), -0.1, "value"),
        (("points", 0, "sensitivity", "value"), 1.2, "value"),
        (("points", 1, "sensitivity", "value"), 0.999, "sensitivity"),
        (("points", 1, "specificity", "value"), 0.001, "specificity"),
        (("points", 0, "threshold"), -0.1, "threshold"),
        (("points", 0, "threshold"), 1.1, "threshold"),
        (("auroc",), {"value": 0.95, "low": 0.7, "high": 0.9, "level": 0.95}, "auroc"),
        (("auroc",), {"value": 0.8, "low": -0.7, "high": 0.9, "level": 0.95}, "auroc"),
        (("auroc",), {"value": 0.8, "low": 0.7, "high": 0.9, "level": 95.0}, "auroc"),
        (("residuals", "bound"), -1.0, "bound"),
        (("residuals", "level"), 1.0, "level"),
        (("gap",), -0.1, "gap"),
        (("calibration", "prevalence"), 1.5, "prevalence"),
        (("calibration", "probabilities"), [0.0, 0.9, 0.4], "calibration"),
        # what is compared with a query
        (("familiarity", "share"), 0.0, "share"),
        (("familiarity", "nearest"), 1.5, "nearest"),
        (("familiarity", "ellipsoid", "limit"), -9.0, "limit"),
        (
            ("familiarity", "ellipsoid", "axes"),
            json.loads(json.dumps(BODY["familiarity"]["ellipsoid"]["mean"])),
            "axes",
        ),
        (("groups", 0, "is_validated"), False, "reason"),
        (("groups", 0, "reason"), "too few", "reason"),
        (("groups", 0, "attribute"), "race", "attribute"),
        (("groups", 0, "positives"), [[1.5]] * 10, "positives"),
        (("groups", 1, "below_years"), 41.0, "groups"),
        (("groups", 1, "at_least_years"), 40.0, "at_least_years"),
        (("groups", 0, "name"), "a\nb", "name"),
        (("points", 0, "name"), "a\nb", "name"),
        (("points", 0, "guarantee"), "kept\u001b[2J", "guarantee"),
    ],
)
def test_impossible_content_is_refused(path: tuple[str | int, ...], value: object, field: str) -> None:
    assert field in str(refused(edited(path, value)))


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"1e999"])
def test_what_is_no_number_is_refused(text: bytes) -> None:
    data = write_fitted(WHOLE)
    mark = b'"threshold":0.5'
    assert mark in data
    refused(data.replace(mark, b'"threshold":' + text, 1))


@pytest.mark.parametrize(
    "change",
    [
        (b'{"body":', b'{"format":"x","body":'),
        (b'"threshold":0.5', b'"threshold":0.9,"threshold":0.5'),
        (b'"level":0.95,', b'"level":0.950,'),
        (b'{"body":', b'{ "body":'),
    ],
)
def test_a_fit_is_taken_as_it_was_written_alone(change: tuple[bytes, bytes]) -> None:
    """Its last key counts in one program and its first in another, and both would find the hash right."""
    data = write_fitted(WHOLE)
    assert read_fitted(data) == WHOLE
    assert "got its JSON in other bytes" in str(refused(data.replace(*change, 1)))


@pytest.mark.parametrize("older", ["nearcase-fitted/1", "nearcase-fitted/4"])
def test_an_older_fit_says_to_fit_again(older: str) -> None:
    data = write_fitted(WHOLE).replace(b"nearcase-fitted/5", older.encode(), 1)
    assert f"{older} of an older nearcase: run nearcase-eval fit again" in str(refused(data))


def test_a_point_has_the_rates_of_the_curve_there() -> None:
    place = WHOLE.curve[MIDDLE]
    other = replace(point("more", place.threshold, draws(1)), sensitivity=replace(place.sensitivity, value=0.5))
    with pytest.raises(InvalidInput, match="sensitivity"):
        fit(points=(other,), pairs=())


CHANGES: tuple[Callable[[], Fitted], ...] = (
    lambda: fit(library=Library("", 200, LIBRARY.values)),
    lambda: fit(splits=(*WHOLE.splits, WHOLE.splits[0])),
    lambda: fit(groups=(group("sex", "F"), group("sex", "F"))),
    lambda: fit(familiarity=Familiarity(0.01, float("nan"))),
)


@pytest.mark.parametrize("make", CHANGES)
def test_what_contradicts_itself_is_never_made(make: Callable[[], Fitted]) -> None:
    with pytest.raises(InvalidInput):
        make()


def test_a_group_counts_each_patient_once() -> None:
    many = replace(group("sex", "F"), positives=((0.2, 0.2, 0.2, 0.9), *((0.9,),) * 9), negatives=((0.1, 0.8),) * 10)
    sensitivity, specificity = many.rates(0.5)
    assert sensitivity.value == pytest.approx((0.25 + 9) / 10)
    assert specificity.value == pytest.approx(0.5)
    assert sensitivity.effective_n == specificity.effective_n == 10.0
    assert np.isclose(many.rates(0.0)[0].value, 1.0)
