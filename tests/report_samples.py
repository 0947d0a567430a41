"""Searches for the evidence page, every field of which can be filled with one text."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as PillowImage

from nearcase.report.page import PageSearch, Table
from nearcase.types import (
    Call,
    Case,
    CaseFacts,
    Decision,
    EncoderSummary,
    Evidence,
    Hit,
    QueryImage,
    SearchResult,
    Vote,
)

STATEMENT = "General-purpose ImageNet encoder, not medical, not validated for diagnosis."


def jpeg(rows: int, columns: int, level: int = 90) -> bytes:
    out = io.BytesIO()
    PillowImage.fromarray(np.full((rows, columns), level, dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()


def encoder(
    statement: str = STATEMENT, *, is_medical: bool = False, name: str = "efficientnet-lite0"
) -> EncoderSummary:
    return EncoderSummary(name, "1", "5c31f48c4eed59000e50846d", 1280, "stretch 1", is_medical, statement)


def filled(text: str) -> tuple[PageSearch, Table]:
    """A search and a table with `text` in each field that holds words, and two values of it in each list."""
    names = ("patient_id", "patient_id_issuer", "study_uid", "series_uid", "instance_uid", "sop_class_uid", "modality")
    more = ("body_part", "laterality", "view", "sex", "manufacturer", "device_model", "study_date")
    last = ("study_description", "series_description")
    facts = CaseFacts(**{name: f"{name} {text}" for name in (*names, *more, *last)})  # type: ignore[arg-type]
    case = Case("id " + text, facts, {f"label {text}": f"value {text}"}, f"source {text}", thumbnail_jpeg=jpeg(40, 30))
    hits = (Hit(case, 0.5), Hit(case, -0.25))
    vote = Vote(f"vote {text}", 1.0, 2)
    evidence = tuple(Evidence(hit, f"value {text}", 0.5) for hit in hits)
    decision = Decision(f"finding {text}", Call.ABSTAIN, (vote,), evidence, f"reason {text}", f"explanation {text}")
    said = EncoderSummary(
        f"encoder {text}", f"version {text}", text, 1280, f"recipe {text}", False, f"{STATEMENT} {text}", text
    )
    query = QueryImage(facts, rules=(f"rule {text}",), thumbnail_jpeg=jpeg(20, 60))
    result = SearchResult(hits, (query,), said, 7)
    search = PageSearch(f"name {text}", result, (decision,), (f"note {text}",))
    return search, Table(f"caption {text}", ("a " + text, "b"), (("c", "d " + text),), f"table note {text}")


def searches() -> tuple[PageSearch, ...]:
    """Two searches with five neighbours each: tall, wide and absent pictures, much and nothing stated."""
    stated = CaseFacts(modality="CR", body_part="CHEST", view="PA", age_years=58.0, sex="F", laterality="L")
    return tuple(
        PageSearch(f"query-{number}.dcm", _result(number, stated if number else CaseFacts()), (_decision(),))
        for number in range(2)
    )


def _result(number: int, facts: CaseFacts) -> SearchResult:
    shapes = ((256, 64), (64, 256), (200, 200), (0, 0), (128, 190))
    cases = (
        Case(
            f"{number}-{rank}",
            facts,
            {"outcome": "pneumonia"},
            "Site A",
            thumbnail_jpeg=jpeg(*shape) if shape[0] else b"",
        )
        for rank, shape in enumerate(shapes)
    )
    hits = tuple(Hit(case, 0.9 - 0.1 * rank) for rank, case in enumerate(cases))
    return SearchResult(hits, (QueryImage(facts, 3, 10, ("rescale",), jpeg(90, 120)),), encoder(), 12)


def _decision() -> Decision:
    votes = (Vote("pneumonia", 0.75, 3), Vote("normal", 0.25, 1))
    return Decision("outcome", Call.POSSIBLE, votes, (), explanation="3 of 4 labelled cases had pneumonia.")
