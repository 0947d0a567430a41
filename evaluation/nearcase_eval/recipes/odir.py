"""ODIR-5K: fundus photographs of both eyes, with keywords for each eye and classes for the patient.

Layout: OIA-ODIR (nkicsl/OIA-ODIR) with "Training Set", "Off-site Test Set" and "On-site Test Set", each with Images and
"Annotation/... (English).xlsx"; or the challenge's "ODIR-5K_Training_Annotations(Updated)_V2.xlsx" beside its images.
Columns: ID, Patient Age, Patient Sex, Left-Fundus, Right-Fundus, Left-Diagnostic Keywords, Right-Diagnostic Keywords,
then N, D, G, C, A, H, M, O for the patient. An eye's findings come from its own keywords, never from the patient's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from nearcase.errors import InvalidInput
from nearcase_eval.recipes.located import located
from nearcase_eval.recipes.recipe import (
    NEGATIVE,
    POSITIVE,
    TEST,
    TRAIN,
    UNKNOWN,
    VALIDATION,
    Built,
    Entry,
    Progress,
    Recipe,
)
from nearcase_eval.recipes.sheet import SEXES
from nearcase_eval.recipes.tables import find, read_table
from nearcase_eval.table import Row

PARTS = (("Training Set", TRAIN), ("Off-site Test Set", VALIDATION), ("On-site Test Set", TEST))
EYES = {"Left": "L", "Right": "R"}
NORMAL = "normal fundus"
NO_FUNDUS = ("no fundus image", "anterior segment image")
QUALITY = ("lens dust", "low image quality", "image offset", "invisible optic dis")
"""Keywords about the picture, not the eye, as the challenge's description counts them."""

FINDINGS = {
    "diabetic_retinopathy": r"diabetic retinopathy|non ?proliferative retinopathy",
    "glaucoma": r"glaucoma",
    "cataract": r"cataract",
    "age_related_macular_degeneration": r"age-related macular degeneration",
    "hypertensive_retinopathy": r"hypertensive retinopathy",
    "pathological_myopia": r"patholog\w* myopia|myopi[ac] (retinopathy|maculopathy)",
}


def build(folder: Path, converted: Path, progress: Progress) -> Built:
    """Returns an entry for each eye that has a picture of its fundus.

    Raises:
        InvalidInput: A table, a column or every image is missing.
    """
    parts = [(folder / name, split) for name, split in PARTS if (folder / name).is_dir()]
    if parts:
        patterns: tuple[str, ...] = ("*(English)*.xlsx", "*.xlsx")
        read = [(part, find(part, patterns, "the annotations"), split) for part, split in parts]
    else:
        read = [(folder, find(folder, ("ODIR-5K_Training_Annotations*.xlsx", "data.xlsx"), "the annotations"), "")]
    entries: list[Entry] = []
    left_out = 0
    for part, table, split in read:
        images = {name: (part / path).relative_to(folder).as_posix() for name, path in located(part, 1).items()}
        eyes = list(_eyes(table, images, split))
        entries += [entry for entry in eyes if entry is not None]
        left_out += eyes.count(None)
    if not entries:
        raise InvalidInput(f"none of the images that the annotations name is in {folder.name}")
    note = f"{left_out} eyes are left out: no image, or no picture of a fundus"
    return Built(folder, tuple(entries), (note,) * bool(left_out))


def _eyes(table: Path, images: Mapping[str, str], split: str) -> Iterator[Entry | None]:
    columns = [f"{eye}-{what}" for eye in EYES for what in ("Fundus", "Diagnostic Keywords")]
    for row in read_table(table, ["ID", "Patient Age", "Patient Sex", *columns]):
        for eye in EYES:
            yield _eye(row, eye, images, split)


def _eye(row: Row, eye: str, images: Mapping[str, str], split: str) -> Entry | None:
    words = keywords(row[f"{eye}-Diagnostic Keywords"])
    image = images.get(row[f"{eye}-Fundus"])
    if image is None or any(word in NO_FUNDUS for word in words):
        return None
    return Entry(
        image,
        patient=row["ID"],
        sex=SEXES.get(row["Patient Sex"].lower(), ""),
        age=row["Patient Age"],
        split=split,
        labels=findings(words),
        columns={"laterality": EYES[eye]},
    )


def keywords(text: str) -> tuple[str, ...]:
    """Returns the diagnostic keywords of one eye; they are separated by commas, most of them Chinese ones."""
    return tuple(word for part in re.split("[，,]", text.lower()) if (word := part.strip()))


def findings(words: tuple[str, ...]) -> dict[str, str]:
    """Returns what the keywords of one eye say; "suspected" and a picture without a diagnosis tell nothing."""
    diagnoses = [word for word in words if not word.startswith(QUALITY)]
    if not diagnoses:
        return dict.fromkeys(("normal", *FINDINGS), UNKNOWN)
    normal = POSITIVE if set(diagnoses) == {NORMAL} else NEGATIVE
    return {"normal": normal} | {name: _says(diagnoses, pattern) for name, pattern in FINDINGS.items()}


def _says(diagnoses: list[str], pattern: str) -> str:
    matching = [word for word in diagnoses if re.search(pattern, word)]
    if not matching:
        return NEGATIVE
    return UNKNOWN if all(word.startswith("suspected") for word in matching) else POSITIVE


ODIR_5K = Recipe(
    name="odir-5k",
    title="ODIR-5K",
    modality="OP",
    terms="terms of the Peking University ODIR-2019 challenge; cite Li 2021 (OIA-ODIR)",
    source="nkicsl/OIA-ODIR and public loaders",
    build=build,
    unconfirmed=("the exact terms of use", "whether the three parts share patients (checked by ID when they are read)"),
    cautions=(
        "findings of an eye come from its keywords by words, which is our reading, not the challenge's label",
        "MedImageInsight was trained on a random 80 % of these eyes",
    ),
)
