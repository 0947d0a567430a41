"""LIDC-IDRI: chest CT with nodules that up to four radiologists outlined and rated.

Layout: a DICOM folder for each series below LIDC-IDRI/LIDC-IDRI-0001/..., the XML of the readings beside the slices or
in a folder of its own (TCIA's "LIDC-XML-only"): they are matched by Series Instance UID, not by name. The image is the
whole CT slice that most readers outlined, and its outcome is the median malignancy: above 3 positive, below 3
negative, 3 unknown. A nodule needs three readers, as in most published work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearcase.errors import InvalidInput
from nearcase_eval.recipes.lidc_xml import Nodule, read_nodules
from nearcase_eval.recipes.located import walk
from nearcase_eval.recipes.recipe import NEGATIVE, POSITIVE, UNKNOWN, Built, Entry, Progress, Recipe
from nearcase_eval.recipes.tables import optional

LEAST_READERS = 3
INDETERMINATE = 3.0
TAGS = ("SOPInstanceUID", "SeriesInstanceUID", "PatientID", "PatientSex", "PatientAge")


def build(folder: Path, converted: Path, progress: Progress) -> Built:
    """Returns an entry for each slice that shows a nodule best.

    Raises:
        InvalidInput: There is no XML of a CT, or none of its series is there.
        Unready: pydicom is not installed.
    """
    readings = _readings(folder)
    wanted = {nodule.slice_uid for nodules in readings.values() for nodule in nodules}
    headers = _headers(folder, set(readings), wanted, progress)
    shown: dict[str, list[Nodule]] = {}
    for nodule in (nodule for nodules in readings.values() for nodule in nodules):
        if nodule.slice_uid in headers:
            shown.setdefault(nodule.slice_uid, []).append(nodule)
    if not shown:
        raise InvalidInput(f"expected the CT series of {len(readings)} XML files in {folder.name}, found none")
    entries = tuple(_entry(*headers[uid], nodules) for uid, nodules in sorted(shown.items()))
    lost = len(wanted) - len(headers)
    return Built(folder, entries, (f"{lost} slices with nodules are not in the folder and are left out",) * bool(lost))


def _readings(folder: Path) -> dict[str, tuple[Nodule, ...]]:
    """Returns the nodules of enough readers by series."""
    found: dict[str, tuple[Nodule, ...]] = {}
    for path in walk(folder, (".xml",)):
        read = read_nodules(folder / path)
        if read is not None:
            series, nodules = read
            found[series] = tuple(nodule for nodule in nodules if nodule.readers >= LEAST_READERS)
    if not found:
        raise InvalidInput(f"expected LIDC's XML files (LidcReadMessage) in {folder.name}, found none")
    return found


def _headers(
    folder: Path, series: set[str], wanted: set[str], progress: Progress
) -> Mapping[str, tuple[str, Mapping[str, str]]]:
    """Returns SOP Instance UID to (path, header) of the wanted slices; a folder of another series is skipped."""
    pydicom = optional("pydicom", "reading LIDC-IDRI")
    files = [path.as_posix() for path in walk(folder, (".dcm",))]
    sizes = Counter(path.rpartition("/")[0] for path in files)
    skipped: set[str] = set()
    known: set[str] = set()
    found: dict[str, tuple[str, Mapping[str, str]]] = {}
    for path in files:
        parent = path.rpartition("/")[0]
        if parent in skipped:
            continue
        header = _header(pydicom, folder / path)
        if parent not in known:
            known.add(parent)
            if header["SeriesInstanceUID"] not in series:
                skipped.add(parent)
                progress("read headers", sizes[parent], len(files))
                continue
        if header["SOPInstanceUID"] in wanted:
            found[header["SOPInstanceUID"]] = (path, header)
        progress("read headers", 1, len(files))
    return found


def _header(pydicom: Any, path: Path) -> dict[str, str]:
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
    except Exception as error:  # pydicom fails in many ways on a damaged file
        raise InvalidInput(f"{path.name}: expected DICOM: {type(error).__name__}") from error
    return {name: str(data.get(name, "") or "").strip() for name in TAGS}


def _entry(path: str, header: Mapping[str, str], nodules: list[Nodule]) -> Entry:
    """A slice that shows several nodules best has the outcome of the most suspicious one."""
    worst = max(nodules, key=lambda nodule: nodule.malignancy)
    rating = worst.malignancy
    label = UNKNOWN if rating == INDETERMINATE else POSITIVE if rating > INDETERMINATE else NEGATIVE
    columns = {"malignancy_median": f"{rating:g}", "readers": str(worst.readers)}
    sex = header["PatientSex"] if header["PatientSex"] in ("F", "M", "O") else ""
    return Entry(path, header["PatientID"], sex, header["PatientAge"], "", {"malignant": label}, columns=columns)


LIDC = Recipe(
    name="lidc-idri",
    title="LIDC-IDRI",
    modality="CT",
    terms="CC BY 3.0; cite Armato 2011 and the TCIA collection",
    source="TCIA's XML as public parsers read it",
    build=build,
    unconfirmed=("MedImageInsight's own classes and tiles, which are not published in full",),
    cautions=(
        "malignancy is the readers' opinion, not a diagnosis",
        "the image is the whole slice, not a tile around the nodule: most of what is embedded is not the nodule",
        "most files state no sex and no age",
        "the set has no official split",
    ),
)
