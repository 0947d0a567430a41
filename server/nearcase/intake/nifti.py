"""NIfTI file -> volume in LPS, or one axial slice of it as an Image.

NIfTI says nothing of patient, modality or window: facts stay empty, and its text fields are anybody's words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput
from nearcase.intake.damage import typed_damage
from nearcase.intake.frames import choose_frame
from nearcase.intake.nifti_header import NiftiHeader, inflated, is_nifti, read_nifti_header
from nearcase.intake.planes import Planes
from nearcase.intake.presets import parse_window
from nearcase.intake.volume import Volume, describe
from nearcase.intake.windows import Window, apply_window
from nearcase.types import CaseFacts, Image

__all__ = ["describe_nifti", "is_nifti", "read_nifti", "read_nifti_image", "read_nifti_planes"]

MEDIA_TYPE = "application/x-nifti"
_RAS_TO_LPS = np.diag((-1.0, -1.0, 1.0))
_LETTERS = ("LR", "PA", "SI")  # of a LPS axis: the letter of its positive and of its negative end
_OBLIQUE_DEGREES = 1.0
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class _Grid:
    """The stored values as (slices, rows, columns): slices up, rows to the back, columns to the left of the patient."""

    stored: NDArray[np.generic]  # a view of the bytes, still unscaled
    header: NiftiHeader
    origin_mm: NDArray[np.float64]
    direction: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]
    findings: tuple[str, ...]

    def values(self, index: int) -> NDArray[np.float64]:
        """The scaled values of one slice; those that are no numbers stay so."""
        values: NDArray[np.float64] = self.stored[index].astype(np.float64)
        if self.header.is_scaled:
            values = values * self.header.slope + self.header.intercept
        return values


def read_nifti(data: bytes) -> Volume:
    """Returns the first volume of a NIfTI file, its axes turned so that slices are as nearly axial as they can be.

    Nothing is resampled. Voxels that are no finite number take the smallest value of the volume, and it is said.

    Args:
        data: The file's bytes, plain or gzip. Call this in a sandbox.

    Raises:
        InvalidInput: The file is damaged, cut off, contradicts itself, or is too large.
        Unsupported: Colour, complex numbers or vectors, or a header without its voxels.
    """
    with typed_damage("NIfTI", "DAMAGED_IMAGE"):
        grid = _grid(data)
        voxels = np.empty(grid.stored.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit float32 is infinite, and said below
            for index in range(len(voxels)):
                voxels[index] = grid.values(index)
        return Volume(
            voxels=voxels,
            spacing_mm=_triple(grid.spacing_mm),
            origin_mm=_triple(grid.origin_mm),
            direction=grid.direction,
            offsets_mm=tuple(float(grid.spacing_mm[0] * index) for index in range(len(voxels))),
            facts=CaseFacts(),
            unit="",
            suv=None,
            findings=(*grid.findings, *_made_finite(voxels)),
        )


def read_nifti_planes(data: bytes) -> Planes:
    """Returns the slices of the first volume of a NIfTI file, as read_nifti, one at a time.

    Raises:
        InvalidInput, Unsupported: As read_nifti.
    """
    with typed_damage("NIfTI", "DAMAGED_IMAGE"):
        grid = _grid(data)
        count, rows, columns = grid.stored.shape
        smallest, missing = _smallest(grid)

    def plane(number: int) -> NDArray[np.float32]:
        values = grid.values(number)
        return np.where(np.abs(values) <= _LARGEST, values, smallest).astype(np.float32)

    return Planes(
        shape=(count, rows, columns),
        direction=grid.direction,
        plane=plane,
        facts=CaseFacts(),
        unit="",
        media_type=MEDIA_TYPE,
        findings=(
            f"volume of {count} slices",
            *grid.findings,
            *([f"{missing} voxels without a finite value take the smallest one"] if missing else []),
        ),
    )


def _smallest(grid: _Grid) -> tuple[float, int]:
    """The smallest finite value, and how many are not finite."""
    smallest, missing = math.inf, 0
    for index in range(grid.stored.shape[0]):
        values = grid.values(index)
        finite = np.abs(values) <= _LARGEST
        missing += values.size - int(finite.sum())
        smallest = min(smallest, float(values.min(where=finite, initial=math.inf)))
    return (smallest if math.isfinite(smallest) else 0.0), missing


def read_nifti_image(data: bytes, *, frame_number: int | None = None, window: str = "first") -> Image:
    """Returns one axial slice of a NIfTI file, as a reader would see it: front up, the patient's left on the right.

    Args:
        data: The file's bytes, plain or gzip. Call this in a sandbox.
        frame_number: The slice, from 1 at the feet; the middle one when left out.
        window: As presets.parse_window; "first" is the display range of the header, else the full range of the slice.
            A CT preset takes the values for Hounsfield units: NIfTI does not say what they are.

    Raises:
        InvalidInput, Unsupported: As read_nifti; or there is no such slice or window.
    """
    with typed_damage("NIfTI", "DAMAGED_IMAGE"):
        grid = _grid(data)
        count = grid.stored.shape[0]
        frame = choose_frame(frame_number, count)
        pixels, rule = _grey(grid.values(frame - 1), _chosen(window), grid.header.display_range)
        header = grid.header
        scaled = (f"scaled by slope {header.slope:g} intercept {header.intercept:g}",) if header.is_scaled else ()
        return Image(
            pixels=pixels,
            facts=CaseFacts(),
            media_type=MEDIA_TYPE,
            frame_number=frame,
            frame_count=count,
            spacing_mm=(float(grid.spacing_mm[1]), float(grid.spacing_mm[2])),
            rules=(f"axial slice {frame} of {count}", *grid.findings, *scaled, rule),
        )


def describe_nifti(data: bytes) -> dict[str, Any]:
    """Returns what a NIfTI file holds, for people and for JSON.

    Raises:
        InvalidInput, Unsupported: As read_nifti.
    """
    return describe(read_nifti(data))


def _grid(data: bytes) -> _Grid:
    header = read_nifti_header(data)
    whole = header.voxel_offset + header.volume_bytes
    content = inflated(data, whole + 1)  # one byte more has gzip compare its check sum where the file ends here
    if len(content) < whole:
        raise InvalidInput(f"expected {whole} bytes of NIfTI, got {len(content)}", reason="TRUNCATED")
    flat = np.frombuffer(content, header.kind, math.prod(header.shape), header.voxel_offset)
    return _turned(flat.reshape(header.shape, order="F"), header)


def _turned(stored: NDArray[np.generic], header: NiftiHeader) -> _Grid:
    """Puts the voxel axes into the order slices, rows, columns, and turns those that run the other way."""
    affine = _RAS_TO_LPS @ header.affine_mm[:3]
    steps, origin = _with_thickness(affine[:, :3], header.shape), affine[:, 3]
    lengths = np.linalg.norm(steps, axis=0)
    if not (lengths > 1e-6).all() or abs(np.linalg.det(steps / lengths)) < 0.05:
        raise InvalidInput("expected axes that span a volume, got others", reason="BAD_ATTRIBUTE", field="sform")
    cosines = steps / lengths
    order = max(
        permutations(range(3)), key=lambda axes: sum(abs(cosines[2 - at, axis]) for at, axis in enumerate(axes))
    )
    turned = stored.transpose(order)
    for at, axis in enumerate(order):
        if cosines[2 - at, axis] < 0.0:
            turned = np.flip(turned, at)
            origin = origin + steps[:, axis] * (header.shape[axis] - 1)
            cosines[:, axis] *= -1.0
    direction = cosines[:, list(order)]
    findings = _findings(header, affine[:, :3], direction)
    return _Grid(turned, header, origin, direction, lengths[list(order)], findings)


def _with_thickness(steps: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Gives the third axis of a single slice a length where it has none: 1 mm across the other two."""
    if shape[2] == 1 and not steps[:, 2].any():
        normal = np.cross(steps[:, 0], steps[:, 1])
        length = np.linalg.norm(normal)
        return np.column_stack((steps[:, :2], normal / length if length else normal))
    return steps.copy()


