"""The Image Pixel module, checked before a single pixel is touched (PS3.3 C.7.6.3)."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from nearcase.errors import InvalidInput
from nearcase.intake.elements import integer, text

MAX_FRAME_PIXELS = 1 << 26
"""67 megapixels: more than twice the largest film; a header that says more is a mistake or an attack."""
MAX_FRAME_BYTES = 1 << 27
GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_BITS_ALLOCATED = (1, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class PixelHeader:
    """What the header claims of one frame's stored values."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    photometric: str
    is_planar: bool
    frame_count: int

    @property
    def pixel_count(self) -> int:
        """Pixels in one frame."""
        return self.rows * self.columns

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame; YBR_FULL_422 shares its chroma between two pixels (PS3.3 C.7.6.3.1.2)."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.pixel_count * samples * self.bits_allocated


def read_header(dataset: Dataset) -> PixelHeader:
    """Returns the checked pixel attributes of a dataset.

    Raises:
        InvalidInput: An attribute is missing, contradicts another, or claims more than MAX_FRAME_PIXELS.
    """
    bits_allocated = _required(dataset, "BitsAllocated")
    bits_stored = integer(dataset, "BitsStored", bits_allocated)
    header = PixelHeader(
        rows=_required(dataset, "Rows"),
        columns=_required(dataset, "Columns"),
        samples=integer(dataset, "SamplesPerPixel", 1),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=integer(dataset, "HighBit", bits_stored - 1),
        is_signed=integer(dataset, "PixelRepresentation", 0) == 1,
        photometric=text(dataset, "PhotometricInterpretation").upper(),
        is_planar=integer(dataset, "PlanarConfiguration", 0) == 1,
        frame_count=integer(dataset, "NumberOfFrames", 1),
    )
    _check(header)
    return header


def _required(dataset: Dataset, keyword: str) -> int:
    value = integer(dataset, keyword, -1)
    if value == -1:
        raise InvalidInput(f"expected {keyword}, found none", reason="MISSING_ATTRIBUTE", field=keyword)
    return value


def _check(header: PixelHeader) -> None:
    if not (0 < header.rows <= 0xFFFF and 0 < header.columns <= 0xFFFF):
        raise _wrong(f"expected 1 to 65535 rows and columns, got {header.rows} x {header.columns}", "Rows")
    if header.bits_allocated not in _BITS_ALLOCATED:
        raise _wrong(f"expected 1, 8, 16 or 32 bits allocated, got {header.bits_allocated}", "BitsAllocated")
    if not 0 < header.bits_stored <= header.bits_allocated:
        raise _wrong(
            f"expected 1 to {header.bits_allocated} bits stored, got {header.bits_stored}",
            "BitsStored",
        )
    if not header.bits_stored - 1 <= header.high_bit < header.bits_allocated:
        raise _wrong(f"expected a high bit for {header.bits_stored} stored bits, got {header.high_bit}", "HighBit")
    if header.frame_count < 1:
        raise _wrong(f"expected at least 1 frame, got {header.frame_count}", "NumberOfFrames")
    _check_photometric(header)
    frame_bytes = header.pixel_count * header.samples * max(header.bits_allocated // 8, 1)
    if header.pixel_count > MAX_FRAME_PIXELS or frame_bytes > MAX_FRAME_BYTES:
        raise InvalidInput(
            f"expected at most {MAX_FRAME_PIXELS} pixels and {MAX_FRAME_BYTES} bytes a frame, got {header.pixel_count} "
            f"pixels and {frame_bytes} bytes",
            reason="IMAGE_TOO_LARGE",
            field="Rows",
        )


def _check_photometric(header: PixelHeader) -> None:
    samples = dict.fromkeys((*GREY, "PALETTE COLOR"), 1) | dict.fromkeys(COLOR, 3)
    if header.photometric not in samples:
        raise _wrong(
            "expected a photometric interpretation of MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB or YBR, got another",
            "PhotometricInterpretation",
        )
    if header.samples != samples[header.photometric]:
        raise _wrong(
            f"expected {samples[header.photometric]} samples a pixel for {header.photometric}, got {header.samples}",
            "SamplesPerPixel",
        )
    if header.photometric == "YBR_FULL_422" and header.columns % 2:
        raise _wrong("expected an even number of columns for YBR_FULL_422, got an odd one", "Columns")
    if header.samples == 3 and header.bits_allocated == 1:
        raise _wrong("expected 8 or more bits allocated for colour, got 1", "BitsAllocated")


def _wrong(message: str, keyword: str) -> InvalidInput:
    return InvalidInput(message, reason="BAD_ATTRIBUTE", field=keyword)
