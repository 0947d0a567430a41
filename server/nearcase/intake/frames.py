"""The bytes of one frame out of Pixel Data, native or encapsulated (PS3.5 8.1 and A.4)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from nearcase.errors import InvalidInput
from nearcase.intake.header import PixelHeader


def choose_frame(frame_number: int | None, frame_count: int) -> int:
    """Returns the frame to read, counting from 1: the one asked for, else the middle one.

    The middle of a stack shows the anatomy; its ends show the table and the air.

    Raises:
        InvalidInput: There is no such frame.
    """
    if frame_number is None:
        return middle_frame(frame_count)
    if not 1 <= frame_number <= frame_count:
        raise InvalidInput(
            f"expected a frame from 1 to {frame_count}, got {frame_number}", reason="NO_SUCH_FRAME", field="frame"
        )
    return frame_number


def middle_frame(frame_count: int) -> int:
    """Returns the number of the middle frame, counting from 1."""
    return frame_count // 2 + 1


def native_frame(data: bytes, header: PixelHeader, frame_number: int) -> tuple[bytes, int]:
    """Returns the bytes that hold a native frame, and the bits to skip at their start.

    Frames of 1-bit images follow each other without a gap, so one may begin inside a byte (PS3.5 8.1.1).

    Raises:
        InvalidInput: Pixel Data ends before the frame does.
    """
    first_bit = header.frame_bits * (frame_number - 1)
    end = (first_bit + header.frame_bits + 7) // 8
    needed = (header.frame_bits * header.frame_count + 7) // 8
    if len(data) < needed:
        raise InvalidInput(
            f"expected {needed} bytes of pixel data, got {len(data)}", reason="TRUNCATED", field="PixelData"
        )
    return data[first_bit // 8 : end], first_bit % 8


def encapsulated_frame(data: bytes, dataset: Dataset, header: PixelHeader, frame_number: int) -> bytes:
    """Returns the compressed bytes of a frame, found by the extended or basic offset table or by counting.

    Raises:
        InvalidInput: There are fewer frames than the header says, or the fragments are malformed.
    """
    table, lengths = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    extended = (table, lengths) if isinstance(table, bytes) and isinstance(lengths, bytes) else None
    try:
        frame = get_frame(data, frame_number - 1, extended_offsets=extended, number_of_frames=header.frame_count)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        frame = b""
    if not frame:
        raise InvalidInput(
            f"expected {header.frame_count} compressed frames, frame {frame_number} can not be found",
            reason="TRUNCATED",
            field="PixelData",
        )
    return frame


def swapped_words(data: bytes) -> bytes:
    """Returns big-endian OW data as bytes in their order: each 16-bit word was written swapped (PS3.5 annex D)."""
    return np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
