"""Text that is part of the picture: names and dates that ultrasound, screen captures and scanned films show.

The header alone can not tell whether there is any, so what is not known is taken for there being some.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from nearcase.errors import InvalidInput
from nearcase.intake.elements import integer, item, text

MAX_REGIONS = 64
_ULTRASOUND = frozenset({"US", "IVUS"})
_ULTRASOUND_CLASSES = ("1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.6")
_SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
# Pictures that a detector or a reconstruction makes without a screen or a camera in between.
_WITHOUT_TEXT = frozenset({"CR", "CT", "DX", "IO", "MG", "MR", "NM", "PT", "PX"})
_SCREENS = ("SCREEN", "SAVE", "CAPTURE", "DOSE_INFO")  # as vendors name them in Image Type (0008,0008)
_DRAWN_FORMATS = (1, 2, 3, 4)  # 2D, M-mode, spectral, wave form; not "none" and "graphics" (PS3.3 C.8.5.5.1.1)


@dataclass(frozen=True, slots=True)
class TextPolicy:
    """What is done about burned-in text; by default nothing."""

    refuses: bool = False  # an image that says it holds some, or may
    masks: bool = False  # of ultrasound, all but the regions that the file declares
    takes_plain: bool = True  # files that can not say anything: PNG, JPEG, NIfTI


KEEP_TEXT = TextPolicy()


@dataclass(frozen=True, slots=True)
class Regions:
    """The rectangles of an ultrasound image that hold measured data."""

    rows: int
    columns: int
    boxes: tuple[tuple[int, int, int, int], ...]  # (first row, first column, last row, last column), from 0

    @property
    def rule(self) -> str:
        """What Image.rules says of it."""
        count = len(self.boxes)
        return f"masked outside {count} ultrasound region{'' if count == 1 else 's'}"

    def masked(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns the pixels, (rows, columns) or (rows, columns, 3), black outside the regions."""
        kept = self.inside
        return np.where(kept if pixels.ndim == 2 else kept[..., np.newaxis], pixels, np.uint8(0))

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(rows, columns), true within a region."""
        kept = np.zeros((self.rows, self.columns), dtype=bool)
        for top, left, bottom, right in self.boxes:
            kept[top : bottom + 1, left : right + 1] = True
        return kept


def check_text(dataset: Dataset, sop_classes: tuple[str, ...], policy: TextPolicy) -> Regions | None:
    """Returns the regions to which an image must be masked, None where it may be used as it is.

    Burned In Annotation (0028,0301) YES refuses, NO is believed (PS3.3 C.7.6.1.1). Without a statement, only what a
    detector makes is taken to hold no text: not ultrasound, secondary captures, photographs, scanned films, screens.
    Ultrasound with a Sequence of Ultrasound Regions (0018,6011) can be masked instead, and then always is.

    Args:
        dataset: The parsed object.
        sop_classes: As the data set and the file's meta information state it.
        policy: What to do.

    Raises:
        InvalidInput: The policy refuses the image.
    """
    if not policy.refuses and not policy.masks:
        return None
    modality = text(dataset, "Modality").upper()
    is_ultrasound = modality in _ULTRASOUND or any(_is_of(each, _ULTRASOUND_CLASSES) for each in sop_classes)
    regions = _regions(dataset) if policy.masks and is_ultrasound else None
    if regions is not None or not policy.refuses:
        return regions
    stated = _values(dataset, "BurnedInAnnotation")
    if "YES" in stated:
        raise _refusal("expected an image without burned-in annotation, got one that states YES")
    if stated != ["NO"] and (is_ultrasound or _may_hold_text(dataset, modality, sop_classes)):
        raise _refusal("expected an image of this kind to state Burned In Annotation NO, got no such statement")
    return None


def check_plain(kind: str, policy: TextPolicy) -> None:
    """Refuses a file of a kind that can not state whether its picture holds text.

    Raises:
        InvalidInput: The policy does not take it.
    """
    if not policy.takes_plain:
        raise _refusal(f"expected a file that can state Burned In Annotation NO, got a {kind} file")


def _may_hold_text(dataset: Dataset, modality: str, sop_classes: tuple[str, ...]) -> bool:
    """True but for detector modalities; Conversion Type tells scans and captures (PS3.3 C.8.6.1)."""
    if modality not in _WITHOUT_TEXT or text(dataset, "ConversionType"):
        return True
    if any(_is_of(each, (_SECONDARY_CAPTURES,)) for each in sop_classes):
        return True
    return any(word in value for value in _values(dataset, "ImageType") for word in _SCREENS)


def _values(dataset: Dataset, keyword: str) -> list[str]:
    """All values of an element, as capitals; of a damaged one, what a screen capture would say."""
    try:
        value: object = dataset.get(keyword)
        values = list(value) if isinstance(value, MultiValue | list) else [value or ""]
        return [str(each).strip().upper() for each in values]
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return [_SCREENS[0]]


def _is_of(sop_class_uid: str, families: tuple[str, ...]) -> bool:
    return any(sop_class_uid == family or sop_class_uid.startswith(f"{family}.") for family in families)


def _regions(dataset: Dataset) -> Regions | None:
    """The regions with data (PS3.3 C.8.5.5), None where there are none or where they can not be right.

    They can not be when one runs past the frame, as in a picture that was scaled or cropped after they were written,
    or when nothing is left outside: then the text is inside.
    """
    rows, columns = integer(dataset, "Rows", 0), integer(dataset, "Columns", 0)
    boxes: list[tuple[int, int, int, int]] = []
    for index in range(MAX_REGIONS + 1):
        region = item(dataset, "SequenceOfUltrasoundRegions", index)
        if region is None:
            break
        if integer(region, "RegionSpatialFormat", 0) not in _DRAWN_FORMATS:
            continue
        box = _box(region, rows, columns)
        if box is None or index == MAX_REGIONS:
            return None
        boxes.append(box)
    regions = Regions(rows, columns, tuple(boxes))
    return regions if boxes and not regions.inside.all() else None


def _box(region: Dataset, rows: int, columns: int) -> tuple[int, int, int, int] | None:
    """The bounds, both ends included; a last row or column that is counted from 1 is usual and taken as the edge."""
    left, top = integer(region, "RegionLocationMinX0", -1), integer(region, "RegionLocationMinY0", -1)
    right, bottom = integer(region, "RegionLocationMaxX1", -1), integer(region, "RegionLocationMaxY1", -1)
    if not (0 <= left <= right <= columns and 0 <= top <= bottom <= rows and left < columns and top < rows):
        return None
    return top, left, min(bottom, rows - 1), min(right, columns - 1)


def _refusal(message: str) -> InvalidInput:
    return InvalidInput(message, reason="BURNED_IN", field="BurnedInAnnotation")
