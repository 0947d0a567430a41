"""What hits say of a label that no finding defines: its votes and the evidence, never a call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from nearcase.decide.basis import Basis
from nearcase.decide.finding import TEMPERATURE, undeclared
from nearcase.decide.fitted import Library
from nearcase.decide.neighbours import Prior, in_order
from nearcase.decide.verdict import verdict
from nearcase.types import Decision, Evidence, Hit

__all__ = ["TEMPERATURE", "decide"]


def decide(finding: str, hits: Sequence[Hit]) -> Decision:
    """Returns what all labelled hits say of a label, by the published routine with its temperature of 100.

    A call needs a finding with operating points that were fitted on labelled data; here it abstains.
    """
    labelled = [
        (Prior(hit.case.case_id, float(hit.similarity), hit.case.labels[finding]), hit) for hit in _with(finding, hits)
    ]
    labelled.sort(key=lambda pair: in_order(pair[0]))
    decision = verdict(_basis(finding, tuple(prior for prior, _ in labelled)))
    evidence = tuple(
        Evidence(hit, piece.value, piece.weight) for piece, (_, hit) in zip(decision.evidence, labelled, strict=True)
    )
    return dataclasses.replace(decision, evidence=evidence)


def _with(label: str, hits: Sequence[Hit]) -> list[Hit]:
    return [hit for hit in hits if label in hit.case.labels]


def _basis(label: str, priors: tuple[Prior, ...]) -> Basis:
    return Basis(
        finding=undeclared(label).with_k(max(len(priors), 1)),
        priors=priors,
        encoder="",
        library=Library("", len(priors)),
        kept=None,
        labelled_count=None,
        is_exact=True,
        is_in_scope=True,
        is_narrowed=False,
    )
