"""What to know of an answer before its evidence is believed, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nearcase.retrieve.scope import Query
from nearcase.types import Hit

SAME = 0.95
"""Cosine from which a case may be a copy. With the encoder that is shipped no two patients of ISIC 2017 are so alike,
and copies are that lost little when they were saved: benchmarks/copies.py prints how many."""


def caveats(queries: Sequence[Query], hits: Iterable[Hit]) -> tuple[str, ...]:
    """Returns one sentence for each caveat.

    Args:
        queries: The images that were asked about; words have none.
        hits: What was found for them, with the query's own patient left out.
    """
    found: list[str] = []
    nameless = sum(not query.has_patient for query in queries)
    if nameless:
        who = "The query states" if len(queries) == 1 else f"{nameless} of {len(queries)} images state"
        found.append(
            f"{who} no patient: its own cases may be among the evidence; name the patient (facts.patient_id, "
            "--patient)."
        )
    alike = [hit.similarity for hit in hits if hit.similarity >= SAME] if len(queries) == 1 else []
    if alike:
        found.append(
            f"The nearest case is all but the same picture (similarity {max(alike):.4f}): it may be the query itself "
            "under another name; leave such cases out (near_duplicate_similarity, --near-duplicates)."
        )
    return tuple(found)
