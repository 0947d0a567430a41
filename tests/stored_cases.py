"""Made cases with embeddings, that use every field a library keeps."""

from __future__ import annotations

import uuid

import numpy as np

from nearcase.transfers import LibraryIdentity, StoredCase
from nearcase.types import Case, CaseFacts, LabelChange

DIMENSION = 16
IDENTITY = LibraryIdentity("made:0123456789abcdef:stretch-1:fp32", DIMENSION, "", "2-ab", 2)


def stored_cases(count: int, *, seed: int = 0, dimension: int = DIMENSION) -> list[StoredCase]:
    """In the order of their ids; every third has flags and a history, every fourth states nothing."""
    rng = np.random.default_rng(seed)
    made = [_case(rng, number, dimension) for number in range(count)]
    return sorted(made, key=lambda stored: stored.case.case_id)


def _case(rng: np.random.Generator, number: int, dimension: int) -> StoredCase:
    vector = rng.normal(size=dimension)
    case_id = str(uuid.UUID(bytes=rng.bytes(16), version=4))
    sha256 = rng.bytes(32).hex()
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    if number % 4 == 3:
        return StoredCase(Case(case_id, CaseFacts(), content_sha256=sha256, added_at_s=1e9 + number), unit)
    facts = CaseFacts(
        patient_id=f"P{number // 2}",
        patient_id_issuer="H",
        study_uid=f"1.2.{number // 2}",
        series_uid=f"1.2.{number // 2}.1",
        instance_uid=f"1.2.{seed_of(sha256)}.{number}",
        modality="CT",
        age_years=number % 200 / 2,
        sex="MFO"[number % 3],
        study_date=f"2015{1 + number % 12:02}03",
        study_description="Thorax, größer «gesehen»",
    )
    first = LabelChange("mass", "", "0", 1e9 + 0.25, "first")
    changes = (first, LabelChange("mass", "0", str(number % 2), 2e9, "second"))
    case = Case(
        case_id,
        facts,
        {"mass": str(number % 2), "birads.left": "4 a=b"},
        source="made, for a test",
        given=("sex", "age_years"),
        frame_number=2,
        frame_count=3,
        content_sha256=sha256,
        added_at_s=1.7e9 + number / 8,
        thumbnail_jpeg=b"\xff\xd8\xff\xe0" + rng.bytes(40),
        flags=("excluded", "no-consent") if number % 3 == 0 else (),
        history=changes if number % 3 == 0 else (),
    )
    return StoredCase(case, unit)


def seed_of(text: str) -> int:
    """A number that differs for each text."""
    return int(text[:8], 16)


def equal(one: StoredCase, other: StoredCase) -> bool:
    """Whether two are the same, bit for bit."""
    return one.case == other.case and one.vector.tobytes() == other.vector.tobytes()
