"""The labelled images that a fit is made of, and what the neighbours of each say, its own patient left out.

Every image is asked as the server would be asked about it: the same index, the same exclusions, the same arithmetic. So
the fitted thresholds are scores that the server gives, bit for bit.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearcase.clock import SystemClock
from nearcase.decide.finding import Finding
from nearcase.decide.fitted import Library
from nearcase.decide.neighbours import Prior, in_order
from nearcase.errors import InvalidInput
from nearcase.index.base import Index, Point
from nearcase.index.manifest import NAME
from nearcase.index.opening import open_index
from nearcase.retrieve.cases import CHANGED, THUMBNAIL, case_id_of, patient_key, to_case, to_payload
from nearcase.retrieve.counting import values_of
from nearcase.retrieve.library import Library as StoredLibrary
from nearcase.retrieve.search import Query, Scope, search
from nearcase.serve.findings import evidence_of, numbers_of
from nearcase.types import Case, CaseFacts
from nearcase_eval.ages import ages_of
from nearcase_eval.cohort import Cohort, CohortImage

BATCH = 256
Vector = NDArray[np.float32]
Told = Callable[[int, int], None]
"""Called with how many images more are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One labelled image, and the labelled cases most like it."""

    facts: CaseFacts
    patient: str
    value: str  # of the finding's label
    vector: Vector
    priors: tuple[Prior, ...]  # nearest first, at most K


@dataclass(frozen=True, slots=True)
class Reference:
    """A library and all that can be asked of it."""

    encoder: str  # identity
    library: Library
    asked: tuple[Asked, ...]


def of_library(data: Path, finding: Finding, told: Told) -> Reference:
    """Returns what the cases of a server's library say of each other; the server must not run.

    Raises:
        InvalidInput: There is no library in the folder, or no case in scope tells the outcome.
        Unready: A server has the library open, or it is damaged.
    """
    folder = data / "library"
    try:
        manifest = json.loads((folder / NAME).read_bytes())
        encoder, dimension = str(manifest["encoder_identity"]), int(manifest["dimension"])
        check = str(manifest.get("pseudonym_check", ""))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"expected the data folder of a server in {data.name}, found no library there") from error

    async def ask() -> Reference:
        index = await open_index(folder, dimension=dimension, encoder_identity=encoder, pseudonym_check=check)
        library = StoredLibrary(index, SystemClock())
        try:
            cases, changed_at_s = await _cases(index, finding)
            known = await _known(index, await library.snapshot(), finding, changed_at_s)
            return Reference(encoder, known, await _ask_all(index, finding, cases, told))
        finally:
            await library.close()

    return asyncio.run(ask())


def of_cohort(cohort: Cohort, vectors: Mapping[str, Vector], finding: Finding, encoder: str, told: Told) -> Reference:
    """Returns what a cohort's library images say of its query images, which need the finding's label as a finding.

    The snapshot is that of the cohort, which a server's library never has: what the server adds is not what was fitted
    on, and it abstains. For calls, fit on the server's own library.

    Raises:
        InvalidInput: The cohort has no finding of the label's name, or no case in scope tells the outcome.
    """
    column = next((each.column for each in cohort.findings if each.name == finding.label), None)
    if column is None:
        known = ", ".join(each.name for each in cohort.findings)
        raise InvalidInput(f"expected a finding {finding.label} in the cohort, which has {known}")
    images = [image for image in cohort.images if image.name in vectors]
    cases = {image.name: _case(image, finding.label, column) for image in images}

    async def ask(folder: Path) -> Reference:
        dimension = len(next(iter(vectors.values())))
        index = await open_index(folder, dimension=dimension, encoder_identity=encoder)
        library = StoredLibrary(index, SystemClock())
        try:
            stored = [(cases[image.name], vectors[image.name]) for image in images if image.is_library]
            for start in range(0, len(stored), BATCH):
                part = stored[start : start + BATCH]
                await index.upsert([Point(case.case_id, vector, to_payload(case)) for case, vector in part])
            known = await _known(index, f"cohort:{await library.snapshot()}", finding, 0.0)
            queries = [(cases[image.name], vectors[image.name]) for image in images if image.is_query]
            told_of = [(case, vector) for case, vector in queries if _tells(case, finding)]
            return Reference(encoder, known, await _ask_all(index, finding, told_of, told))
        finally:
            await library.close()

    with tempfile.TemporaryDirectory(prefix="nearcase-fit-") as folder:
        return asyncio.run(ask(Path(folder) / "library"))


def _tells(case: Case, finding: Finding) -> bool:
    return finding.counts(case.labels.get(finding.label, "")) and finding.scope.takes(case.facts)


async def _known(index: Index, snapshot: str, finding: Finding, changed_at_s: float) -> Library:
    values = tuple((await values_of(index, finding.label, evidence_of(finding))).items())
    return Library(snapshot, sum(count for _, count in values), values, changed_at_s)


async def _cases(index: Index, finding: Finding) -> tuple[list[tuple[Case, Vector]], float]:
    """The labelled cases in scope, and when the last of them was written."""
    found: list[tuple[Case, Vector]] = []
    cursor, changed_at_s = None, 0.0
    while True:
        page = await index.scroll(limit=BATCH, cursor=cursor, where=evidence_of(finding), without=(THUMBNAIL,))
        vectors = await index.get([record.point_id for record in page.records], with_vectors=True)
        for record, stored in zip(page.records, vectors, strict=True):
            changed_at_s = max(changed_at_s, float(str(record.payload.get(CHANGED, 0.0))))
            case = to_case(record.point_id, record.payload)
            if stored.vector is not None and finding.counts(case.labels[finding.label]):
                found.append((case, stored.vector))
        cursor = page.next_cursor
        if cursor is None:
            return found, changed_at_s


async def _ask_all(
    index: Index, finding: Finding, cases: Sequence[tuple[Case, Vector]], told: Told
) -> tuple[Asked, ...]:
    if not cases:
        raise InvalidInput(f"expected cases in scope that tell the outcome of {finding.name}, got none")
    where = evidence_of(finding)
    if finding.is_number:
        where = numbers_of(finding, await values_of(index, finding.label, where))
    scope = Scope(k=finding.scorer.k, where=where)
    asked, bare = [], {case.facts.patient_id for case, _ in cases if not case.facts.patient_id_issuer}
    for case, vector in cases:
        hits = (await search(index, [Query(case, vector)], scope)).hits
        priors = [Prior(hit.case.case_id, float(hit.similarity), hit.case.labels[finding.label]) for hit in hits]
        kept = tuple(sorted((prior for prior in priors if finding.counts(prior.value)), key=in_order))
        asked.append(Asked(case.facts, _patient(case, bare), case.labels[finding.label], vector, kept))
        told(1, len(cases))
    return tuple(asked)


NAMED = "patient "
"""Before what tells patients apart, where the images state them."""


def nameless(reference: Reference) -> int:
    """Returns how many images state no patient: several of one person count as several patients then."""
    return sum(not each.patient.startswith(NAMED) for each in reference.asked)


def _patient(case: Case, bare: Container[str]) -> str:
    """An image whose patient is not stated counts as a patient of its study, or of its own.

    An id that some image states without its issuer may be that of any issuer, so that all who have it count as one.
    """
    facts = case.facts
    if facts.patient_id:
        issuer = "" if facts.patient_id in bare else facts.patient_id_issuer
        return f"{NAMED}{patient_key(facts.patient_id, issuer)}"
    return f"study {facts.study_uid}" if facts.study_uid else f"file {case.content_sha256 or case.case_id}"


def _case(image: CohortImage, label: str, column: str) -> Case:
    years = float(ages_of([image.age]).years[0])
    facts = CaseFacts(
        patient_id=image.patient,
        sex=image.sex,
        age_years=None if np.isnan(years) else years,
        modality=image.columns.get("modality", ""),
        body_part=image.columns.get("body_part", ""),
        view=image.columns.get("view", ""),
    )
    value = image.columns.get(column, "")
    labels = {label: value} if value else {}
    return Case(case_id_of(CaseFacts(), image.name, 1), facts, labels, source=image.name)
