"""OCT2017: optical coherence tomography of the retina (Kermany 2018).

Layout: train, val and test with CNV, DME, DRUSEN and NORMAL below; files are named CLASS-PATIENT-NUMBER.jpeg (Mendeley
Data rscbjbr9sj). The split leaks: patients of the test part are in the train part too (Tampu 2022, Scientific Data
9:580). Numbers of different classes are taken as one person when they are equal, which can only make the test harder.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from nearcase.errors import InvalidInput
from nearcase_eval.recipes.located import walk
from nearcase_eval.recipes.recipe import NEGATIVE, POSITIVE, TEST, TRAIN, VALIDATION, Built, Entry, Progress, Recipe

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
SPLITS = {"train": TRAIN, "val": VALIDATION, "test": TEST}
NAME = re.compile(rf"({'|'.join(CLASSES)})-(\d+)-\d+", re.IGNORECASE)


def build(folder: Path, converted: Path, progress: Progress) -> Built:
    """Returns an entry for each image in the folder of a class.

    Raises:
        InvalidInput: No image lies and is named as the providers lay and name them.
    """
    entries = tuple(entry for path in walk(folder) if (entry := _entry(path)) is not None)
    if not entries:
        raise InvalidInput(f"expected images like train/CNV/CNV-1016042-1.jpeg in {folder.name}, found none")
    return Built(folder, entries)


def _entry(path: PurePosixPath) -> Entry | None:
    if len(path.parts) < 3:
        return None
    split, kind = path.parts[-3].strip().lower(), path.parts[-2].upper()
    name = NAME.fullmatch(path.stem)
    if split not in SPLITS or kind not in CLASSES or name is None:
        return None
    labels = {each.lower(): POSITIVE if each == kind else NEGATIVE for each in CLASSES}
    return Entry(path.as_posix(), name[2], sex="", age="", split=SPLITS[split], labels=labels)


OCT2017 = Recipe(
    name="oct2017",
    title="OCT2017",
    modality="OPT",
    terms="CC BY 4.0; cite Kermany 2018",
    source="Mendeley Data rscbjbr9sj and its description",
    build=build,
    cautions=(
        "the official split has the same patients in train and test (Tampu 2022): published figures are too high",
        "the set states no age and no sex",
    ),
)
