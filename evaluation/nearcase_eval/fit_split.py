"""Patients parted into those that train a probe, those that choose the thresholds, and those that judge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearcase.decide.finding import Finding
from nearcase.decide.fitted import CALIBRATION, TEST, Split
from nearcase.errors import InvalidInput
from nearcase_eval.fit_reference import Asked

TRAINING = "training"
SHARES = {False: {CALIBRATION: 0.5, TEST: 0.5}, True: {TRAINING: 0.5, CALIBRATION: 0.25, TEST: 0.25}}
"""By whether a probe is trained: neighbours need no training, since every image is asked without its patient."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The images of each split, by its name."""

    images: dict[str, tuple[Asked, ...]]
    splits: tuple[Split, ...]

    @property
    def calibration_share(self) -> float:
        """The share of the library's patients that thresholds are chosen on."""
        return SHARES[TRAINING in self.images][CALIBRATION]


def split(asked: Sequence[Asked], finding: Finding, *, with_training: bool, seed: int) -> Parts:
    """Returns the parts: whole patients, as many with the finding in each part as its share asks.

    Raises:
        InvalidInput: A part has no patient with the finding, or none without it.
    """
    rng = np.random.default_rng(seed)
    shares = SHARES[with_training]
    positive = {each.patient for each in asked if each.value in finding.positive_values}
    part_of: dict[str, str] = {}
    for group in (sorted(positive), sorted({each.patient for each in asked} - positive)):
        order = rng.permutation(len(group))
        ends = np.cumsum([0.0, *shares.values()]) * len(group)
        for name, low, high in zip(shares, ends[:-1], ends[1:], strict=True):
            part_of |= {group[at]: name for at in order[round(low) : round(high)]}
    images = {name: tuple(each for each in asked if part_of[each.patient] == name) for name in shares}
    splits = tuple(_described(name, images[name], finding) for name in shares)
    if not finding.is_number:
        _check(splits)
    elif min(each.patients for each in splits) == 0:
        raise InvalidInput("expected patients in every part, got too few")
    return Parts(images, splits)


def _described(name: str, images: Sequence[Asked], finding: Finding) -> Split:
    positives = {each.patient for each in images if each.value in finding.positive_values}
    negatives = {each.patient for each in images if each.value not in finding.positive_values}
    if finding.is_number:
        positives, negatives = set(), set()
    return Split(name, len(images), len({each.patient for each in images}), len(positives), len(negatives))


def _check(splits: Sequence[Split]) -> None:
    for each in splits:
        if not each.positive_patients or not each.negative_patients:
            raise InvalidInput(
                f"expected patients with and without the finding in the part {each.name}, got "
                f"{each.positive_patients} and {each.negative_patients}: a fit needs more patients",
                reason="INVALID_INPUT",
            )
