"""Whether an image is of the kind that the library knows: limits fitted on the library's own images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nearcase.decide.array import Array
from nearcase.decide.probe import check_dimension
from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from nearcase.types import Embedding

_ROUNDING = 1e-3
"""Of products of float32 axes, with room."""


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """The library's embeddings as a normal distribution: principal axes, and one variance for all other directions.

    Distances are Mahalanobis (1936) under that model (probabilistic principal components, Tipping and Bishop 1999).
    """

    mean: Array  # (D,)
    axes: Array  # (R, D) orthonormal
    variances: Array  # (R,) along the axes, above 0
    residual_variance: float  # of each of the D - R other directions, above 0
    limit: float  # distance above which an image is unlike the library

    def __post_init__(self) -> None:
        if len(self.mean.shape) != 1 or self.axes.shape != (*self.variances.shape, *self.mean.shape):
            raise InvalidInput("expected axes (R, D), variances (R,) and a mean (D,)", field="axes")
        if not (self.variances.values > 0.0).all() or not self.residual_variance > 0.0:
            raise InvalidInput("expected variances above 0", field="variances")
        if not self.limit > 0.0:
            raise InvalidInput(f"expected a limit above 0, got {self.limit:g}", field="limit")
        axes = self.axes.values.astype(np.float64)
        if not np.allclose(axes @ axes.T, np.eye(len(axes)), atol=_ROUNDING):
            raise InvalidInput("expected axes of length 1 at right angles, got others", field="axes")

    def distance(self, vector: Embedding) -> float:
        """Returns how many standard deviations an embedding lies from the mean.

        Raises:
            InvalidInput: The embedding has another dimension.
        """
        check_dimension(vector, self.mean.shape[0])
        away = vector.astype(np.float64) - self.mean.values
        along = self.axes.values.astype(np.float64) @ away
        across = max(0.0, float(away @ away - along @ along))
        return math.sqrt(float(np.sum(along**2 / self.variances.values)) + across / self.residual_variance)


@dataclass(frozen=True, slots=True)
class Familiarity:
    """Limits that all but a small share of the library's own images keep, each asked with its patient left out."""

    share: float  # of the library's images that break each limit, for example 0.01
    nearest: float  # least cosine of the nearest labelled case
    mean: float | None = None  # least mean cosine of the K nearest (Sun 2022, deep nearest neighbours)
    ellipsoid: Ellipsoid | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise InvalidInput(f"expected a share inside 0..1, got {self.share:g}", field="share")
        for name, cosine in (("nearest", self.nearest), ("mean", self.mean)):
            if cosine is not None and not -1.0 <= cosine <= 1.0:
                raise InvalidInput(f"expected {name} to be a cosine, -1 to 1, got {cosine:g}", field=name)
