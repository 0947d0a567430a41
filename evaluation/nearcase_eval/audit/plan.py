"""What is to be audited and how: frozen before a single number is computed, and printed in the report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nearcase.errors import InvalidInput
from nearcase_eval.groups import CXR_EDGES, SEYYED_EDGES, Minimum

AGE_PRESETS = {"cxr": CXR_EDGES, "seyyed": SEYYED_EDGES}

TOLERANCES = {"auroc": 0.05, "fnr": 0.05, "fpr": 0.05}
"""Largest gap that is accepted unless the auditor states another: a choice, not a standard; the report says so."""

_NAMES = {"auc": "auroc", "auroc": "auroc", "fnr": "fnr", "fpr": "fpr"}
_POINT = re.compile(
    r"(?P<aim>sens|spec)=(?P<target>[^:]+)(?::(?P<promise>empirical|conformal|pac)(?:@(?P<delta>.+))?)?"
)


@dataclass(frozen=True, slots=True)
class PointRule:
    """How one threshold is found."""

    text: str  # as the auditor wrote it
    kind: str  # sensitivity, specificity, youden, cost or threshold
    value: float = 0.0  # target, cost of a miss in false alarms, or the threshold itself
    promise: str = "empirical"  # empirical, conformal or pac
    confidence: float = 0.95  # of a pac promise


@dataclass(frozen=True, slots=True)
class Plan:
    """Every choice that changes a number."""

    attributes: tuple[str, ...] = ("sex", "age")
    attributes_stated: bool = False
    age_edges: tuple[int, ...] = CXR_EDGES
    crossings: tuple[tuple[str, str], ...] = ()
    report_missing: bool = True  # rows without an attribute are a group of their own in the tables, never in gaps
    points: tuple[PointRule, ...] = ()
    prevalences: tuple[float, ...] = ()
    interval: str = "delong"  # or bootstrap
    replicates: int = 2000
    seed: int = 7
    adjust: str = "holm"  # or bh
    minimum: Minimum = field(default_factory=Minimum)
    suppress: int = 0  # smallest count that may be shown; 0 shows all
    tolerance: Mapping[str, float] = field(default_factory=lambda: dict(TOLERANCES))
    tolerance_stated: bool = False
    confounders: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    margin: float | None = None  # of non-inferiority, for a comparison
    votes: int | None = None  # neighbours that voted, when scores are vote shares
    calibrate: tuple[str, ...] = ()  # values of the split column
    test: tuple[str, ...] = ()
    level: float = 0.95


def point_rule(text: str) -> PointRule:
    """Returns the rule in text such as sens=0.95, sens=0.95:pac@0.05, spec=0.9:conformal, youden, cost=10:1.

    Raises:
        InvalidInput: It is none of these.
    """
    name, _, value = text.partition("=")
    if text == "youden":
        return PointRule(text, "youden")
    if name == "threshold":
        return PointRule(text, "threshold", _number(value, text))
    if name == "cost":
        miss, _, alarm = value.partition(":")
        return PointRule(text, "cost", _number(miss, text) / _positive(alarm or "1", text))
    found = _POINT.fullmatch(text)
    if not found:
        raise InvalidInput(
            "expected sens=0.95[:empirical|conformal|pac@0.05], spec=..., youden, cost=10:1 or threshold=0.4, "
            f"got {text!r}",
            field="op",
        )
    promise = found["promise"] or "empirical"
    if found["delta"] and promise != "pac":
        raise InvalidInput(f"expected @ only after pac, got {text!r}", field="op")
    aim = {"sens": "sensitivity", "spec": "specificity"}[found["aim"]]
    delta = _share(found["delta"], text) if found["delta"] else 0.05
    return PointRule(text, aim, _share(found["target"], text), promise, 1.0 - delta)


def tolerance(text: str) -> dict[str, float]:
    """Returns the tolerances in text such as auc=0.05,fnr=0.05,fpr=0.1; those not named keep their default.

    Raises:
        InvalidInput: A name is unknown, or a number is not above 0.
    """
    found = dict(TOLERANCES)
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name.strip() not in _NAMES:
            raise InvalidInput(f"expected a tolerance of auc, fnr or fpr, got {name!r}", field="tolerance")
        found[_NAMES[name.strip()]] = _positive(value, part)
    return found


def attribute(text: str) -> tuple[str, tuple[int, ...] | None]:
    """Returns (name, age edges) of text such as sex, age or age:18,40,60,80.

    Raises:
        InvalidInput: The edges are no ascending whole numbers, or another attribute has edges.
    """
    name, _, edges = text.partition(":")
    if not edges:
        return name, None
    if name != "age":
        raise InvalidInput(f"expected edges for age only, got {text!r}; other columns are grouped by value", field="by")
    try:
        found = tuple(int(edge) for edge in edges.split(","))
    except ValueError:
        raise InvalidInput(f"expected whole years such as age:18,40,60,80, got {text!r}", field="by") from None
    return name, found


def crossing(text: str) -> tuple[str, str]:
    """Returns the two attributes of text such as sex,age; raises InvalidInput unless there are two."""
    first, comma, second = (part.strip() for part in text.partition(","))
    if not comma or not first or not second or "," in second or first == second:
        raise InvalidInput(f"expected two attributes such as sex,age, got {text!r}", field="cross")
    return first, second


def prevalences(text: str) -> tuple[float, ...]:
    """Returns the shares in text such as 0.02,0.1; raises InvalidInput unless each is inside 0..1."""
    return tuple(_share(part, text) for part in filter(None, text.split(",")))


def _share(value: str, text: str) -> float:
    found = _number(value, text)
    if not 0.0 < found < 1.0:
        raise InvalidInput(f"expected a number inside 0..1, got {text!r}")
    return found


def _positive(value: str, text: str) -> float:
    found = _number(value, text)
    if found <= 0.0:
        raise InvalidInput(f"expected a number above 0, got {text!r}")
    return found


def _number(value: str, text: str) -> float:
    try:
        found = float(value)
    except ValueError:
        raise InvalidInput(f"expected a number in {text!r}") from None
    if found != found or found in (float("inf"), float("-inf")):
        raise InvalidInput(f"expected a finite number in {text!r}")
    return found
