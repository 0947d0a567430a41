"""A large library of made vectors with labels, fits that are bound to it, and what a call costs its server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np

from nearcase.clock import SystemClock
from nearcase.decide.fitted import Fitted, Library
from nearcase.demo.server import RunningServer
from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.index.base import Point
from nearcase.index.opening import open_index
from nearcase.retrieve.cases import case_id_of, to_payload
from nearcase.retrieve.counting import values_of
from nearcase.retrieve.library import Library as StoredLibrary
from nearcase.retrieve.scope import UNFLAGGED
from nearcase.types import Case, CaseFacts
from vectors.load import settled


def made_library(data: Path, cases: int) -> Library:
    """A library of made vectors that are all labelled, one in ten with the finding; returns what a fit says of it."""
    card, rng = read_card(default_encoder_folder()), np.random.default_rng(0)
    is_new = not data.exists()

    async def fill() -> Library:
        index = await open_index(data / "library", dimension=card.dimension, encoder_identity=card.identity)
        for start in range(0, cases if is_new else 0, 1000):
            vectors = rng.normal(size=(min(1000, cases - start), card.dimension)).astype(np.float32)
            points = []
            for at, vector in enumerate(vectors, start):
                facts = CaseFacts(patient_id=f"P{at}", modality="XC")
                case = Case(case_id_of(facts, f"{at}", 1), facts, {"melanoma": str(int(at % 10 == 0))}, source="made")
                points.append(Point(case.case_id, vector / np.linalg.norm(vector), to_payload(case)))
            await index.upsert(points)
        await settled(index)  # what builds in the background would count as a call's
        library = StoredLibrary(index, SystemClock())
        values = tuple((await values_of(index, "melanoma", UNFLAGGED)).items())
        known = Library(await library.snapshot(), sum(count for _, count in values), values)
        await index.close()
        return known

    return asyncio.run(fill())


def bound(fitted: Fitted, library: Library) -> Fitted:
    """The fit as one of this library, with limits that every image keeps: each is computed still."""
    known = fitted.familiarity
    if known and known.ellipsoid:
        known = replace(known, nearest=-1.0, mean=-1.0, ellipsoid=replace(known.ellipsoid, limit=1e9))
    groups = tuple(group for group in fitted.groups if group.is_validated)
    return replace(fitted, library=library, familiarity=known, groups=groups, gap=1.0)


def cpu_ms(server: RunningServer) -> float:
    """CPU time of all threads of the server's processes, in the scheduler's nanoseconds."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    tree = [server.process.pid]
    for pid in tree:
        tree += [child for child, parent in parents.items() if parent == pid]
    total = 0
    for pid in tree:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return total / 1e6
