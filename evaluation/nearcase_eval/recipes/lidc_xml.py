"""LIDC-IDRI's XML: what up to four readers outlined, and which outlines are of one nodule.

Elements (namespace http://www.nih.gov): LidcReadMessage / ResponseHeader / SeriesInstanceUid; readingSession (one
reader) / unblindedReadNodule / characteristics / malignancy (1 to 5) and roi / imageSOP_UID, inclusion, edgeMap /
xCoord, yCoord. A nodule of 3 mm or more has characteristics; smaller ones and non-nodules are not read here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree  # the set's own files; expat from 2.4.1 on stops entity bombs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from nearcase.errors import InvalidInput

NAMESPACE = {"n": "http://www.nih.gov"}
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


@dataclass(frozen=True, slots=True)
class Outline:
    """One nodule as one reader saw it."""

    reader: int
    malignancy: int  # 1 highly unlikely, 3 indeterminate, 5 highly suspicious
    boxes: Mapping[str, Box]  # SOP Instance UID to the box around the outline on that slice


@dataclass(frozen=True, slots=True)
class Nodule:
    """The outlines of one nodule by different readers."""

    outlines: tuple[Outline, ...]

    @property
    def readers(self) -> int:
        """How many readers outlined it."""
        return len({each.reader for each in self.outlines})

    @property
    def malignancy(self) -> float:
        """Median over the outlines, 1 to 5."""
        return float(median(each.malignancy for each in self.outlines))

    @property
    def slice_uid(self) -> str:
        """The slice that most readers outlined; of several, the one with the largest box, then the first by UID."""
        found: dict[str, list[Box]] = {}
        for each in self.outlines:
            for uid, box in each.boxes.items():
                found.setdefault(uid, []).append(box)
        return min(found, key=lambda uid: (-len(found[uid]), -max(map(_area, found[uid])), uid))


def read_nodules(path: Path) -> tuple[str, tuple[Nodule, ...]] | None:
    """Returns (Series Instance UID, nodules), or None for the XML of something else, such as a chest radiograph.

    Raises:
        InvalidInput: It is no XML, or a CT reading without a series.
    """
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314  # see the import
    except (ElementTree.ParseError, OSError) as error:
        raise InvalidInput(f"{path.name}: expected LIDC's XML: {error}") from error
    if not root.tag.endswith("}LidcReadMessage"):
        return None
    series = root.findtext("n:ResponseHeader/n:SeriesInstanceUid", "", NAMESPACE).strip()
    if not series:
        raise InvalidInput(f"{path.name}: expected a SeriesInstanceUid in the header, found none")
    sessions = enumerate(root.iterfind("n:readingSession", NAMESPACE))
    outlines = [
        outline
        for reader, session in sessions
        for nodule in session.iterfind("n:unblindedReadNodule", NAMESPACE)
        if (outline := _outline(nodule, reader)) is not None
    ]
    return series, merged(outlines)


def merged(outlines: list[Outline]) -> tuple[Nodule, ...]:
    """Returns nodules: outlines are of one nodule when their boxes meet on a slice, directly or through others."""
    groups: list[list[Outline]] = []
    for outline in outlines:
        touching = [group for group in groups if any(_meet(outline, other) for other in group)]
        groups = [group for group in groups if group not in touching]
        groups.append([outline, *(each for group in touching for each in group)])
    return tuple(Nodule(tuple(group)) for group in groups)


def _outline(nodule: ElementTree.Element, reader: int) -> Outline | None:
    rating = nodule.findtext("n:characteristics/n:malignancy", "", NAMESPACE).strip()
    boxes: dict[str, Box] = {}
    for roi in nodule.iterfind("n:roi", NAMESPACE):
        if roi.findtext("n:inclusion", "TRUE", NAMESPACE).strip().upper() == "TRUE":
            uid = roi.findtext("n:imageSOP_UID", "", NAMESPACE).strip()
            points = [
                (float(edge.findtext("n:xCoord", "0", NAMESPACE)), float(edge.findtext("n:yCoord", "0", NAMESPACE)))
                for edge in roi.iterfind("n:edgeMap", NAMESPACE)
            ]
            if uid and points:
                xs, ys = zip(*points, strict=True)
                boxes[uid] = (min(xs), min(ys), max(xs), max(ys))
    if rating not in ("1", "2", "3", "4", "5") or not boxes:
        return None  # a nodule below 3 mm, or one that the reader did not rate
    return Outline(reader, int(rating), boxes)


def _meet(a: Outline, b: Outline) -> bool:
    shared = a.boxes.keys() & b.boxes.keys()
    return any(_overlap(a.boxes[uid], b.boxes[uid]) for uid in shared)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _area(box: Box) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
