"""Files made to harm: each name maps to a function that makes the bytes. Nothing here is a real patient's.

The kinds come from published advisories on DICOM readers and from what broke plain pydicom when it was tried.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
from dicom_files import CANARY, dicom_file, replaced
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
NOISE = np.random.default_rng(4711).integers(0, 256, 20_000).astype(np.uint8).tobytes()


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One explicit little-endian element, whose stated length may lie."""
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", group, number, vr)
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return head + struct.pack("<HL", 0, size) + value
    return head + struct.pack("<H", size) + value


def meta(syntax: bytes = b"1.2.840.10008.1.2.1") -> bytes:
    """Preamble and meta information."""
    uid = element(2, 0x10, b"UI", syntax + b"\0" * (len(syntax) % 2))
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<L", len(uid))) + uid


def number(keyword_tag: tuple[int, int], value: int) -> bytes:
    return element(*keyword_tag, b"US", struct.pack("<H", value))


def before_pixels(extra: bytes) -> bytes:
    """A good file with extra elements ahead of group 0028."""
    data = dicom_file(RAMP)
    at = data.index(b"\x28\x00\x02\x00US")
    return data[:at] + extra + data[at:]


def bomb(data: bytes, filler_bytes: int) -> bytes:
    """The deflated form of a data set that begins well and goes on with zeros in a private element."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    out = [deflate.compress(data + element(9, 0x1001, b"UN", b"", filler_bytes))]
    zeros = bytes(1 << 20)
    out += [deflate.compress(zeros) for _ in range(filler_bytes >> 20)]
    return b"".join([*out, deflate.flush()])


def nested(depth: int) -> bytes:
    opened = element(9, 0x1001, b"SQ", b"", 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closed = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return before_pixels(opened * depth + closed * depth)


def many_items(count: int) -> bytes:
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * count + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return before_pixels(element(9, 0x1001, b"SQ", items, 0xFFFFFFFF))


def many_elements(count: int) -> bytes:
    return before_pixels(
        b"".join(element(0x0009 + 2 * (at >> 15), 0x1000 + (at & 0x7FFF), b"LO", b"") for at in range(count))
    )


def rle_frame(segment: bytes, segments: int = 1) -> bytes:
    return struct.pack("<16L", segments, *([64] * segments), *([0] * (15 - segments))) + segment


def j2k(columns: int, rows: int) -> bytes:
    """A real codestream whose size marker says something else."""
    frame = bytearray(imagecodecs.jpeg2k_encode(RAMP, level=0, codecformat="j2k", reversible=True))
    frame[8:16] = struct.pack(">LL", columns, rows)
    frame[24:32] = struct.pack(">LL", columns, rows)
    return bytes(frame)


def cut(frame: bytes, share: float) -> bytes:
    return bytes(frame[: int(len(frame) * share)])


def spoilt(frame: bytes) -> bytes:
    """Headers and a beginning that are right, then noise, then a right end."""
    return bytes(frame[: len(frame) // 2]) + NOISE + b"\xff\xd9"


def compressed(syntax: UID, frame: bytes, **attributes: Any) -> bytes:
    return dicom_file(RAMP, syntax=syntax, compressed=[bytes(frame)], **attributes)


def sized(rows: int, columns: int) -> bytes:
    """A good file whose header claims another size."""
    return dicom_file(RAMP, Rows=rows, Columns=columns)


def lut_item(descriptor: list[int], data: bytes) -> Sequence:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = descriptor, data
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    return Sequence([item])


def palette(descriptor: list[int], data: bytes, prefix: str = "") -> bytes:
    attributes: dict[str, Any] = {}
    for color in ("Red", "Green", "Blue"):
        attributes[f"{color}PaletteColorLookupTableDescriptor"] = descriptor
        attributes[f"{prefix}{color}PaletteColorLookupTableData"] = data
    return dicom_file(RAMP, PhotometricInterpretation="PALETTE COLOR", **attributes)


def png_header(columns: int, rows: int) -> bytes:
    """A PNG that claims a size, with hardly any data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))

    size = struct.pack(">LLBBBBB", columns, rows, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_text_bomb() -> bytes:
    text = b"Comment\0\0" + zlib.compress(bytes(200 << 20), 9)
    whole = png_header(4, 4)
    chunk = struct.pack(">L", len(text)) + b"zTXt" + text + struct.pack(">L", zlib.crc32(b"zTXt" + text))
    return whole[:33] + chunk + whole[33:]


def jpeg(columns: int = 64, rows: int = 64) -> bytes:
    out = BytesIO()
    PIL.Image.fromarray((RAMP >> 4).astype(np.uint8)).save(out, "JPEG")
    data = bytearray(out.getvalue())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", rows, columns)
    return bytes(data)


def offsets_that_lie() -> bytes:
    """A basic offset table that points far behind the end."""
    frame = bytes(imagecodecs.jpegls_encode(RAMP))
    data = dicom_file(RAMP, syntax=JPEGLSLossless, compressed=[frame])
    return replaced(
        data, struct.pack("<HHLL", 0xFFFE, 0xE000, 4, 0), struct.pack("<HHLL", 0xFFFE, 0xE000, 4, 0xFFFFFF00)
    )


def functional_groups(count: int) -> bytes:
    """Per-frame groups by the hundred thousand, in the element that is read."""
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * count
    data = dicom_file(RAMP)
    at = data.index(b"\xe0\x7f\x10\x00OW")
    return data[:at] + element(0x5200, 0x9230, b"SQ", items) + data[at:]


GOOD = dicom_file(RAMP)
J2K_FRAME = bytes(imagecodecs.jpeg2k_encode(RAMP, level=0, codecformat="j2k", reversible=True))
HT_FRAME = bytes(imagecodecs.htj2k_encode(RAMP, reversible=True))
LS_FRAME = bytes(imagecodecs.jpegls_encode(RAMP))
LOSSLESS_FRAME = bytes(imagecodecs.jpeg8_encode(RAMP, lossless=True, bitspersample=16, predictor=1))

HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "preamble only": lambda: bytes(128) + b"DICM",
    "random after DICM": lambda: bytes(128) + b"DICM" + NOISE,
    "random bytes": lambda: NOISE,
    "cut in the meta information": lambda: GOOD[:150],
    "cut in the header": lambda: GOOD[:400],
    "cut in the middle of an element": lambda: GOOD[: GOOD.index(b"MONOCHROME2") + 5],
    "cut in the pixels": lambda: GOOD[:-100],
    "deflate bomb": lambda: meta(DeflatedExplicitVRLittleEndian.encode()) + bomb(b"", 300 << 20),
    "deflate bomb before the pixels": lambda: (
        meta(DeflatedExplicitVRLittleEndian.encode()) + bomb(before_pixels(b"")[300:], 300 << 20)),
    "deflated noise": lambda: meta(DeflatedExplicitVRLittleEndian.encode()) + NOISE,
    "sequence of a million empty items": lambda: many_items(1_000_000),
    "functional groups for 100000 frames": lambda: functional_groups(100_000),
    "5000 nested sequences": lambda: nested(5000),
    "200000 private elements": lambda: many_elements(200_000),
    "pixel data of 4 GB in a small file": lambda: replaced(
        GOOD, b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<L", RAMP.nbytes), b"\xe0\x7f\x10\x00OW\0\0\xf0\xff\xff\xff"),
    "native pixel data of undefined length": lambda: replaced(
        GOOD, b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<L", RAMP.nbytes), b"\xe0\x7f\x10\x00OW\0\0\xff\xff\xff\xff"),
    "rows and columns of 65535": lambda: sized(65535, 65535),
    "no rows": lambda: sized(0, 64),
    "rows missing": lambda: dicom_file(RAMP, Rows=None),
    "rows as a long": lambda: replaced(
        GOOD, b"\x28\x00\x10\x00US\x02\x00\x40\x00", b"\x28\x00\x10\x00UL\x04\x00\x40\x00\x00\x80"),
    "2147483647 frames": lambda: dicom_file(RAMP, NumberOfFrames=2147483647),
    "2147483647 compressed frames": lambda: compressed(JPEGLSLossless, LS_FRAME, NumberOfFrames=2147483647),
    "-1 frames": lambda: dicom_file(RAMP, NumberOfFrames=-1),
    "12 bits allocated": lambda: dicom_file(RAMP, BitsAllocated=12),
    "99 bits stored": lambda: dicom_file(RAMP, BitsStored=99),
    "high bit below the stored bits": lambda: dicom_file(RAMP, HighBit=3),
    "7 samples a pixel": lambda: dicom_file(RAMP, SamplesPerPixel=7),
    "RGB of one sample": lambda: dicom_file(RAMP, PhotometricInterpretation="RGB"),
    "no photometric interpretation": lambda: dicom_file(RAMP, PhotometricInterpretation=None),
    "photometric interpretation with a name in it": lambda: dicom_file(RAMP, PhotometricInterpretation=CANARY),
    "palette without a table": lambda: dicom_file(RAMP, PhotometricInterpretation="PALETTE COLOR"),
    "palette shorter than it says": lambda: palette([65535, 0, 16], bytes(10)),
    "palette of 3 bits": lambda: palette([16, 0, 3], bytes(16)),
    "segmented palette that calls itself": lambda: palette(
        [256, 0, 16], struct.pack("<9H", 0, 1, 7, 2, 65535, 0, 0, 2, 65535), "Segmented"),
    "VOI LUT shorter than it says": lambda: dicom_file(RAMP, VOILUTSequence=lut_item([65535, 0, 16], bytes(4))),
    "VOI LUT of 64 bits": lambda: dicom_file(RAMP, VOILUTSequence=lut_item([4, 0, 64], bytes(8))),
    "rescale slope 0": lambda: dicom_file(RAMP, RescaleSlope=0, RescaleIntercept=0),
    "window of NaN": lambda: replaced(
        dicom_file(RAMP, WindowCenter="1234", WindowWidth="4321"), b"4321", b"nan "),
    "window with a name in it": lambda: replaced(
        dicom_file(RAMP, WindowCenter="1234567890", WindowWidth="4321"), b"1234567890", CANARY.encode()),
    "patient name with NUL and line feeds": lambda: replaced(
        GOOD, f"{CANARY}^Jane".encode(), f"{CANARY}\0\n\r\x1b\0".encode()),
    "SOP instance UID that climbs": lambda: dicom_file(
        RAMP, SOPInstanceUID="1.22.33.44.55").replace(b"1.22.33.44.55", b"../../../../x"),
    "patient id that climbs": lambda: dicom_file(RAMP, PatientID=f"../../{CANARY}"),
    "unknown character set": lambda: replaced(
        dicom_file(RAMP, SpecificCharacterSet="ISO_IR 100"), b"ISO_IR 100", b"ISO_IR 471"),
    "Windows program in the preamble": lambda: dicom_file(RAMP, preamble=b"MZ" + bytes(126)),
    "Linux program in the preamble": lambda: dicom_file(RAMP, preamble=b"\x7fELF" + bytes(124)),
    "shell script in the preamble": lambda: dicom_file(RAMP, preamble=b"#!/bin/sh\n" + bytes(118)),
    "TIFF in the preamble": lambda: dicom_file(RAMP, preamble=b"II*\0" + bytes(124)),
    "no transfer syntax": lambda: meta(b"") + GOOD[300:],
    "private transfer syntax": lambda: meta(b"1.2.3.4.5") + GOOD[300:],
    "implicit syntax, explicit bytes": lambda: replaced(GOOD, b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"),
    "implicit with wrong lengths": lambda: dicom_file(RAMP, syntax=ImplicitVRLittleEndian).replace(
        b"\x02\0\0\0", b"\xff\xff\xff\x7f"),
    "video": lambda: compressed(MPEG4HP41, NOISE[:1000]),
    "JPEG 2000 noise": lambda: compressed(JPEG2000Lossless, NOISE),
    "JPEG 2000 of 60000 x 60000": lambda: compressed(JPEG2000, j2k(60000, 60000)),
    "JPEG 2000 of 60000 x 60000, as the header says": lambda: compressed(
        JPEG2000, j2k(60000, 60000), Rows=60000, Columns=60000),
    "JPEG 2000 of no columns": lambda: compressed(JPEG2000, j2k(0, 64)),
    "JPEG 2000 cut": lambda: compressed(JPEG2000, cut(J2K_FRAME, 0.5)),
    "HTJ2K cut": lambda: compressed(HTJ2KLossless, cut(HT_FRAME, 0.6)),
    "HTJ2K header only": lambda: compressed(HTJ2KLossless, HT_FRAME[:120]),
    "JPEG-LS cut": lambda: compressed(JPEGLSLossless, cut(LS_FRAME, 0.5)),
    "JPEG-LS of noise inside": lambda: compressed(JPEGLSLossless, spoilt(LS_FRAME)),
    "JPEG lossless cut": lambda: compressed(JPEGLosslessSV1, cut(LOSSLESS_FRAME, 0.4)),
    "JPEG lossless of noise inside": lambda: compressed(JPEGLosslessSV1, spoilt(LOSSLESS_FRAME)),
    "JPEG 2000 of noise inside": lambda: compressed(JPEG2000, spoilt(J2K_FRAME)),
    "HTJ2K of noise inside": lambda: compressed(HTJ2KLossless, spoilt(HT_FRAME)),
    "JPEG of other sizes than the header": lambda: compressed(JPEGBaseline8Bit, jpeg(65500, 65500)),
    "JPEG of endless markers": lambda: compressed(JPEGBaseline8Bit, b"\xff\xd8" + b"\xff\xd0" * 100_000),
    "frame of no bytes": lambda: compressed(
        JPEGLSLossless, LS_FRAME, PixelData=struct.pack("<HHLHHLHHL", *(0xFFFE, 0xE000, 0) * 2, 0xFFFE, 0xE0DD, 0)),
    "offset table that lies": offsets_that_lie,
    "extended offset table that lies": lambda: compressed(
        JPEGLSLossless, LS_FRAME, ExtendedOffsetTable=b"\xff" * 8, ExtendedOffsetTableLengths=b"\xff" * 8),
    "RLE of 30000 x 30000": lambda: compressed(
        RLELossless, rle_frame(b"\x81\0" * 60_000, 2), Rows=30000, Columns=30000),
    "RLE that ends early": lambda: compressed(RLELossless, rle_frame(b"\x81\0", 2)),
    "RLE with too many segments": lambda: compressed(RLELossless, struct.pack("<16L", 2**31, *[64] * 15) + NOISE),
    "RLE with segments behind the end": lambda: compressed(
        RLELossless, struct.pack("<16L", 2, 2**31, 2**31 + 8, *[0] * 13)),
    "RLE that writes too much": lambda: compressed(RLELossless, rle_frame(b"\x81\0" * 60_000, 2)),
    "PNG of 60000 x 60000": lambda: png_header(60000, 60000),
    "PNG of 4294967295 x 1": lambda: png_header(4294967295, 1),
    "PNG with a text bomb": png_text_bomb,
    "PNG signature and noise": lambda: b"\x89PNG\r\n\x1a\n" + NOISE,
    "JPEG of 65500 x 65500": lambda: jpeg(65500, 65500),
    "JPEG signature and noise": lambda: b"\xff\xd8\xff\xe0" + NOISE,
    "GIF": lambda: b"GIF89a" + NOISE,
}  # fmt: skip
