"""A volume in Hounsfield units -> the block of voxels that an encoder of volumes was trained on.

The volume is read plane by plane, twice: first for its extent, then for its values. A chest CT of thin slices would
fill the memory of its child process otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from nearcase.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = Callable[[int], NDArray[np.float32]]
    """Slice number, from 0 -> its values (rows, columns), finite."""

CHEST_CT = ("chest-ct", 1)
"""Name and version of the one recipe that this module carries out; a card that asks for another is refused."""

CROP_HU = -1000.0
LOW_HU, HIGH_HU = -1000.0, 200.0
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0))
AXIAL = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Direction of a plain axial volume in LPS: slices to the head, rows to the back, columns to the left."""


@dataclass(frozen=True, slots=True)
class VolumeRecipe:
    """How the input of an encoder of volumes is made; part of every library's identity.

    "chest-ct" version 1, as Astra was trained (MONAI's transforms of these names): the axes are turned and flipped, not
    resampled, to RAS; the block is cropped to the voxels above -1000 HU; it is resized to the shape with the means of
    boxes ("area"), proportions not kept; -1000 to 200 HU become 0 to 1, and what lies outside is clipped.
    """

    name: str
    version: int
    shape_voxels: tuple[int, int, int]  # to the right, to the front, to the head

    @property
    def identity(self) -> str:
        """Name, version and shape as one word: "chest-ct-1-224x224x160"."""
        return f"{self.name}-{self.version}-{'x'.join(map(str, self.shape_voxels))}"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input of the network."""
        return (1, *self.shape_voxels)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of what `fit_volume` returns."""
        return self.shape_voxels


def fit_volume(
    plane: Plane, shape: tuple[int, int, int], direction: NDArray[np.float64], recipe: VolumeRecipe
) -> NDArray[np.float32]:
    """Returns (X, Y, Z) float32 values from 0 to 1 in RAS, of the recipe's shape.

    Args:
        plane: Gives one slice in Hounsfield units; called twice for each.
        shape: Slices, rows, columns.
        direction: (3, 3); its columns are the unit vectors across slices, down columns and along rows, in LPS.
        recipe: Says the shape.

    Raises:
        InvalidInput: No voxel is above -1000 HU, so that this is no CT of a body.
    """
    axes, is_flipped = _to_ras(direction)
    sizes = [recipe.shape_voxels[axes.index(axis)] for axis in range(3)]
    slices, rows, columns = _extent(plane, shape)
    small = np.empty((slices.stop - slices.start, sizes[1], sizes[2]), np.float64)
    for place, number in enumerate(range(slices.start, slices.stop)):
        small[place] = _means(_means(plane(number)[rows, columns], sizes[2], 1), sizes[1], 0)
    block = _means(small, sizes[0], 0).transpose(axes)
    block = block[tuple(slice(None, None, -1 if flip else 1) for flip in is_flipped)]
    scaled = np.clip((block - LOW_HU) / (HIGH_HU - LOW_HU), 0.0, 1.0)
    return np.ascontiguousarray(scaled, dtype=np.float32)


def window_plane(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Returns a slice as a picture, in the range that the recipe keeps."""
    shown: NDArray[np.uint8] = np.rint(np.clip((values - LOW_HU) / (HIGH_HU - LOW_HU), 0.0, 1.0) * 255.0).astype(
        np.uint8
    )
    return shown


def _to_ras(direction: NDArray[np.float64]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Which axis of the volume runs along x, y and z, and which of them run the other way."""
    cosines = _LPS_TO_RAS @ direction
    axes = max(permutations(range(3)), key=lambda order: sum(abs(cosines[at, axis]) for at, axis in enumerate(order)))
    return axes, tuple(bool(cosines[at, axis] < 0.0) for at, axis in enumerate(axes))


def _extent(plane: Plane, shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """The least box that holds every voxel above the crop's limit."""
    found = [np.zeros(size, np.bool_) for size in shape]
    for number in range(shape[0]):
        inside = plane(number) > CROP_HU
        found[1] |= inside.any(axis=1)
        found[2] |= inside.any(axis=0)
        found[0][number] = inside.any()
    if not found[0].any():
        raise InvalidInput(f"expected a CT in Hounsfield units, got a volume with no value above {CROP_HU:g}")
    first, second, third = (np.flatnonzero(each) for each in found)
    return (
        slice(int(first[0]), int(first[-1]) + 1),
        slice(int(second[0]), int(second[-1]) + 1),
        slice(int(third[0]), int(third[-1]) + 1),
    )


def _means(values: NDArray[np.floating], size: int, axis: int) -> NDArray[np.float64]:
    """Means over `size` boxes along an axis: box i reaches from floor(i n / size) to ceil((i + 1) n / size).

    The mean of a box in three dimensions is the mean of means along each, because all its rows are of one length.
    """
    count = values.shape[axis]
    starts = np.arange(size) * count // size
    stops = -(-np.arange(1, size + 1) * count // size)
    sums = np.concatenate(
        (np.zeros_like(values.take([0], axis), np.float64), np.cumsum(values, axis=axis, dtype=np.float64)), axis
    )
    lengths = np.expand_dims(stops - starts, tuple(each for each in range(values.ndim) if each != axis))
    found: NDArray[np.float64] = (sums.take(stops, axis) - sums.take(starts, axis)) / lengths
    return found
