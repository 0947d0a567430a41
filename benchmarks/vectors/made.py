"""Made embeddings that cluster as real ones do, held-out queries, filters of known width, and the exact answers.

A Zipf mixture of 200 clusters: each has a centre, structure of rank 32 within it, and noise in all dimensions; all are
scaled to unit length. Fields are drawn apart from the vectors, which is the hard case for a graph: candidates of a
filter are spread over all clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLUSTERS, RANK = 200, 32
STRUCTURE, NOISE = 1.0, 1.0
"""Lengths of what is added to a centre of length 1: hnswlib finds 0.97 of the neighbours at ef = 96, see peers.py."""

BLOCK = 10_000
K = 10
TIE = 1e-6
MODALITIES = ("CT", "MR", "DX", "CR", "US", "MG", "XA", "NM", "PT", "OP")
DEVICES = 100
AGE_BAND = (40, 67)
"""Ages 40 to 66 of 0 to 89: 30 % of the cases; with a modality, 3 %."""

FILTERS = {
    "none": "",
    "10 %": "modality = MG",
    "3 %": f"modality = MG and age_years >= {AGE_BAND[0]} and age_years < {AGE_BAND[1]}",
    "1 %": 'device_model = "D7"',
}
"""The width of each, and how it is written."""

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Made:
    """One data set, read from a folder; arrays are mapped, not loaded."""

    vectors: Floats  # (N, D)
    queries: Floats  # (Q, D)
    modality: Integers  # (N,) numbers of MODALITIES
    age_years: Integers  # (N,)
    device: Integers  # (N,)
    worst: dict[str, Floats]  # of each filter: (Q,) similarity of the K-th neighbour

    def rows(self, name: str) -> Integers:
        """The rows that a filter keeps."""
        kept = {
            "none": np.ones(len(self.vectors), dtype=bool),
            "10 %": self.modality == MODALITIES.index("MG"),
            "3 %": (self.modality == MODALITIES.index("MG"))
            & (self.age_years >= AGE_BAND[0])
            & (self.age_years < AGE_BAND[1]),
            "1 %": self.device == 7,
        }
        return np.flatnonzero(kept[name])

    def recall(self, name: str, query: int, found: Integers) -> float:
        """The share of the K exact neighbours that were found; one as similar as the K-th is as good."""
        similarities = self.vectors[np.unique(found)] @ self.queries[query]
        return min(1.0, float((similarities >= self.worst[name][query] - TIE).sum()) / K)


def make(folder: Path, *, rows: int, dimension: int, queries: int, seed: int = 0) -> Made:
    """Writes a data set and its exact answers, block by block, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    mixture = _Mixture(rng, dimension)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, dimension))
    for start in range(0, rows, BLOCK):
        vectors[start : start + BLOCK] = mixture.draw(min(BLOCK, rows - start))
    vectors.flush()
    np.save(folder / "queries.npy", mixture.draw(queries))
    np.save(folder / "modality.npy", rng.integers(0, len(MODALITIES), rows))
    np.save(folder / "age_years.npy", rng.integers(0, 90, rows))
    np.save(folder / "device.npy", rng.integers(0, DEVICES, rows))
    _answer(folder)
    return read(folder)


def read(folder: Path) -> Made:
    """Returns what `make` wrote."""
    fields = ("vectors", "queries", "modality", "age_years", "device")
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in fields}
    path = folder / "worst.npz"
    worst = dict(np.load(path)) if path.exists() else {}
    return Made(**arrays, worst=worst)


class _Mixture:
    """Where vectors are drawn from."""

    def __init__(self, rng: np.random.Generator, dimension: int) -> None:
        self._rng, self._dimension = rng, dimension
        shares = 1.0 / np.arange(1, CLUSTERS + 1)
        self._shares = shares / shares.sum()
        self._centres = _unit(rng.normal(size=(CLUSTERS, dimension)))
        self._bases = rng.normal(size=(CLUSTERS, RANK, dimension)).astype(np.float32) / np.sqrt(RANK * dimension)

    def draw(self, count: int) -> Floats:
        """(count, D), unit length."""
        cluster = self._rng.choice(CLUSTERS, count, p=self._shares)
        inside = self._rng.normal(size=(count, RANK)).astype(np.float32)
        noise = self._rng.normal(size=(count, self._dimension)).astype(np.float32) / np.sqrt(self._dimension)
        structure = np.empty((count, self._dimension), np.float32)
        for number in np.unique(cluster):
            chosen = cluster == number
            structure[chosen] = inside[chosen] @ self._bases[number]
        return _unit(self._centres[cluster] + STRUCTURE * structure + NOISE * noise)


def _unit(vectors: NDArray[np.floating]) -> Floats:
    scaled: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def _answer(folder: Path) -> None:
    """Writes the similarity of the K-th neighbour of each query under each filter."""
    made = read(folder)
    kept = {name: made.rows(name) for name in FILTERS}
    best = {name: np.full((len(made.queries), K), -2.0, np.float32) for name in FILTERS}
    for start in range(0, len(made.vectors), BLOCK):
        similarities = made.queries @ made.vectors[start : start + BLOCK].T
        for name, rows in kept.items():
            inside = rows[(rows >= start) & (rows < start + BLOCK)] - start
            both = np.concatenate([best[name], similarities[:, inside]], axis=1)
            best[name] = -np.partition(-both, K - 1, axis=1)[:, :K]
    np.savez(folder / "worst.npz", **{name: found.min(axis=1) for name, found in best.items()})
