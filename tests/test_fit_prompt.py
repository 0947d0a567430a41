"""A fit of words: the prompts of a finding, embedded by the encoder's text tower, scored as the server scores them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_library import POINT, fill, finding_text, made_cases, reference_of

from nearcase.decide.findings import read_finding
from nearcase.decide.fitted import read_fitted, write_fitted
from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.encode.text import open_text
from nearcase.errors import InvalidInput, Unsupported
from nearcase_eval.fit import Plan, fit
from nearcase_eval.fit_points import DEFAULT, read_wish
from nearcase_eval.fit_prompt import prompts_of
from nearcase_eval.fit_reference import Reference

PROMPT = """kind = "prompt"
k = 25
templates = ["x-ray chest {}.", "{}"]
[[scorer.prompts]]
value = "1"
names = ["pulmonary mass", "tumour"]
[[scorer.prompts]]
value = "0"
names = ["no finding"]"""
FINDING = read_finding(finding_text("mass", POINT, scorer=PROMPT), "finding.toml")


@pytest.fixture(scope="module")
def reference(words_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A library whose images with a mass lie a little nearer to the words for one."""
    data = tmp_path_factory.mktemp("prompts")
    fill(data, made_cases(patients=100))
    made = reference_of(data, finding_text("mass", POINT))
    card, rng = read_card(words_encoder_folder), np.random.default_rng(5)
    mass, none = open_text(card).embed_texts(["x-ray chest pulmonary mass.", "x-ray chest no finding."])
    asked = []
    for each in made.asked:
        toward = (mass - none) / np.linalg.norm(mass - none) * (1.0 if each.value == "1" else -1.0)
        vector = rng.normal(size=card.dimension) / card.dimension**0.5 + 0.05 * toward
        asked.append(replace(each, vector=(vector / np.linalg.norm(vector)).astype(np.float32)))
    return Reference(card.identity, made.library, tuple(asked))


def test_words_are_fitted_and_sealed_with_the_points(reference: Reference, words_encoder_folder: Path) -> None:
    head = prompts_of(FINDING, words_encoder_folder, reference.encoder)
    assert head is not None
    assert head.values == ("1", "0")
    assert head.log_scale == pytest.approx(4.5)
    plan = Plan(tuple(map(read_wish, DEFAULT)), by=())
    fitted = fit(FINDING, reference, plan, head)
    assert fitted.auroc is not None
    assert fitted.auroc.value > 0.8
    assert read_fitted(write_fitted(fitted)) == fitted
    assert fitted.prompts == head


def test_a_finding_without_prompts_needs_no_text_tower() -> None:
    plain = read_finding(finding_text("mass", POINT), "finding.toml")
    assert prompts_of(plain, default_encoder_folder(), "any") is None


def test_the_encoder_must_be_the_one_of_the_images(words_encoder_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="for its prompts"):
        prompts_of(FINDING, words_encoder_folder, read_card(default_encoder_folder()).identity)


def test_an_encoder_without_words_is_refused() -> None:
    with pytest.raises(Unsupported, match="no text tower"):
        prompts_of(FINDING, default_encoder_folder(), read_card(default_encoder_folder()).identity)
