"""The header of a NIfTI-1 or NIfTI-2 file, checked before a single voxel is touched.

Offsets and codes are those of nifti1.h and nifti2.h of the NIfTI data format working group. The bytes may be gzip: no
more is ever inflated than is asked for.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearcase.errors import InvalidInput, Unsupported

MAX_VOXELS = 1 << 27
"""Of one 3-D volume: 512 slices of 512 x 512; more than one child process may hold as float32."""
_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348
_MAGICS = {b"n+1\0": 1, b"n+2\0\r\n\x1a\n": 2}
_PAIR_MAGICS = (b"ni1\0", b"ni2\0\r\n\x1a\n")
_KINDS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_OTHER_KINDS = {1: "bits", 32: "complex numbers", 128: "RGB", 1536: "128 bit", 1792: "complex numbers", 2304: "RGBA"}
_LARGEST = float(np.finfo(np.float32).max)
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


@dataclass(frozen=True, slots=True)
class NiftiHeader:
    """What the header says of the voxels; the first of several volumes is meant."""

    version: int
    shape: tuple[int, int, int]
    volume_count: int  # of dimension 4, time
    kind: np.dtype[np.generic]
    voxel_offset: int  # in the file, past header and extensions
    slope: float
    intercept: float
    is_scaled: bool
    affine_mm: NDArray[np.float64]  # (4, 4): voxel (i, j, k) to RAS, x to the right, y to the front, z to the head
    orientation: str  # sform, qform or none
    display_range: tuple[float, float] | None  # cal_min and cal_max
    has_unit: bool  # the unit of length is stated

    @property
    def volume_bytes(self) -> int:
        """Bytes of one volume."""
        return math.prod(self.shape) * self.kind.itemsize


def is_nifti(data: bytes) -> bool:
    """True for the magic of a NIfTI file, single or the header of a pair, plain or gzip."""
    try:
        return _version(_start(data)) is not None
    except InvalidInput:
        return False


def read_nifti_header(data: bytes) -> NiftiHeader:
    """Returns the checked header.

    Raises:
        InvalidInput: A field is out of its range, or claims more than MAX_VOXELS.
        Unsupported: Colour, complex numbers or vectors; or a header without its voxels (.hdr of a pair).
    """
    start = _start(data)
    found = _version(start)
    if found is None:
        raise _wrong("expected a NIfTI file, got other bytes", "UNKNOWN_FORMAT")
    version, order, is_pair = found
    if is_pair:
        raise Unsupported("expected NIfTI in one file (.nii), got the header of a pair (.hdr and .img)")
    fields = _Fields(start, order, version)
    shape, volume_count = _shape(fields)
    slope, intercept, is_scaled = _scaling(fields)
    affine, orientation = _affine(fields)
    length_unit = fields.whole("xyzt_units") & 0x07
    affine[:3] *= _TO_MM.get(length_unit, 1.0)
    if not np.isfinite(affine).all() or np.abs(affine).max() > 1e5:
        raise _wrong("expected a finite orientation of at most 100 m, got another", field="sform")
    low, high = fields.real("cal_min"), fields.real("cal_max")
    return NiftiHeader(
        version=version,
        shape=shape,
        volume_count=volume_count,
        kind=_kind(fields),
        voxel_offset=_voxel_offset(fields, version),
        slope=slope,
        intercept=intercept,
        is_scaled=is_scaled,
        affine_mm=affine,
        orientation=orientation,
        display_range=(low, high) if -_LARGEST < low < high < _LARGEST else None,
        has_unit=length_unit in (1, 2, 3),
    )


def inflated(data: bytes, size: int) -> bytes:
    """Returns the first bytes of a file that may be gzip, of one or more members; fewer when it ends before.

    Raises:
        InvalidInput: The gzip stream is damaged.
    """
    if not data.startswith(_GZIP):
        return data[:size]
    parts: list[bytes] = []
    left, rest = size, data
    try:
        while left and rest.startswith(_GZIP):
            inflator = zlib.decompressobj(16 + zlib.MAX_WBITS)
            parts.append(inflator.decompress(rest, left))
            left -= len(parts[-1])
            rest = inflator.unused_data
            if not inflator.eof:
                break
    except zlib.error:
        raise _wrong("expected a sound gzip file, got a damaged one", "DAMAGED_IMAGE") from None
    return b"".join(parts)


_PLACES = {
    1: {
        "dim": (40, "8h"), "datatype": (70, "h"), "pixdim": (76, "8f"), "vox_offset": (108, "f"),
        "scl_slope": (112, "f"), "scl_inter": (116, "f"), "xyzt_units": (123, "B"), "cal_max": (124, "f"),
        "cal_min": (128, "f"), "qform_code": (252, "h"), "sform_code": (254, "h"), "quatern": (256, "6f"),
        "srow": (280, "12f"),
    },
    2: {
        "dim": (16, "8q"), "datatype": (12, "h"), "pixdim": (104, "8d"), "vox_offset": (168, "q"),
        "scl_slope": (176, "d"), "scl_inter": (184, "d"), "xyzt_units": (500, "i"), "cal_max": (192, "d"),
        "cal_min": (200, "d"), "qform_code": (344, "i"), "sform_code": (348, "i"), "quatern": (352, "6d"),
        "srow": (400, "12d"),
    },
}  # fmt: skip


class _Fields:
    """Fields by name: NIfTI-1 and NIfTI-2 differ in offsets and widths only."""

    def __init__(self, start: bytes, order: str, version: int) -> None:
        self._start, self.order, self._places = start, order, _PLACES[version]

    def all(self, name: str) -> tuple[float, ...]:
        place, code = self._places[name]
        return struct.unpack_from(self.order + code, self._start, place)

    def real(self, name: str) -> float:
        return float(self.all(name)[0])

    def whole(self, name: str) -> int:
        return int(self.all(name)[0])


def _start(data: bytes) -> bytes:
    return inflated(data, _HEADER_BYTES).ljust(_HEADER_BYTES, b"\0")


def _version(start: bytes) -> tuple[int, str, bool] | None:
    """The version, the byte order by the header's own size, and whether the voxels lie in another file."""
    for version, size, place, length in ((1, 348, 344, 4), (2, 540, 4, 8)):
        magic = start[place : place + length]
        for order in "<>":
            if struct.unpack_from(f"{order}i", start)[0] != size:
                continue
            if _MAGICS.get(magic) == version or magic in _PAIR_MAGICS:
                return version, order, magic in _PAIR_MAGICS
    return None


