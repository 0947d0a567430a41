"""RSNA Pediatric Bone Age Challenge 2017: radiographs of the hand, bone age in months, sex.

Layout: RSNA's three downloads, as public loaders read them: train.csv (id, boneage, male) with
boneage-training-dataset; "Bone Age Validation Set/Validation Dataset.csv" (Image ID, male, Bone Age (months)) with
boneage-validation-dataset-1 and -2; "Bone age ground truth.xlsx" (Case ID, Sex, Ground truth bone age (months)) with
the test images.
"""

from __future__ import annotations

from nearcase_eval.recipes.labels import Label, at_least
from nearcase_eval.recipes.recipe import TEST, TRAIN, VALIDATION, Recipe
from nearcase_eval.recipes.sheet import Sheet, Sheets

MALE = {"true": "M", "1": "M", "false": "F", "0": "F", "m": "M", "f": "F"}
LIMITS_MONTHS = (60, 120, 180)
"""Bone ages of 5, 10 and 15 years: our own cuts, since a cohort's findings are yes or no."""


def _ages(column: str) -> tuple[Label, ...]:
    return tuple(at_least(f"bone_age_{limit}_months", column, limit) for limit in LIMITS_MONTHS)


def _sheet(files: tuple[str, ...], name: str, sex: str, months: str, split: str) -> Sheet:
    return Sheet(
        files=files,
        image=f"{{{name}}}.png",
        patient=(name,),
        labels=_ages(months),
        split=split,
        sex=(sex,),
        sexes=MALE,
        keep=(months,),
        optional=split != TRAIN,
    )


BONE_AGE = Recipe(
    name="rsna-bone-age",
    title="RSNA Pediatric Bone Age 2017",
    modality="DX",
    terms="RSNA's terms of the 2017 challenge: non-commercial research; cite Halabi 2019",
    source="RSNA's downloads as read by public loaders",
    build=Sheets(
        (
            _sheet(("boneage-training-dataset.csv", "train.csv"), "id", "male", "boneage", TRAIN),
            _sheet(("Validation Dataset.csv",), "Image ID", "male", "Bone Age (months)", VALIDATION),
            _sheet(
                ("Bone age ground truth.xlsx", "Bone*ground*truth.*"),
                "Case ID",
                "Sex",
                "Ground truth bone age (months)",
                TEST,
            ),
        )
    ),
    unconfirmed=("RSNA's exact terms of use", "the folder of the test images"),
    cautions=(
        "the set states no chronological age, so nothing is said of age groups: bone age is the outcome, not the age",
        "bone age is judged at the cuts of 60, 120 and 180 months; its error in months is not measured by a run",
        "each radiograph counts as a person of its own: the set states no patients",
        "MedImageInsight was trained on the train part",
    ),
)
