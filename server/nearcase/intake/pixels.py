"""One frame's bytes -> stored values, decoded by imagecodecs; what they mean comes later (grey, color)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID, RLELossless

from nearcase.errors import InvalidInput
from nearcase.intake.codestream import Codestream, Coding, read_codestream
from nearcase.intake.color import ybr_full_from_422
from nearcase.intake.header import PixelHeader
from nearcase.intake.wavelets import decode_halved, halvings_for


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored values of one frame.

    values is (rows, columns) or (rows, columns, 3), of the signedness that the header states; photometric is what
    colour samples are now, which a codec may have changed. After halvings the sides are shorter by that power of two
    (and longer by one, see wavelets.decode_halved).
    """

    values: NDArray[Any]
    photometric: str
    bits: int
    halvings: int = 0


def decode_native(data: bytes, skip_bits: int, header: PixelHeader, byte_order: str) -> Stored:
    """Returns the values of a native frame (PS3.5 8.1.1).

    Args:
        data: The bytes that hold the frame.
        skip_bits: Bits of the first byte that belong to the frame before.
        header: Checked pixel attributes.
        byte_order: "<" or ">".
    """
    if header.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        values = bits[skip_bits : skip_bits + header.pixel_count].reshape(header.rows, header.columns)
        return Stored(values, header.photometric, 1)
    if header.photometric == "YBR_FULL_422":
        _require_8_bits(header)
        return Stored(ybr_full_from_422(data, header.rows, header.columns), "YBR_FULL", 8)
    kind = np.dtype(f"{byte_order}u{header.bits_allocated // 8}")
    flat = np.frombuffer(data, kind).astype(kind.newbyteorder("="), copy=False)
    return Stored(_used_bits(_shaped(flat, header, header.is_planar), header), header.photometric, header.bits_stored)


def decode_encapsulated(frame: bytes, header: PixelHeader, transfer_syntax: UID, most_halvings: int = 0) -> Stored:
    """Returns the values of a compressed frame.

    Args:
        frame: The compressed bytes.
        header: Checked pixel attributes.
        transfer_syntax: How the frame is coded.
        most_halvings: How often a coding in wavelets may leave out a level, where the caller needs less.

    Raises:
        InvalidInput: The frame is damaged, or says other sizes than the header.
        Unsupported: A JPEG process that no codec here knows.
    """
    if transfer_syntax == RLELossless:
        return _rle(frame, header)
    stream = read_codestream(frame)
    _check_against_header(stream, header)
    codestream = frame[stream.start :]
    values, halvings = _halved(codestream, stream, header, most_halvings)
    if values is None:
        values = np.asarray(_decoded(codestream, stream, header))
    extra = 1 if halvings else 0  # a row and a column
    shape = ((header.rows - 1 >> halvings) + 1 + extra, (header.columns - 1 >> halvings) + 1 + extra, 3)
    if values.shape != shape[: 2 if header.samples == 1 else 3]:
        raise _damaged(stream.coding.value)
    if header.samples == 3:
        return Stored(_unsigned(values), _color_after(stream, header), stream.precision, halvings)
    return Stored(_signed_as_stated(values, stream.precision, header), header.photometric, stream.precision, halvings)


def _halved(codestream: bytes, stream: Codestream, header: PixelHeader, most: int) -> tuple[NDArray[Any] | None, int]:
    """None and 0 where the whole frame has to be decoded, which then decides whether it is damaged."""
    halvings = halvings_for(stream, most) if stream.is_signed == header.is_signed else 0
    if halvings:
        try:
            return decode_halved(codestream, stream, halvings), halvings
        except (OSError, ValueError):
            pass  # a tile may have fewer levels than the header says
    return None, 0


def _rle(frame: bytes, header: PixelHeader) -> Stored:
    """RLE holds byte planes, most significant first, colour by plane whatever the header says (PS3.5 annex G)."""
    if header.bits_allocated == 1:
        raise InvalidInput("expected 8 or more bits allocated for RLE, got 1", reason="BAD_ATTRIBUTE")
    kind = np.dtype(f"<u{header.bits_allocated // 8}")
    size = header.pixel_count * header.samples * kind.itemsize
    try:
        flat = imagecodecs.dicomrle_decode(frame, kind, out=bytearray(size))
    except (MemoryError, RecursionError):
        raise
    except Exception:
        raise _damaged("RLE") from None
    values = _used_bits(_shaped(np.frombuffer(flat, kind), header, is_planar=True), header)
    return Stored(values, header.photometric.replace("YBR_FULL_422", "YBR_FULL"), header.bits_stored)