def _shape(fields: _Fields) -> tuple[tuple[int, int, int], int]:
    dimensions, *sizes = (int(value) for value in fields.all("dim"))
    if not 1 <= dimensions <= 7:
        raise _wrong(f"expected 1 to 7 dimensions, got {dimensions}", field="dim")
    used = [*sizes[:dimensions], *[1] * (7 - dimensions)]
    if any(not 1 <= size <= 1 << 20 for size in used):
        raise _wrong(f"expected sizes from 1 to {1 << 20}, got another", field="dim")
    if max(used[4:]) > 1:
        raise Unsupported("NIfTI files of vectors, tensors or matrices can not be read as images")
    shape = used[0], used[1], used[2]
    if math.prod(shape) > MAX_VOXELS:
        raise _wrong(f"expected at most {MAX_VOXELS} voxels, got {math.prod(shape)}", "IMAGE_TOO_LARGE", "dim")
    return shape, used[3]


def _kind(fields: _Fields) -> np.dtype[np.generic]:
    code = fields.whole("datatype")
    if code in _OTHER_KINDS:
        raise Unsupported(f"NIfTI files of {_OTHER_KINDS[code]} can not be read as images")
    if code not in _KINDS:
        raise _wrong(f"expected a data type that NIfTI defines, got {code}", field="datatype")
    return np.dtype(fields.order + _KINDS[code])


def _voxel_offset(fields: _Fields, version: int) -> int:
    offset, least = fields.real("vox_offset"), {1: 352, 2: 544}[version]
    if offset == 0:
        return least  # what some writers leave in single files
    if not (math.isfinite(offset) and least <= offset <= 1 << 26 and offset == int(offset)):
        raise _wrong(f"expected voxels to begin at byte {least} or later, got {offset:g}", field="vox_offset")
    return int(offset)


def _scaling(fields: _Fields) -> tuple[float, float, bool]:
    """A slope of 0, or one that is no number, stands for "not scaled"; the intercept is not used then."""
    slope, intercept = fields.real("scl_slope"), fields.real("scl_inter")
    if slope == 0.0 or not math.isfinite(slope):
        return 1.0, 0.0, False
    if not math.isfinite(intercept):
        raise _wrong("expected a finite scl_inter, got another", field="scl_inter")
    return slope, intercept, (slope, intercept) != (1.0, 0.0)


def _affine(fields: _Fields) -> tuple[NDArray[np.float64], str]:
    """sform before qform; without either the axes only have lengths, and left and right are not known."""
    affine = np.eye(4)
    if fields.whole("sform_code") > 0:
        affine[:3] = np.array(fields.all("srow"), np.float64).reshape(3, 4)
        return affine, "sform"
    pixdim = np.array(fields.all("pixdim"), np.float64)
    lengths = np.abs(pixdim[1:4])
    if fields.whole("qform_code") > 0:
        quaternion = np.array(fields.all("quatern"), np.float64)
        affine[:3, :3] = _rotation(*quaternion[:3]) * lengths * (1.0, 1.0, -1.0 if pixdim[0] < 0 else 1.0)
        affine[:3, 3] = quaternion[3:]
        return affine, "qform"
    affine[:3, :3] = np.diag(
        lengths * (-1.0, 1.0, 1.0)
    )  # the order of Analyze: first voxels to the right of the patient
    affine[:3, 3] = -affine[:3, :3] @ (np.array(_shape(fields)[0]) - 1.0) / 2.0
    return affine, "none"


def _rotation(b: float, c: float, d: float) -> NDArray[np.float64]:
    """The rotation of a unit quaternion with a = sqrt(1 - b^2 - c^2 - d^2) (nifti1.h, method 2)."""
    rest = 1.0 - (b * b + c * c + d * d)
    if not rest > -1e-5:
        raise _wrong("expected a unit quaternion as qform, got a longer one", field="quatern_b")
    a = math.sqrt(max(rest, 0.0))
    return np.array(
        (
            (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
            (2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)),
            (2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c),
        )
    )


def _wrong(message: str, reason: str = "BAD_ATTRIBUTE", field: str = "") -> InvalidInput:
    return InvalidInput(message, reason=reason, field=field)
