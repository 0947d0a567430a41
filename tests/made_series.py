"""A library of made series in an exact index, for tests of grouping, votes and pools."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearcase.index.base import Point
from nearcase.index.exact import ExactIndex
from nearcase.retrieve.cases import case_id_of, to_payload
from nearcase.types import Case, CaseFacts

DIMENSION = 16
Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Made:
    """One image of the library."""

    case: Case
    vector: Vector


def direction(rng: np.random.Generator) -> Vector:
    """A random unit vector."""
    return scaled(rng.normal(size=DIMENSION))


def scaled(values: NDArray[np.float64]) -> Vector:
    """To unit length."""
    return (values / np.linalg.norm(values)).astype(np.float32)


def made_series(seed: int, *, series: int = 30, lone: int = 5) -> list[Made]:
    """Series of 1 to 40 images round one direction each, two to a study and to a patient, and images of no series."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(series):
        center = direction(rng)
        for image in range(int(rng.integers(1, 41))):
            facts = CaseFacts(
                patient_id=f"P{number // 2}",
                study_uid=f"1.{number // 2}",
                series_uid=f"1.{number // 2}.{number}",
                instance_uid=f"1.{number // 2}.{number}.{image}",
            )
            vector = scaled(center + 0.15 * rng.normal(size=DIMENSION))
            found.append(Made(Case(case_id_of(facts, "", 1), facts), vector))
    for number in range(lone):
        case = Case(case_id_of(CaseFacts(), f"lone-{number}", 1), CaseFacts(), content_sha256=f"lone-{number}")
        found.append(Made(case, direction(rng)))
    return found


async def index_of(images: list[Made]) -> ExactIndex:
    """An index that holds them."""
    index = ExactIndex(DIMENSION)
    await index.upsert([Point(each.case.case_id, each.vector, to_payload(each.case)) for each in images])
    return index