def _decoded(frame: bytes, stream: Codestream, header: PixelHeader) -> Any:
    try:
        match stream.coding:
            case Coding.JPEG | Coding.JPEG_LOSSLESS:
                return _jpeg(frame, stream, header)
            case Coding.JPEG_LS:
                return imagecodecs.jpegls_decode(frame)
            case Coding.JPEG_2000:
                return imagecodecs.jpeg2k_decode(frame, numthreads=1)
            case Coding.HTJ2K:
                return imagecodecs.htj2k_decode(frame)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # each codec has errors of its own; their words stay here
        raise _damaged(stream.coding.value) from None


def _jpeg(frame: bytes, stream: Codestream, header: PixelHeader) -> Any:
    if header.samples == 1:
        return imagecodecs.jpeg8_decode(frame)
    return imagecodecs.jpeg8_decode(frame, colorspace="RGB", outcolorspace="RGB")


def _color_after(stream: Codestream, header: PixelHeader) -> str:
    """What the samples are after decoding; where header and codestream differ, the codestream is right.

    JPEG 2000 codecs undo the ICT and RCT themselves (PS3.5 8.2.4). JPEG samples come out as they went in.
    """
    if header.photometric in ("YBR_ICT", "YBR_RCT") or stream.is_rgb:
        return "RGB"
    if stream.is_ybr and stream.coding is Coding.JPEG:
        return "YBR_FULL"
    return header.photometric.replace("YBR_FULL_422", "YBR_FULL")


def _check_against_header(stream: Codestream, header: PixelHeader) -> None:
    claimed = (header.rows, header.columns, header.samples)
    found = (stream.rows, stream.columns, stream.components)
    if claimed != found or stream.precision > max(header.bits_allocated, 8):
        raise InvalidInput(
            f"expected a frame of {claimed} and at most {header.bits_allocated} bits as the header says, the "
            f"compressed frame says {found} and {stream.precision}",
            reason="HEADER_MISMATCH",
            field="Rows",
        )


def _shaped(flat: NDArray[Any], header: PixelHeader, is_planar: bool) -> NDArray[Any]:
    if header.samples == 1:
        return flat.reshape(header.rows, header.columns)
    if is_planar:
        return flat.reshape(3, header.rows, header.columns).transpose(1, 2, 0)
    return flat.reshape(header.rows, header.columns, 3)


def _used_bits(values: NDArray[Any], header: PixelHeader) -> NDArray[Any]:
    """Keeps the stored bits, whatever lies in the others (overlays once did), and extends the sign."""
    above, below = header.bits_allocated - 1 - header.high_bit, header.bits_allocated - header.bits_stored
    if header.is_signed and header.samples == 1:
        values = values.view(f"i{values.dtype.itemsize}")
    if above == below == 0:
        return values
    if above == below and values.dtype.kind == "u" and values.max() >> header.bits_stored == 0:
        return values  # nothing in the unused bits, as in most films: one pass in place of two copies
    kept = values << above
    kept >>= below
    return kept


def _signed_as_stated(values: NDArray[Any], precision: int, header: PixelHeader) -> NDArray[Any]:
    """Reads the codec's bits with the header's signedness: only JPEG 2000 has a sign, and some writers set it wrong."""
    unsigned = _unsigned(values)
    unused = 8 * unsigned.dtype.itemsize - precision
    typed = unsigned.view(f"i{unsigned.dtype.itemsize}") if header.is_signed else unsigned
    return (typed << unused) >> unused if unused else typed


def _unsigned(values: NDArray[Any]) -> NDArray[Any]:
    values = np.ascontiguousarray(values)
    return values.view(f"u{values.dtype.itemsize}")


def _require_8_bits(header: PixelHeader) -> None:
    if header.bits_allocated != 8:
        raise InvalidInput("expected 8 bits allocated for YBR_FULL_422", reason="BAD_ATTRIBUTE", field="BitsAllocated")


def _damaged(coding: str) -> InvalidInput:
    return InvalidInput(f"the {coding} frame is damaged and can not be decoded", reason="DAMAGED_PIXELS")
