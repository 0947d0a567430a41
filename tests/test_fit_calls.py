"""What is told of images with a call is not better by the choice of who gets one."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean, stdev

import numpy as np
import pytest
from decisions import curve_of, draws

from nearcase.decide.curve import chosen_rates
from nearcase.decide.finding import Finding, Scorer
from nearcase.decide.fitted import Fitted, Library
from nearcase.decide.neighbours import Prior, in_order
from nearcase.types import CaseFacts
from nearcase_eval.fit import Plan, fit
from nearcase_eval.fit_points import read_wishes
from nearcase_eval.fit_reference import Asked, Reference

NORMAL = NormalDist()
MASS = Finding("mass", "1", "mass", positive_values=("1",), negative_values=("0",), scorer=Scorer(k=2))
POINTS = read_wishes(("sensitivity=0.80:empirical", "specificity=0.80:empirical"))
EACH = 48  # patients with the finding, and without: few enough that no limit of similarity is set
RUNS = 400


def test_the_rates_of_all_calibration_patients_are_those_of_counting_at_any_threshold() -> None:
    calibration = draws(0)
    curve = curve_of(calibration, draws(1))
    for threshold in (0.0, *np.linspace(0.005, 1.1, 73), *(each.threshold for each in curve)):
        sensitivity, specificity = chosen_rates(curve, threshold)
        assert sensitivity == pytest.approx(np.mean(calibration[0] >= threshold))
        assert specificity == pytest.approx(np.mean(calibration[1] < threshold))


def fitted_of(seed: int) -> Fitted:
    """Scores rise with z, which is normal and one higher with the finding; sex is drawn by chance and tells nothing."""
    rng = np.random.default_rng(seed)
    truth = np.arange(2 * EACH) < EACH
    asked = tuple(
        _asked(f"p{at}", bool(has_mass), float(z), "MF"[sex])
        for at, (has_mass, z, sex) in enumerate(
            zip(truth, rng.normal(size=2 * EACH) + truth, rng.permutation(2 * EACH) % 2, strict=True)
        )
    )
    library = Library("s", 2 * EACH, (("0", EACH), ("1", EACH)), 1.0)
    return fit(MASS, Reference("encoder", library, asked), Plan(POINTS, by=("sex",), seed=seed))


def _asked(patient: str, has_mass: bool, z: float, sex: str) -> Asked:
    """Two neighbours, of one value each: at a temperature of 100 the score is expit(z)."""
    priors = (Prior("a", 0.8 + z / 100.0, "1"), Prior("b", 0.8, "0"))
    vector = np.array([1.0, 0.0], np.float32)
    return Asked(CaseFacts(sex=sex), patient, str(int(has_mass)), vector, tuple(sorted(priors, key=in_order)))


def test_rates_among_called_images_are_those_of_new_patients_where_groups_do_not_differ() -> None:
    """The law of z says what each threshold does; groups dropped by held-out rates told 0.05 too much."""
    off: dict[tuple[str, str], list[float]] = {}
    dropped = 0
    for seed in range(RUNS):
        fitted = fitted_of(seed)
        for point in fitted.points:
            z = math.log(point.threshold / (1.0 - point.threshold))
            for aim, rate, true in (
                ("sensitivity", point.called_sensitivity, 1.0 - NORMAL.cdf(z - 1.0)),
                ("specificity", point.called_specificity, NORMAL.cdf(z)),
            ):
                if rate:
                    off.setdefault((point.name, aim), []).append(rate.value - true)
            validated = (not each.why_not([point], fitted.gap, fitted.curve) for each in fitted.groups)
            dropped += sum(validated) == 1
    assert dropped > 0.2 * RUNS  # else nothing was chosen
    for found in off.values():
        assert len(found) > 0.7 * RUNS
        assert abs(fmean(found)) < 2.0 * stdev(found) / math.sqrt(len(found)) < 0.02
