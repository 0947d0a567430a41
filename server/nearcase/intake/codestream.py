"""What a compressed frame says of itself, read before any decoder sees it.

JPEG and JPEG-LS: ITU-T T.81 annex B and T.87 annex C; JPEG 2000: T.800 annex A. A decoder sizes its memory by these
numbers, so they must agree with the DICOM header, which was checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from nearcase.errors import InvalidInput, Unsupported


class Coding(Enum):
    """The families that need different decoders."""

    JPEG = "JPEG"
    JPEG_LOSSLESS = "JPEG lossless"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"
    HTJ2K = "HTJ2K"


@dataclass(frozen=True, slots=True)
class Codestream:
    """The frame header of one compressed frame."""

    coding: Coding
    rows: int
    columns: int
    components: int
    precision: int  # bits of a sample
    is_signed: bool = False  # JPEG 2000 only
    is_rgb: bool = False  # the components name themselves R, G, B, or Adobe's marker says no transform
    is_ybr: bool = False  # a JFIF or Adobe marker says so
    levels: int = 0  # how often JPEG 2000 can be halved
    start: int = 0  # offset of the codestream in the frame, past a JP2 file's boxes


_SOC_SIZ = b"\xff\x4f\xff\x51"
_CAP, _COD, _SOT = b"\xff\x50", b"\xff\x52", b"\xff\x90"
_END = b"\xff\xd9"  # the same marker in all families, and never inside coded data
_LOSSLESS_SOF = 0xC3
_JPEG_LS_SOF = 0xF7
_LOSSY_SOFS = (0xC0, 0xC1, 0xC2)
_OTHER_SOFS = (0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_BARE = (0x01, *range(0xD0, 0xD9))
_RGB_IDS = (b"RGB", b"rgb")


def read_codestream(frame: bytes) -> Codestream:
    """Returns the frame header of a JPEG, JPEG-LS or JPEG 2000 frame.

    Raises:
        InvalidInput: The frame is none of these, or has no end: decoders fill what is missing with grey.
        Unsupported: A JPEG process with arithmetic or hierarchical coding.
    """
    try:
        if frame[:2] == b"\xff\xd8":
            return _jpeg(frame)
        start = 0 if frame.startswith(_SOC_SIZ) else frame.find(_SOC_SIZ, 0, 4096)
        if start >= 0:
            return _jpeg_2000(frame, start)
    except IndexError:
        raise _cut_off() from None
    raise InvalidInput(
        "expected a JPEG, JPEG-LS or JPEG 2000 frame, got other bytes", reason="BAD_CODESTREAM", field="PixelData"
    )


def _jpeg(frame: bytes) -> Codestream:
    is_rgb = is_ybr = False
    at = 2
    while True:
        while frame[at] == 0xFF and frame[at + 1] == 0xFF:
            at += 1  # fill bytes
        if frame[at] != 0xFF:
            raise InvalidInput("expected a JPEG marker, got other bytes", reason="BAD_CODESTREAM", field="PixelData")
        marker = frame[at + 1]
        if marker in _BARE:
            at += 2
            continue
        if marker in (*_LOSSY_SOFS, _LOSSLESS_SOF, _JPEG_LS_SOF):
            return _sof(frame, at, marker, is_rgb, is_ybr)
        if marker in _OTHER_SOFS:
            raise Unsupported("JPEG frames with arithmetic or hierarchical coding can not be decoded")
        body = frame[at + 4 : at + 18]
        if marker == 0xE0 and body.startswith(b"JFIF"):
            is_ybr = True
        if marker == 0xEE and body.startswith(b"Adobe"):
            is_rgb, is_ybr = body[11] == 0, body[11] == 1
        at += 2 + _u16(frame, at + 2)


def _sof(frame: bytes, at: int, marker: int, is_rgb: bool, is_ybr: bool) -> Codestream:
    coding = {_LOSSLESS_SOF: Coding.JPEG_LOSSLESS, _JPEG_LS_SOF: Coding.JPEG_LS}.get(marker, Coding.JPEG)
    if frame.find(_END, at) < 0:
        raise _cut_off()
    components = frame[at + 9]
    ids = bytes(frame[at + 10 + 3 * number] for number in range(components))
    return Codestream(
        coding,
        rows=_u16(frame, at + 5),
        columns=_u16(frame, at + 7),
        components=components,
        precision=frame[at + 4],
        is_rgb=is_rgb or ids in _RGB_IDS,
        is_ybr=is_ybr and ids not in _RGB_IDS,
    )


def _jpeg_2000(frame: bytes, start: int) -> Codestream:
    if frame.find(_END, start) < 0:
        raise _cut_off()
    size = start + 4  # of Lsiz; Rsiz, Xsiz, Ysiz, XOsiz, YOsiz follow at +2, +4, +8, +12, +16
    components = _u16(frame, size + 36)
    depths = {frame[size + 38 + 3 * number] for number in range(min(components, 4))}
    if len(depths) != 1:
        raise InvalidInput("expected components of one depth, got several", reason="BAD_CODESTREAM", field="PixelData")
    depth = depths.pop()
    has_cap = frame.find(_CAP, size, size + _u16(frame, size) + 2) >= size + _u16(frame, size)
    return Codestream(
        Coding.HTJ2K if has_cap else Coding.JPEG_2000,
        rows=_u32(frame, size + 8) - _u32(frame, size + 16),
        columns=_u32(frame, size + 4) - _u32(frame, size + 12),
        components=components,
        precision=(depth & 0x7F) + 1,
        is_signed=bool(depth & 0x80),
        levels=_levels(frame, size),
        start=start,
    )


def _levels(frame: bytes, at: int) -> int:
    """Decomposition levels of the COD marker, which stands in the main header (T.800 A.6.1)."""
    at += _u16(frame, at)
    while frame[at : at + 2] not in (_COD, _SOT):
        at += 2 + _u16(frame, at + 2)
    return frame[at + 9] if frame[at : at + 2] == _COD else 0


def _cut_off() -> InvalidInput:
    return InvalidInput("expected a whole compressed frame, got its beginning", reason="TRUNCATED", field="PixelData")


def _u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _u32(data: bytes, at: int) -> int:
    return _u16(data, at) << 16 | _u16(data, at + 2)
