"""PatchCamelyon: 96 x 96 px patches of lymph node sections.

Layout: camelyonpatch_level_2_split_{train,valid,test}_x.h5 (`x`, N x 96 x 96 x 3), _y.h5 (`y`, N x 1 x 1 x 1) and
_meta.csv, unpacked (basveeling/pcam). A server reads image files, so each patch is written as PNG first: the test part
and the library, resumable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage

from nearcase.errors import InvalidInput
from nearcase_eval.recipes.recipe import NEGATIVE, POSITIVE, TEST, TRAIN, VALIDATION, Built, Entry, Progress, Recipe
from nearcase_eval.recipes.tables import find, optional, read_table

SPLITS = {"train": TRAIN, "valid": VALIDATION, "test": TEST}
PER_FOLDER = 1000


def build(folder: Path, converted: Path, progress: Progress) -> Built:
    """Writes the patches of each part that is there, and returns their entries.

    Raises:
        InvalidInput: No part is there, or a part's files do not fit.
        Unready: h5py is not installed.
    """
    present = [part for part in SPLITS if any(folder.rglob(f"camelyonpatch_level_2_split_{part}_x.h5"))]
    if not present:
        raise InvalidInput(f"expected camelyonpatch_level_2_split_test_x.h5 (unpacked) in {folder.name}, found none")
    entries = tuple(entry for part in present for entry in _part(folder, part, converted, progress))
    return Built(converted, entries)


def _part(folder: Path, part: str, converted: Path, progress: Progress) -> Iterator[Entry]:
    h5py = optional("h5py", "reading PatchCamelyon")
    stem = f"camelyonpatch_level_2_split_{part}"
    meta = read_table(find(folder, (f"{stem}_meta.csv",), "the table of slides"), ["wsi"])
    with (
        h5py.File(find(folder, (f"{stem}_x.h5",), "the patches")) as patches,
        h5py.File(find(folder, (f"{stem}_y.h5",), "the labels")) as truths,
    ):
        labels = [int(value) for value in truths["y"][:].ravel()]
        if not len(patches["x"]) == len(labels) == len(meta):
            raise InvalidInput(
                f"{stem}: expected as many patches as labels and rows, got {len(patches['x'])}, {len(labels)} and "
                f"{len(meta)}"
            )
        names = [f"{part}/{row // PER_FOLDER:04}/{row:06}.png" for row in range(len(labels))]
        _write(patches["x"], names, converted, part, progress)
    for name, row, label in zip(names, meta, labels, strict=True):
        truth = {"metastasis": POSITIVE if label else NEGATIVE}
        yield Entry(name, patient=row["wsi"], sex="", age="", split=SPLITS[part], labels=truth)


def _write(patches: Any, names: Sequence[str], converted: Path, part: str, progress: Progress) -> None:
    """Writes each patch by rename, so that what is there is whole; a second run writes what is missing."""
    for start in range(0, len(names), PER_FOLDER):
        batch = names[start : start + PER_FOLDER]
        (converted / batch[0]).parent.mkdir(parents=True, exist_ok=True)
        missing = [row for row, name in enumerate(batch) if not (converted / name).exists()]
        pixels = patches[start : start + len(batch)] if missing else ()
        for row in missing:
            file = converted / batch[row]
            PillowImage.fromarray(pixels[row]).save(file.with_suffix(".part"), "PNG")
            os.replace(file.with_suffix(".part"), file)
        progress(f"write {part}", len(batch), len(names))


PCAM = Recipe(
    name="pcam",
    title="PatchCamelyon",
    modality="SM",
    terms="CC0 1.0; cite Veeling 2018 and Ehteshami Bejnordi 2017",
    source="basveeling/pcam",
    build=build,
    unconfirmed=("the column wsi of the tables",),
    cautions=(
        "a slide counts as a patient: Camelyon16 does not publish whose slide is whose",
        "the set states no age and no sex",
        "MedImageInsight was trained on the train part",
    ),
)