def _findings(header: NiftiHeader, steps: NDArray[np.float64], direction: NDArray[np.float64]) -> tuple[str, ...]:
    found = [f"voxel axes {_axes(steps)} turned to axial slices in LPS ({header.orientation})"]
    if header.orientation == "none":
        found[0] = "no orientation stated: left and right of the patient are not known"
    degrees = float(np.degrees(np.arccos(np.clip(np.abs(direction[2, 0]), 0.0, 1.0))))
    if degrees > _OBLIQUE_DEGREES:
        found.append(f"slices are oblique, {degrees:.0f} degrees off axial; not resampled")
    if np.abs(direction.T @ direction - np.eye(3)).max() > 0.01:
        found.append("the axes are not at right angles: the block is sheared")
    if header.volume_count > 1:
        found.append(f"volume 1 of {header.volume_count} taken")
    if not header.has_unit:
        found.append("no unit of length stated, millimetres taken")
    return tuple(found)


def _axes(steps: NDArray[np.float64]) -> str:
    """Where each voxel axis runs to, as three letters: RAS for right, anterior, superior."""
    letters = []
    for axis in range(3):
        nearest = int(np.argmax(np.abs(steps[:, axis])))
        letters.append(_LETTERS[nearest][int(steps[nearest, axis] < 0.0)])
    return "".join(letters)


def _made_finite(voxels: NDArray[np.float32]) -> tuple[str, ...]:
    """Slice by slice: a mask of the whole volume would not fit the child's memory beside the largest one."""
    if all(np.isfinite(plane).all() for plane in voxels):
        return ()
    finite = [np.isfinite(plane) for plane in voxels]
    smallest = min((plane[mask].min() for plane, mask in zip(voxels, finite, strict=True) if mask.any()), default=0.0)
    for plane, mask in zip(voxels, finite, strict=True):
        plane[~mask] = smallest
    count = voxels.size - sum(int(mask.sum()) for mask in finite)
    return (f"{count} voxels without a finite value take the smallest one",)


def _chosen(words: str) -> Window | None:
    choice = parse_window(words)
    if isinstance(choice, int):
        if choice > 1:
            raise InvalidInput("NIfTI files have no windows of their own to choose from", field="window")
        return None
    return choice


def _grey(
    values: NDArray[np.float64], window: Window | None, display_range: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], str]:
    finite = np.abs(values) <= _LARGEST
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
    values = np.where(finite, values, low)
    rule = f"full range {low:g} to {high:g}"
    if window is not None:
        share, rule = apply_window(values, window), str(window)
    else:
        if display_range is not None:
            (low, high), rule = display_range, "display range {:g} to {:g}".format(*display_range)
        share = np.clip((values - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(values)
    return np.rint(share * 255.0).astype(np.uint8), rule


def _triple(vector: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])
