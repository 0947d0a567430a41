"""Weighing the labelled cases: the published routine of MedImageInsight's evaluation.

Each case has the weight softmax(100 x cosine) over the reference set; the weights of the top K are summed by value and
L1-normalised. The softmax's denominator is common to all cases and cancels in the normalisation, so the top K alone
give the exact shares: w_i / sum_topK w_j = exp(100 (s_i - s_1)) / sum_topK exp(100 (s_j - s_1)).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from nearcase.types import Call, Decision, Evidence, Hit, Vote

TEMPERATURE = 100.0
"""Scale of the cosine in the published routine: 0.01 of cosine is a factor of e."""


def decide(finding: str, hits: Sequence[Hit]) -> Decision:
    """Returns what the labelled hits say of a finding: the votes and the evidence, but no call.

    A call needs an operating point that was fitted on labelled data; none is here, so the decision abstains.
    """
    evidence = weigh([(hit, hit.case.labels[finding]) for hit in hits if finding in hit.case.labels])
    if not evidence:
        sentence = f"No case in scope tells the outcome of {finding}."
        return Decision(finding, Call.ABSTAIN, (), (), "NO_EVIDENCE", sentence)
    votes = tally(evidence)
    sentence = (
        f"{votes[0].count} of {len(evidence)} most similar labelled cases have {finding} = {votes[0].value}, with "
        f"{votes[0].share:.0%} of the weight. No operating point was fitted for this finding, so no call is made."
    )
    return Decision(finding, Call.ABSTAIN, votes, evidence, "NO_OPERATING_POINT", sentence)


def weigh(labelled: Sequence[tuple[Hit, str]]) -> tuple[Evidence, ...]:
    """Returns the evidence with weights that add up to 1, most similar first."""
    if not labelled:
        return ()
    best = max(hit.similarity for hit, _ in labelled)
    weights = [math.exp(TEMPERATURE * (hit.similarity - best)) for hit, _ in labelled]
    total = math.fsum(weights)
    pieces = [Evidence(hit, value, weight / total) for (hit, value), weight in zip(labelled, weights, strict=True)]
    return tuple(sorted(pieces, key=lambda piece: (-piece.hit.similarity, piece.hit.case.case_id)))


def tally(evidence: Sequence[Evidence]) -> tuple[Vote, ...]:
    """Returns the share of each value, largest first; equal shares are ordered by value."""
    by_value: dict[str, list[float]] = defaultdict(list)
    for piece in evidence:
        by_value[piece.value].append(piece.weight)
    votes = [Vote(value, math.fsum(weights), len(weights)) for value, weights in by_value.items()]
    return tuple(sorted(votes, key=lambda vote: (-vote.share, vote.value)))
