"""How often the first neighbour has the query's modality, beside what chance and plain grey pixels reach.

All three rankings see the same queries, the same library and the same exclusions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PillowImage

from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALL = "all"
GREY_SIDE_PX = 32
_LUMA = np.array([0.299, 0.587, 0.114])  # Y of RGB, ITU-R BT.601, as in YBR_FULL (PS3.3 C.7.6.3.1.2)
_Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Row:
    """Precision@1 of the queries of one modality, or of all."""

    modality: str
    query_count: int
    server: float
    server_95: tuple[float, float]  # Wilson interval
    random: float
    grey: float


def compare(
    query_modalities: Sequence[str],
    library_modalities: Sequence[str],
    *,
    allowed: NDArray[np.bool_],
    server_first: Sequence[str],
    grey_first: Sequence[str],
) -> tuple[Row, ...]:
    """Returns precision@1 by modality, in order of names, then over all queries.

    Args:
        query_modalities: Modality of each of Q queries.
        library_modalities: Modality of each of L library images.
        allowed: (Q, L) False where the pair has the same patient or series.
        server_first: Modality of the first hit that the server returned for each query; empty for no hit.
        grey_first: The same for grey pixels, see `first_modalities`.

    Raises:
        InvalidInput: The lengths differ, there is no query, or a query has no allowed image.
    """
    truth, library = np.asarray(query_modalities), np.asarray(library_modalities)
    _check(truth, library, allowed, server_first, grey_first)
    chance = random_precision(truth, library, allowed)
    server, grey = truth == np.asarray(server_first), truth == np.asarray(grey_first)
    groups = [(name, truth == name) for name in sorted(set(truth.tolist()))] + [(ALL, np.full(len(truth), True))]
    return tuple(
        Row(
            modality=name,
            query_count=int(which.sum()),
            server=float(server[which].mean()),
            server_95=wilson_95(int(server[which].sum()), int(which.sum())),
            random=float(chance[which].mean()),
            grey=float(grey[which].mean()),
        )
        for name, which in groups
    )


def _check(
    truth: NDArray[np.str_], library: NDArray[np.str_], allowed: NDArray[np.bool_], *firsts: Sequence[str]
) -> None:
    if len(truth) == 0 or any(len(first) != len(truth) for first in firsts):
        raise InvalidInput(f"Expected one first neighbour for each of {len(truth)} queries, and at least one query")
    if allowed.shape != (len(truth), len(library)):
        raise InvalidInput(f"Expected allowed of shape {(len(truth), len(library))}, got {allowed.shape}")
    if not allowed.any(axis=1).all():
        raise InvalidInput("Expected at least one library image of another patient for each query, got none")


def other_groups(query_groups: Sequence[str], library_groups: Sequence[str]) -> NDArray[np.bool_]:
    """Returns (Q, L) True where the query and the library image are of different patients or series."""
    other: NDArray[np.bool_] = np.asarray(query_groups)[:, None] != np.asarray(library_groups)[None, :]
    return other


def random_precision(
    query_modalities: NDArray[np.str_], library_modalities: NDArray[np.str_], allowed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Returns (Q,) the precision@1 that random unit vectors reach on average.

    Independent random directions have no order of their own, so each allowed image comes first equally often: the
    average over all draws is the share of allowed images that have the query's modality. No seed is needed.
    """
    same = query_modalities[:, None] == library_modalities[None, :]
    share: NDArray[np.float64] = (same & allowed).sum(axis=1) / allowed.sum(axis=1)
    return share


def first_modalities(
    similarity: NDArray[np.float64], library_modalities: Sequence[str], allowed: NDArray[np.bool_]
) -> tuple[str, ...]:
    """Returns the modality of each query's most similar allowed image; ties go to the image that comes first.

    Args:
        similarity: (Q, L), higher is more alike.
        library_modalities: Modality of each of L library images.
        allowed: (Q, L) with at least one True a row.
    """
    first = np.where(allowed, similarity, -np.inf).argmax(axis=1)
    return tuple(library_modalities[column] for column in first)


def grey_vectors(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Returns (N, 1024) unit vectors: each image as a grey 32 x 32 thumbnail less its own mean; zeros for a flat image.

    Args:
        images: (rows, columns) grey or (rows, columns, 3) RGB.
    """
    vectors = np.stack([_thumbnail(pixels) for pixels in images])
    vectors -= vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # float32 rounding leaves up to about 1e-3 of a flat image; one grey level in one pixel of the thumbnail is about 1.
    units: NDArray[np.float64] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-2)
    return units


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    grey = pixels @ _LUMA if pixels.ndim == 3 else pixels
    picture = PillowImage.fromarray(np.ascontiguousarray(grey, dtype=np.float32))
    small = picture.resize((GREY_SIDE_PX, GREY_SIDE_PX), PillowImage.Resampling.BOX)
    vector: NDArray[np.float64] = np.asarray(small, dtype=np.float64).ravel()
    return vector


def wilson_95(successes: int, n: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of a proportion (Wilson, JASA 1927); it holds for small n, at 0 and at 1.

    Raises:
        InvalidInput: n is not positive or successes is outside 0 to n.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise InvalidInput(f"Expected 0 <= successes <= n and n > 0, got {successes} of {n}")
    share, scale = successes / n, 1 + _Z95**2 / n
    centre = (share + _Z95**2 / (2 * n)) / scale
    half = _Z95 / scale * (share * (1 - share) / n + _Z95**2 / (4 * n * n)) ** 0.5
    # At 0 and n one limit is exact; rounding would put it beside.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def in_words(row: Row) -> str:
    """Returns the server's figure with its interval, for people."""
    low, high = row.server_95
    right = round(row.server * row.query_count)
    return (
        f"{right} of {row.query_count} ({row.server:.0%}); with n = {row.query_count} the true figure may lie anywhere "
        f"from {low:.0%} to {high:.0%}"
    )
