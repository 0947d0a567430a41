"""The gate before a lower precision is written: the same embeddings and the same neighbours as fp32, on real images.

A cosine of 0.999 for every image, and 0.99 of the ten nearest neighbours kept on average: neighbours are what an
encoder is for, and a cosine alone does not tell whether they stay.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput

LEAST_COSINE = 0.999
LEAST_RECALL = 0.99
NEIGHBOURS = 10
LEAST_IMAGES = 30
SAME_IMAGE = 0.9999
"""Images at least this like an earlier one are left out: copies would be neighbours of each other in any precision."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How close a precision comes to fp32."""

    images: int
    least_cosine: float  # of any image, between its two embeddings
    recall_at_10: float  # mean share of each image's ten nearest others that stay among the ten nearest

    @property
    def passes(self) -> bool:
        """True within both limits; false for NaN."""
        return self.least_cosine >= LEAST_COSINE and self.recall_at_10 >= LEAST_RECALL

    def __str__(self) -> str:
        return f"least cosine {self.least_cosine:.5f}, recall@10 {self.recall_at_10:.4f} on {self.images} images"


def measure(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> Measured:
    """Returns how close the candidate's (N, D) embeddings are to the reference's, image by image.

    Raises:
        InvalidInput: There are too few images to tell.
    """
    if reference.shape != candidate.shape or len(reference) < LEAST_IMAGES:
        raise InvalidInput(f"expected {LEAST_IMAGES} or more different real images for the gate, got {len(reference)}")
    first, second = (_unit(each) for each in (reference, candidate))
    cosines = np.sum(first * second, axis=1)
    kept = [len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(_nearest(first), _nearest(second), strict=True)]
    return Measured(len(reference), float(cosines.min()), float(np.mean(kept)))


def distinct(vectors: NDArray[np.float32]) -> list[int]:
    """Returns the places of images that are no copies of earlier ones."""
    kept: list[int] = []
    for place, vector in enumerate(vectors):
        if not kept or float((vectors[kept] @ vector).max()) < SAME_IMAGE:
            kept.append(place)
    return kept


def check(measured: Measured, precision: str) -> None:
    """Lets only what passes through.

    Raises:
        InvalidInput: It does not; the message says how far off it is.
    """
    if not measured.passes:
        raise InvalidInput(
            f"{precision} does not pass the gate: expected cosine >= {LEAST_COSINE} and recall@10 >= {LEAST_RECALL}, "
            f"got {measured}; nothing was written"
        )


def gate_text(measured: Measured, sources: str, sha256: str) -> str:
    """Returns the card's table of the gate."""
    return (
        f"\n[gate]\nsources = {json.dumps(sources)}\nimages = {measured.images}\n"
        f"least_cosine = {measured.least_cosine:.6f}\nrecall_at_10 = {measured.recall_at_10:.4f}\n"
        f'against = "{sha256}"\n'
    )


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):  # what is not finite passes nothing
        unit: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def _nearest(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    nearest: NDArray[np.int64] = np.argsort(-similar, axis=1, kind="stable")[:, :NEIGHBOURS]
    return nearest
