"""All recipes: the public sets of MedImageInsight's model card, by name."""

from __future__ import annotations

from nearcase.errors import NotFound
from nearcase_eval.recipes.breast import MAMMOGRAPHY
from nearcase_eval.recipes.chest import CHEXPERT, LONG_TAILED, NIH
from nearcase_eval.recipes.decathlon import DECATHLON
from nearcase_eval.recipes.hand import BONE_AGE
from nearcase_eval.recipes.irma import IRMA
from nearcase_eval.recipes.lidc import LIDC
from nearcase_eval.recipes.oct import OCT2017
from nearcase_eval.recipes.odir import ODIR_5K
from nearcase_eval.recipes.pcam import PCAM
from nearcase_eval.recipes.recipe import Recipe
from nearcase_eval.recipes.skin import ISIC_2019, PAD_UFES_20

RECIPES: tuple[Recipe, ...] = (
    NIH,
    LONG_TAILED,
    CHEXPERT,
    BONE_AGE,
    ISIC_2019,
    PAD_UFES_20,
    PCAM,
    OCT2017,
    ODIR_5K,
    LIDC,
    MAMMOGRAPHY,
    IRMA,
    DECATHLON,
)


def recipe_of(name: str) -> Recipe:
    """Returns a recipe.

    Raises:
        NotFound: There is none of this name.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise NotFound(f"expected a recipe ({', '.join(each.name for each in RECIPES)}), got {name!r}")
