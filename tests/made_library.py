"""A library of made vectors in two overlapping clouds, a finding that is fitted on it, and its variants."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np

from nearcase.clock import SystemClock
from nearcase.decide.findings import read_finding
from nearcase.decide.fitted import Fitted, write_fitted
from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.index.base import Point
from nearcase.index.opening import open_index
from nearcase.retrieve.annotations import Annotations
from nearcase.retrieve.cases import case_id_of, to_payload
from nearcase.retrieve.library import Library
from nearcase.types import Case, CaseFacts
from nearcase_eval.fit import Plan, fit
from nearcase_eval.fit_points import DEFAULT, read_wish
from nearcase_eval.fit_reference import Reference, of_library

PATIENTS = 200
IMAGES = 2  # of each patient
CARD = read_card(default_encoder_folder())
BODY = 'label = "mass"\npositive_values = ["1"]\nnegative_values = ["0"]\n'
POINT = 'default_operating_point = "sensitivity-90-empirical"\n'


def made_cases(seed: int = 0, patients: int = PATIENTS) -> list[tuple[Case, np.ndarray]]:
    """Two images of each patient; two in five patients have a mass."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(size=CARD.dimension) * 0.2
    found = []
    for patient in range(patients):
        has_mass = patient % 5 < 2
        for image in range(IMAGES):
            vector = rng.normal(size=CARD.dimension) + shift * has_mass
            facts = CaseFacts(
                patient_id=f"P{patient}",
                instance_uid=f"1.2.{seed}.{patient}.{image}",
                sex="MF"[patient % 2],
                age_years=20.0 + patient % 60,
                modality="MR" if patient == 0 else "CT",
            )
            labels = {"mass": str(int(has_mass)), "bone_age": str(100 + patient % 7)}
            case = Case(case_id_of(facts, "", 1), facts, labels, source="made", content_sha256=f"{patient:063}{image}")
            found.append((case, (vector / np.linalg.norm(vector)).astype(np.float32)))
    return found


def fill(data: Path, cases: list[tuple[Case, np.ndarray]]) -> None:
    """Puts the cases where a server finds them."""

    async def put() -> None:
        index = await open_index(data / "library", dimension=CARD.dimension, encoder_identity=CARD.identity)
        await index.upsert([Point(case.case_id, vector, to_payload(case)) for case, vector in cases])
        await index.close()

    asyncio.run(put())


async def opened(data: Path) -> Library:
    """The library, with its writer running."""
    index = await open_index(data / "library", dimension=CARD.dimension, encoder_identity=CARD.identity)
    library = Library(index, SystemClock())
    library.start()
    return library


async def add(library: Library, case: Case, vector: np.ndarray) -> None:
    """Adds as the server does: labels are given besides the file."""
    await library.add(replace(case, labels={}, source=""), Annotations(case.labels, CaseFacts(), case.source), vector)


def finding_text(name: str, more: str = "", *, scorer: str = 'kind = "neighbours"\nk = 25') -> str:
    """A finding of the label mass; more comes before its tables, or begins them."""
    head = f'name = "{name}"\nversion = "1"\nfitted = "{name}.json"\n{BODY}'
    tables = more if more.startswith("[") else ""
    return f"{head}{'' if tables else more}\n[scorer]\n{scorer}\n{tables}"


def reference_of(data: Path, text: str) -> Reference:
    """What all cases of the library say of each other."""
    return of_library(data, read_finding(text, "finding.toml"), lambda done, total: None)


def fitted_on(reference: Reference, text: str, **changes: object) -> Fitted:
    """The fit of a finding, with fields changed."""
    plan = Plan(tuple(map(read_wish, DEFAULT)), by=())
    made = fit(read_finding(text, "finding.toml"), reference, plan)
    return replace(made, **changes)  # type: ignore[arg-type]


def declare(folder: Path, text: str, fitted: Fitted | None) -> None:
    """Writes a finding, and its fit under the finding's own name."""
    folder.mkdir(exist_ok=True)
    finding = read_finding(text, "finding.toml")
    (folder / f"{finding.name}.toml").write_text(text)
    if fitted is not None:
        whole = replace(
            fitted,
            finding=finding.name,
            scope=finding.scope.text,
            scorer=finding.scorer,
            label=finding.label,
            floors=finding.floors,
        )
        (folder / finding.fitted).write_bytes(write_fitted(whole))
