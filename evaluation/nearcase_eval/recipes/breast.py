"""RSNA Screening Mammography Breast Cancer Detection 2022 (Kaggle).

Layout: train.csv with site_id, patient_id, image_id, laterality, view, age, cancer, biopsy, invasive, BIRADS, implant,
density, machine_id, difficult_negative_case; images at train_images/PATIENT/IMAGE.dcm (the competition's data page).
"""

from __future__ import annotations

from nearcase_eval.recipes.labels import flag, one_of
from nearcase_eval.recipes.recipe import Recipe
from nearcase_eval.recipes.sheet import Sheet, Sheets

DENSITIES = {letter: f"density_{letter.lower()}" for letter in "ABCD"}

MAMMOGRAPHY = Recipe(
    name="rsna-mammography",
    title="RSNA Screening Mammography 2022",
    modality="MG",
    terms="Kaggle competition rules of rsna-breast-cancer-detection: non-commercial research",
    source="the competition's data page and public loaders",
    build=Sheets(
        (
            Sheet(
                files=("train.csv",),
                image="{patient_id}/{image_id}.dcm",
                depth=2,
                patient=("patient_id",),
                labels=(flag("cancer", "cancer"), *one_of("density", DENSITIES)),
                age=("age",),
                view=("view",),
                keep=("laterality", "implant", "site_id", "machine_id", "difficult_negative_case"),
            ),
        )
    ),
    unconfirmed=("the exact wording of the rules",),
    cautions=(
        "the test part has no published labels, so each patient is left out in turn",
        "cancer is stated for a breast, not an image: a view without a visible lesion is positive too",
        "the table states no sex",
        "MedImageInsight was trained on 43,764 of these images",
    ),
)
