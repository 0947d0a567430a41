"""DICOM file -> Image: one frame as a reader would see it.

The one boundary at which everything that pydicom and the codecs can raise becomes a typed error of one line.
"""

from __future__ import annotations

import warnings

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.uid import UID

from nearcase.errors import InvalidInput, NearcaseError, Unsupported
from nearcase.intake.burned_in import KEEP_TEXT, TextPolicy, check_text
from nearcase.intake.color import rgb_from_palette, rgb_from_samples, rgb_from_ybr_full
from nearcase.intake.facts import read_facts, read_spacing_mm
from nearcase.intake.frames import choose_frame, encapsulated_frame, native_frame, swapped_words
from nearcase.intake.grey import GreyRules, apply_grey_rules, read_grey_rules, straight_line
from nearcase.intake.header import GREY, PixelHeader, read_header
from nearcase.intake.parse import Parsed, parse
from nearcase.intake.pixels import Stored, decode_encapsulated, decode_native
from nearcase.intake.reduction import SPARE_WAVELETS, Pixels, frame_box, reduction_for
from nearcase.intake.windows import Window
from nearcase.types import Image

# PS3.6 table A-1, by the last parts of 1.2.840.10008.1.2: RLE and the JPEG families that imagecodecs decodes.
_JPEG_FAMILIES = ("4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "4.201", "4.202", "4.203")
_ENCAPSULATED = frozenset({"1.2.840.10008.1.2.5", *(f"1.2.840.10008.1.2.{last}" for last in _JPEG_FAMILIES)})
_WIDE_WINDOW = 0.5  # of the range that the stored bits can hold
_UNDEFINED_LENGTH = 0xFFFFFFFF  # PS3.5 7.1.1
_IMAGES_BY_ANOTHER_NAME = ("Image", "Segmentation", "RT Dose", "Map")


def read_dicom(
    data: bytes,
    *,
    frame_number: int | None = None,
    window: Window | None = None,
    text_policy: TextPolicy = KEEP_TEXT,
    needed_px: int | None = None,
) -> Image:
    """Returns one frame of a DICOM file, rendered as Image.rules tells.

    Args:
        data: The file's bytes. Call this in a sandbox: the bytes decide how much work it is, up to the limits.
        frame_number: Counts from 1; the middle frame when left out.
        window: Stands in for the file's own window or VOI LUT.
        text_policy: What is done about burned-in text, before the pixels go anywhere.
        needed_px: Length of the short side that the caller needs; a much larger frame may come averaged, which is
            many times faster. None for the whole frame.

    Raises:
        InvalidInput: The file is damaged, cut off, contradicts itself, takes too much memory, or the policy refuses it.
        Unsupported: The object is no image, or its coding is one that nothing here decodes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of patient data in its words
        try:
            return _read(data, frame_number, window, text_policy, needed_px)
        except NearcaseError:
            raise
        except (MemoryError, RecursionError) as error:
            raise InvalidInput(f"reading this file ended in {type(error).__name__}", reason="DECODE_LIMIT") from None
        except Exception as error:
            raise InvalidInput(
                f"expected a sound DICOM file, got a damaged one ({type(error).__name__})", reason="DAMAGED_DICOM"
            ) from None


def _read(
    data: bytes, frame_number: int | None, window: Window | None, text_policy: TextPolicy, needed_px: int | None
) -> Image:
    parsed = parse(data)
    _require_image(parsed)
    header = read_header(parsed.dataset)
    frame = choose_frame(frame_number, header.frame_count)
    facts = read_facts(parsed.dataset, sop_class_uid=parsed.sop_class_uid, frame_number=frame)
    regions = check_text(parsed.dataset, (facts.sop_class_uid, parsed.sop_class_uid), text_policy)
    grey_rules = _grey_rules(parsed, header, frame, window)
    if grey_rules is None or regions is not None:
        needed_px = None  # colour moves when it is averaged; text outside a region would be carried into it
    stored = _stored(parsed, header, frame, _most_halvings(header, grey_rules, needed_px))
    side = reduction_for(stored.values.shape[0], stored.values.shape[1], needed_px)
    pixels, rules = _rendered(parsed, header, stored, grey_rules, side)
    if regions is not None:
        pixels, rules = regions.masked(pixels.astype(np.uint8, copy=False)), (*rules, regions.rule)
    reduction = side << stored.halvings
    box = frame_box(header.rows, header.columns, stored.halvings, side)
    chosen = (f"frame {frame} of {header.frame_count}",) if header.frame_count > 1 else ()
    reduced = (f"averaged over {reduction} x {reduction} pixels",) if reduction > 1 else ()
    return Image(
        pixels=pixels,
        facts=facts,
        media_type="application/dicom",
        transfer_syntax_uid=str(parsed.transfer_syntax),
        frame_number=frame,
        frame_count=header.frame_count,
        spacing_mm=read_spacing_mm(parsed.dataset, frame),
        rules=(*chosen, *reduced, *rules),
        reduction=reduction,
        frame_box=box,
    )


def _grey_rules(parsed: Parsed, header: PixelHeader, frame: int, window: Window | None) -> GreyRules | None:
    if header.photometric not in GREY:
        return None
    is_little_endian = parsed.byte_order == "<"
    return read_grey_rules(parsed.dataset, header, frame, window, is_little_endian=is_little_endian)


def _most_halvings(header: PixelHeader, rules: GreyRules | None, needed_px: int | None) -> int:
    """How often a codec may halve a frame before its window, which commute where the window cuts off little.

    Where the range depends on every pixel, or a table or a narrow window applies, the whole frame is decoded.
    """
    line = None if rules is None else straight_line(rules.modality, rules.voi)
    if line is None or needed_px is None:
        return 0
    steps = (1 << header.bits_stored) - 1
    least = -(1 << header.bits_stored - 1) if header.is_signed else 0
    shown = min(line[1], least + steps) - max(line[0], least)
    if shown < _WIDE_WINDOW * steps:
        return 0
    return reduction_for(header.rows, header.columns, needed_px, SPARE_WAVELETS).bit_length() - 1


def _require_image(parsed: Parsed) -> None:
    """Names what holds no image instead of calling it damaged (PS3.4 annex B lists the storage classes)."""
    if "PixelData" in parsed.dataset:
        return
    if "FloatPixelData" in parsed.dataset or "DoubleFloatPixelData" in parsed.dataset:
        raise Unsupported("images of floating point values can not be read", reason="FLOAT_PIXELS")
    kind = UID(str(parsed.dataset.get("SOPClassUID") or parsed.sop_class_uid))
    if kind.is_valid and kind.name != str(kind) and not any(word in kind.name for word in _IMAGES_BY_ANOTHER_NAME):
        raise Unsupported(f"expected an image, got an object of {kind.name}", reason="NOT_AN_IMAGE")
    raise InvalidInput("expected pixel data, found none", reason="NO_PIXELS", field="PixelData")


def _stored(parsed: Parsed, header: PixelHeader, frame: int, most_halvings: int = 0) -> Stored:
    _require_whole_pixels(parsed)
    data, syntax = parsed.dataset.PixelData, parsed.transfer_syntax
    if not isinstance(data, bytes) or not data:
        raise InvalidInput("expected pixel data, found none", reason="NO_PIXELS", field="PixelData")
    if not syntax.is_compressed or syntax.is_deflated:
        if parsed.byte_order == ">" and header.bits_allocated == 8 and parsed.dataset["PixelData"].VR == "OW":
            data = swapped_words(data)
        return decode_native(*native_frame(data, header, frame), header, parsed.byte_order)
    if str(syntax) not in _ENCAPSULATED:
        raise Unsupported(f"images coded in {syntax.name} can not be decoded", reason="TRANSFER_SYNTAX")
    return decode_encapsulated(encapsulated_frame(data, parsed.dataset, header, frame), header, syntax, most_halvings)


def _require_whole_pixels(parsed: Parsed) -> None:
    """Refuses an element whose stated length runs past the end of the file; pydicom takes what there is."""
    element: object = parsed.dataset.get_item("PixelData")
    if isinstance(element, RawDataElement) and element.length != _UNDEFINED_LENGTH:
        found = len(element.value or b"")
        if found < element.length:
            raise InvalidInput(
                f"expected {element.length} bytes of pixel data, got {found}", reason="TRUNCATED", field="PixelData"
            )


def _rendered(
    parsed: Parsed, header: PixelHeader, stored: Stored, grey_rules: GreyRules | None, side: int
) -> tuple[Pixels, tuple[str, ...]]:
    if grey_rules is not None:
        return apply_grey_rules(stored.values, grey_rules, side, is_halved=stored.halvings > 0)
    if stored.photometric == "PALETTE COLOR":
        return rgb_from_palette(stored.values, parsed.dataset, parsed.byte_order), ("palette applied",)
    rgb = rgb_from_samples(stored.values, stored.bits)
    scaled = (f"{stored.bits} bits scaled to 8",) if stored.bits != 8 else ()
    if stored.photometric == "RGB":
        came_as = () if header.photometric == "RGB" else (f"{header.photometric} as RGB",)
        return rgb, (*scaled, *came_as)
    return rgb_from_ybr_full(rgb), (*scaled, f"{header.photometric} as RGB")
