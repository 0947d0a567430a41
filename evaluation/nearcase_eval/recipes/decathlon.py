"""Medical Segmentation Decathlon for 3D-MIR: refused, with the reason, until a cohort can hold volumes.

Layout: Task03_Liver and so on with imagesTr/*.nii.gz; 3D-MIR's flags are in its own repository (abachaa/3D-MIR:
Data/3DMIR_labels, Data/Data_Splits; arXiv 2311.13752).
"""

from __future__ import annotations

from pathlib import Path

from nearcase.errors import Unsupported
from nearcase_eval.recipes.recipe import Built, Progress, Recipe

REASON = (
    "3D-MIR asks whether volumes with an equal tumour flag or stage are found; a cohort's image is one file with one "
    "frame, and the middle slice of a volume seldom shows the tumour, so a number from it would mislead"
)


def refuse(folder: Path, converted: Path, progress: Progress) -> Built:
    """Raises Unsupported with the reason."""
    raise Unsupported(REASON)


DECATHLON = Recipe(
    name="msd-3d-mir",
    title="Medical Segmentation Decathlon, 3D-MIR",
    modality="CT",
    terms="CC BY-SA 4.0 (Decathlon), CC BY 4.0 (3D-MIR)",
    source="abachaa/3D-MIR",
    build=refuse,
    refused=REASON,
)
