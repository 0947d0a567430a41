"""From evidence and embedding to the share of each value: the one interface of all scorers.

`neighbours` reads the cases; `probe` and `prompt` read the embedding; `blend` mixes their shares. The two that read the
embedding are measured once, and a record keeps the shares: an embedding could lead back to a person, shares can not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearcase.decide.finding import Finding, Scorer
from nearcase.decide.fitted import Fitted
from nearcase.decide.neighbours import Prior, Shares, ordered, tally, weigh
from nearcase.errors import InvalidInput, Unready

if TYPE_CHECKING:
    from nearcase.types import Embedding


@dataclass(frozen=True, slots=True)
class Measured:
    """The shares that a scorer of the embedding gave."""

    kind: str  # probe or prompt
    shares: Shares


def measure(finding: Finding, fitted: Fitted | None, vector: Embedding | None) -> tuple[Measured, ...]:
    """Returns what the finding's scorers make of the embedding.

    Raises:
        Unready: The finding's scorer needs weights that its fitted file does not hold.
        InvalidInput: There is no embedding, or one of another dimension.
    """
    kinds = [kind for kind, _ in finding.scorer.parts if kind != "neighbours"]
    return tuple(Measured(kind, _of_embedding(kind, finding, fitted, vector)) for kind in kinds)


def score(scorer: Scorer, priors: Sequence[Prior], measured: Sequence[Measured]) -> Shares:
    """Returns the share of each value, most likely first; empty without any prior case, or a scorer's measurement."""
    known = {each.kind: each.shares for each in measured}
    if not priors or not known.keys() | {"neighbours"} >= {kind for kind, _ in scorer.parts}:
        return ()
    known["neighbours"] = tally(priors, weigh(priors, scorer))
    return mix([(known[kind], weight) for kind, weight in scorer.parts])


def mix(parts: Sequence[tuple[Shares, float]]) -> Shares:
    """Returns the weighted mean of shares; the weights add up to 1 (the published routine's mix with text scores)."""
    if len(parts) == 1:
        return parts[0][0]
    values = {value for shares, _ in parts for value, _ in shares}
    return ordered(
        {value: math.fsum(weight * dict(shares).get(value, 0.0) for shares, weight in parts) for value in values}
    )


def _of_embedding(kind: str, finding: Finding, fitted: Fitted | None, vector: Embedding | None) -> Shares:
    head = None if fitted is None else fitted.probe if kind == "probe" else fitted.prompts
    if head is None:
        message = f"expected weights of the {kind} in the fitted file of {finding.name}, got none"
        raise Unready(message, reason="SCORER_ABSENT")
    if vector is None:
        raise InvalidInput(f"expected an embedding for the {kind} scorer, got none", field="vector")
    return ordered(head.shares(vector))
