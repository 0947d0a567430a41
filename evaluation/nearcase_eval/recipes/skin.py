"""Skin: ISIC 2019 (dermoscopy) and PAD-UFES-20 (smartphone photographs).

Layouts: the ISIC archive's challenge downloads of 2019 (ISIC_2019_Training_GroundTruth.csv, _Metadata.csv, _Input/, and
the same for Test) and Mendeley Data zr7vgbcyr2 (metadata.csv, imgs_part_1 to 3), as public loaders read them.
"""

from __future__ import annotations

from nearcase_eval.recipes.labels import flag, one_of
from nearcase_eval.recipes.recipe import TEST, TRAIN, Recipe
from nearcase_eval.recipes.sheet import Sheet, Sheets

ISIC_CLASSES = {
    "MEL": "melanoma",
    "NV": "nevus",
    "BCC": "basal_cell_carcinoma",
    "AK": "actinic_keratosis",
    "BKL": "benign_keratosis",
    "DF": "dermatofibroma",
    "VASC": "vascular_lesion",
    "SCC": "squamous_cell_carcinoma",
}
PAD_CLASSES = {
    "BCC": "basal_cell_carcinoma",
    "SCC": "squamous_cell_carcinoma",
    "MEL": "melanoma",
    "ACK": "actinic_keratosis",
    "SEK": "seborrheic_keratosis",
    "NEV": "nevus",
}


def _isic(part: str, split: str) -> Sheet:
    return Sheet(
        files=(f"ISIC_2019_{part}_GroundTruth.csv",),
        image="{image}.jpg",
        patient=("lesion_id", "image"),
        labels=tuple(flag(name, column) for column, name in ISIC_CLASSES.items()),
        split=split,
        sex=("sex",),
        age=("age_approx",),
        keep=("anatom_site_general",),
        joined=(f"ISIC_2019_{part}_Metadata.csv",),
        key="image",
        joined_key="image",
        optional=split == TEST,
    )


ISIC_2019 = Recipe(
    name="isic2019",
    title="ISIC 2019",
    modality="XC",
    terms="CC BY-NC 4.0; cite Tschandl 2018 (HAM10000), Codella 2017 and Combalia 2019 (BCN20000)",
    source="the ISIC challenge downloads of 2019 as read by public loaders",
    build=Sheets((_isic("Training", TRAIN), _isic("Test", TEST))),
    cautions=(
        "the set states lesions, not patients: two lesions of one person count as two persons",
        "test images state neither: whether a person is in both parts can not be checked",
        "test images of no trained class (UNK) count as negative for every finding",
        "MedImageInsight was trained on 20,268 images of the train part",
    ),
)

PAD_UFES_20 = Recipe(
    name="pad-ufes-20",
    title="PAD-UFES-20",
    modality="XC",
    terms="CC BY 4.0; cite Pacheco 2020",
    source="Mendeley Data zr7vgbcyr2 as read by public loaders",
    build=Sheets(
        (
            Sheet(
                files=("metadata.csv",),
                image="{img_id}",
                patient=("patient_id",),
                labels=one_of("diagnostic", PAD_CLASSES),
                sex=("gender",),
                age=("age",),
                keep=("region", "fitspatrick", "lesion_id"),
            ),
        )
    ),
    cautions=(
        "the set has no official split; MedImageInsight's own 90/10 split is not published",
        "sex is empty for many images, so groups by sex may not have the mix of diagnoses that the whole set has",
    ),
)
