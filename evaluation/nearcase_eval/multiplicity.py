"""Many tests at once: Holm for a family declared beforehand, Benjamini-Hochberg for exploration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nearcase.errors import InvalidInput
from nearcase_eval.sample import Floats, Ints


@dataclass(frozen=True, slots=True)
class Adjusted:
    """The p-values of one family, raw and adjusted; a test that could not be made has None and is not counted."""

    method: str
    family: int  # tests that were made
    raw: dict[str, float | None]
    adjusted: dict[str, float | None]


def adjust(p_values: Mapping[str, float | None], method: Literal["holm", "bh"] = "holm") -> Adjusted:
    """Returns the adjusted p-values of a family, by name.

    Holm 1979 keeps the chance of any false alarm; Benjamini and Hochberg 1995 the share of false alarms.

    Raises:
        InvalidInput: A p-value is not in 0..1.
    """
    made = {name: p for name, p in p_values.items() if p is not None}
    if wrong := sum(not 0.0 <= p <= 1.0 for p in made.values()):
        raise InvalidInput(f"expected p-values in 0..1, got {wrong} outside", field="p_values")
    steps: dict[str, Callable[[Floats], Floats]] = {"holm": holm, "bh": benjamini_hochberg}
    found = dict(zip(made, steps[method](np.array(list(made.values()), dtype=np.float64)).tolist(), strict=True))
    return Adjusted(method, len(made), dict(p_values), {name: found.get(name) for name in p_values})


def holm(p: Floats) -> Floats:
    """Returns Holm's step-down p-values, in the order given."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    return _unsorted(order, stepped)


def benjamini_hochberg(p: Floats) -> Floats:
    """Returns the step-up p-values for the false discovery rate, in the order given."""
    order = np.argsort(p, kind="stable")
    stepped = np.minimum.accumulate((p[order] * p.size / np.arange(1, p.size + 1))[::-1])[::-1]
    return _unsorted(order, stepped)


def _unsorted(order: Ints, stepped: Floats) -> Floats:
    found = np.empty_like(stepped)
    found[order] = np.minimum(stepped, 1.0)
    return found
