"""Chest radiographs: NIH ChestX-ray14, its long-tailed relabelling LT-CXR, and CheXpert.

Layouts: the README of NIH's own download folder ("CXR8": Data_Entry_2017_v2020.csv, train_val_list.txt, test_list.txt,
images_001 to images_012, LongTailCXR/) and the loaders of public code that read it; CheXpert's train.csv and valid.csv
as read by public loaders.
"""

from __future__ import annotations

from nearcase_eval.recipes.labels import flags, listed
from nearcase_eval.recipes.recipe import TEST, TRAIN, VALIDATION, Recipe
from nearcase_eval.recipes.sheet import Sheet, Sheets

NIH_14 = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
    "No Finding",
)
NIH_LT = (
    *NIH_14,
    "Tortuous Aorta",
    "Calcification of the Aorta",
    "Pneumoperitoneum",
    "Subcutaneous Emphysema",
    "Pneumomediastinum",
)
CHEXPERT_14 = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
ENTRIES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
NIH_TERMS = "NIH Clinical Center: no restriction on use; name the NIH Clinical Center, link to it and cite Wang 2017"
MINED = "labels were mined from reports by text analysis, not read from the images"


def _long_tailed(file: str, split: str) -> Sheet:
    return Sheet(
        files=(file,),
        image="{id}",
        patient=("Patient ID",),
        labels=flags(NIH_LT),
        split=split,
        sex=("Patient Sex", "Patient Gender"),
        age=("Patient Age",),
        view=("View Position",),
        joined=ENTRIES,
        key="id",
        joined_key="Image Index",
    )


def _chexpert(file: str, split: str) -> Sheet:
    return Sheet(
        files=(file,),
        image="{Path}",
        depth=4,  # train/patient00001/study1/view1_frontal.jpg, whatever the folder above is called
        patient=("Path",),
        patient_pattern=r"patient\d+",
        labels=flags(CHEXPERT_14),
        split=split,
        sex=("Sex",),
        age=("Age",),
        view=("Frontal/Lateral",),
        keep=("AP/PA",),
    )


NIH = Recipe(
    name="nih-chestxray14",
    title="NIH ChestX-ray14",
    modality="DX",
    terms=NIH_TERMS,
    source="NIH's download folder CXR8 and its README",
    build=Sheets(
        (
            Sheet(
                files=ENTRIES,
                image="{Image Index}",
                patient=("Patient ID",),
                labels=listed("Finding Labels", NIH_14, "|"),
                sex=("Patient Sex", "Patient Gender"),
                age=("Patient Age",),
                view=("View Position",),
                key="Image Index",
                lists={"train_val_list.txt": TRAIN, "test_list.txt": TEST},
            ),
        )
    ),
    cautions=(MINED, "some ages are impossible (above 120 years) and count as missing"),
)

LONG_TAILED = Recipe(
    name="nih-lt-cxr",
    title="NIH-CXR-LT",
    modality="DX",
    terms=f"{NIH_TERMS}; labels: cite Holste 2022, arXiv 2208.13365",
    source="the LongTailCXR folder of NIH's download and public code that reads it",
    build=Sheets(
        (
            _long_tailed("nih-cxr-lt_single-label_train.csv", TRAIN),
            _long_tailed("nih-cxr-lt_single-label_test.csv", TEST),
        )
    ),
    unconfirmed=("the spelling of the class Pneumomediastinum's column",),
    cautions=(
        MINED,
        "the balanced validation and test tables are not used",
        "MedImageInsight was trained on the train part",
    ),
)

CHEXPERT = Recipe(
    name="chexpert",
    title="CheXpert",
    modality="DX",
    terms="Stanford University Dataset Research Use Agreement: research only, no redistribution",
    source="train.csv and valid.csv as read by public loaders",
    build=Sheets((_chexpert("train.csv", TRAIN), _chexpert("valid.csv", VALIDATION))),
    unconfirmed=("the table of the later test set, which is therefore not used",),
    cautions=(
        "labels of the train part were mined from reports; those of the validation part were read by radiologists",
        "uncertain (-1) and unmentioned (blank) findings count as unknown, not as negative",
    ),
)
