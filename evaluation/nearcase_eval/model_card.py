"""The model card of an encoder on one cohort: its own card's words, and numbers that a run measured.

Sections are those of Mitchell 2019 (Model Cards for Model Reporting), with safety as the CHAI Applied Model Card asks.
A number is in it only when a file of the run holds it or holds the scores that it is computed from; what was not
measured is named as such.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nearcase.encode.card import Card
from nearcase.errors import InvalidInput
from nearcase_eval import measured
from nearcase_eval.measured import Measurement, RunFiles

FORMAT = "nearcase-model-card/1"
NOT_MEASURED = "not measured"
NOT_PROVIDED = "not provided"

MITCHELL_USE = {
    "intended_use": "intended use",
    "users": "users",
    "population": "population",
    "out_of_scope": "out of scope",
    "decision_role": "role in decisions",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """Something stated or counted, and by which file; None is not provided."""

    name: str
    value: str | int | bool | None
    file: str


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the card."""

    title: str
    facts: tuple[Fact, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    not_measured: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All of it."""

    format: str
    name: str
    sections: tuple[Section, ...]


def model_card(folder: Path, encoder: Card) -> ModelCard:
    """Returns the card of an encoder from a run of `nearcase-eval run`.

    Raises:
        InvalidInput: The run's files are absent or damaged, or the run was made with another encoder.
    """
    _check_encoder(folder, encoder)
    run = measured.read_run(folder)
    sections = (
        _details(encoder),
        _use(run, encoder),
        _factors(run),
        _evaluation_data(run),
        _training_data(encoder),
        _numbers("Metrics: discrimination", measured.areas(run), "AUROC"),
        _numbers("Metrics: retrieval", measured.retrieved(run), "precision, recall, nDCG, mAP"),
        _numbers("Metrics: other, by the vote of the neighbours", measured.overall(run), "AUPRC, calibration"),
        _numbers("Metrics: operating points", measured.points(run), "sensitivity and specificity at a threshold"),
        _numbers("Quantitative analyses: unitary results", measured.groups(run, crossed=False), "AUROC by group"),
        _numbers("Quantitative analyses: intersectional results", measured.groups(run, crossed=True), "AUROC by two"),
        _numbers("Fairness and equity", measured.gaps(run), "gaps between groups"),
        _numbers("Confounders", measured.confounders(run), "AUROC of age and sex alone"),
        _safety(run, encoder),
        _caveats(run),
    )
    return ModelCard(FORMAT, encoder.name, sections)


def _check_encoder(folder: Path, encoder: Card) -> None:
    """A run keeps its embeddings under a digest of the encoder that made them: the wrong card can not be written."""
    cache = folder / "cache"
    made = {path.name for path in cache.iterdir()} if cache.is_dir() else set()
    if hashlib.sha256(encoder.identity.encode()).hexdigest()[:16] not in made:
        raise InvalidInput(f"expected a run made with {encoder.name}, found no embeddings of it in {folder.name}/cache")
    if len(made) > 1:
        raise InvalidInput(f"expected a run of one encoder in {folder.name}, found embeddings of {len(made)}")


def _details(encoder: Card) -> Section:
    facts: dict[str, str | int | bool] = {
        "name": encoder.name,
        "version": encoder.version,
        "description": encoder.description,
        "origin": encoder.origin,
        "licence": encoder.licence,
        "weights, SHA-256": encoder.sha256,
        "embedding dimension": encoder.dimension,
        "precision": encoder.precision,
        "preprocessing": encoder.recipe.identity,
        "medical": encoder.is_medical,
    }
    return Section("Model details", tuple(Fact(name, value, "card.toml") for name, value in facts.items()))


def _use(run: RunFiles, encoder: Card) -> Section:
    said = {each["field"].lower().replace(" ", "_"): each["text"] for each in run.report.get("use", ())}
    stated = tuple(Fact(title, said.get(name), measured.REPORT) for name, title in MITCHELL_USE.items())
    return Section("Intended use", (Fact("statement", encoder.statement, "card.toml"), *stated))


def _factors(run: RunFiles) -> Section:
    attributes = list(dict.fromkeys(table["attribute"] for table in run.report.get("groups", ())))
    if not attributes:
        return Section("Factors", not_measured=("groups",))
    return Section("Factors", (Fact("groups compared", ", ".join(attributes), measured.REPORT),))


def _evaluation_data(run: RunFiles) -> Section:
    found = measured.counts(run)
    facts = [
        Fact("cohort", run.report.get("title"), measured.REPORT),
        Fact("images", found.images, measured.SCORES),
        Fact("patients", found.patients, measured.SCORES),
        Fact("images with a possible age", found.with_age, measured.SCORES),
        Fact("images with a sex", found.with_sex, measured.SCORES),
    ]
    for name, (positives, known) in found.findings.items():
        facts.append(Fact(f"{name}: positives of known outcomes", f"{positives} of {known}", measured.SCORES))
    return Section("Evaluation data", tuple(facts))


def _training_data(encoder: Card) -> Section:
    facts = [Fact("training data", None, "card.toml")]
    for source in encoder.centring:
        words = f"{source.name}, {source.images} images, {source.licence}"
        facts.append(Fact("fitted on, for centring only", words, "card.toml"))
    return Section("Training data", tuple(facts))


def _safety(run: RunFiles, encoder: Card) -> Section:
    overlap = run.report.get("system", {}).get("overlap_check")
    facts = [Fact("patients in library and test set", overlap, measured.REPORT)] if overlap else []
    if encoder.parity is not None:
        words = f"largest difference of an element {encoder.parity.max_difference:g} to {encoder.parity.against}"
        facts.append(Fact("parity with the network it was exported from", words, "card.toml"))
    missing = ("robustness to other devices and sites", "effect on readers", "harm in use", "drift")
    return Section("Safety and reliability", tuple(facts), not_measured=missing)


def _caveats(run: RunFiles) -> Section:
    limits = tuple(Fact("limit", text, measured.REPORT) for text in run.report.get("limits", ()))
    return Section("Caveats and recommendations", limits, not_measured=() if run.report else ("limits of the audit",))


def _numbers(title: str, found: Iterable[Measurement], what: str) -> Section:
    numbers = tuple(found)
    return Section(title, measurements=numbers, not_measured=() if numbers else (what,))
