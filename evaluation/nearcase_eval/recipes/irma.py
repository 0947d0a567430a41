"""IRMA: radiographs of ImageCLEFmed 2009 with IRMA codes.

Layout: ImageCLEFmed2009_train_codes.02.csv, separated by semicolons (image_id;irma_code;05_class;06_class;07_class;
08_class) with ImageCLEFmed2009_train.02/ID.png, as public loaders read it. The code is TTTT-DDD-AAA-BBB; the first
letter of AAA is the body region (Lehmann 2003, The IRMA code for unique classification of medical images).
"""

from __future__ import annotations

from nearcase_eval.recipes.labels import Label
from nearcase_eval.recipes.recipe import NEGATIVE, POSITIVE, UNKNOWN, Recipe
from nearcase_eval.recipes.sheet import Sheet, Sheets

REGIONS = {
    "1": "whole_body",
    "2": "cranium",
    "3": "spine",
    "4": "upper_extremity",
    "5": "chest",
    "6": "breast",
    "7": "abdomen",
    "8": "pelvis",
    "9": "lower_extremity",
}


def _region(letter: str, name: str) -> Label:
    def read(code: str) -> str:
        axes = code.split("-")
        if len(axes) != 4 or axes[2][:1] not in REGIONS:
            return UNKNOWN
        return POSITIVE if axes[2][0] == letter else NEGATIVE

    return Label(name, "irma_code", read)


IRMA = Recipe(
    name="irma",
    title="IRMA, ImageCLEFmed 2009, training part",
    modality="DX",
    terms="licence agreement with RWTH Aachen (doi 10.18154/RWTH-2016-06143); courtesy of T. M. Deserno",
    source="public loaders of the ImageCLEFmed 2009 files",
    build=Sheets(
        (
            Sheet(
                files=("ImageCLEFmed2009_train_codes*.csv",),
                image="{image_id}.png",
                patient=("image_id",),
                labels=tuple(_region(letter, name) for letter, name in REGIONS.items()),
                keep=("irma_code", "05_class"),
                delimiter=";",
            ),
        )
    ),
    unconfirmed=("the columns of the test part's table, which is therefore not used",),
    cautions=(
        "the set states no patients: each radiograph counts as a person of its own, so a person may be found again",
        "the set states no age and no sex",
        "findings are the nine body regions, not the 57 to 193 classes of the challenges",
    ),
)
