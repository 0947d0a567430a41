"""The one function that joins all: hits and fit -> a decision and the record that it can be replayed from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nearcase.decide.basis import Basis, Fit, Limits
from nearcase.decide.finding import Finding
from nearcase.decide.fitted import Fitted, Library, Values
from nearcase.decide.groups import QueryGroup, groups_of
from nearcase.decide.inquiry import PLAIN, Inquiry
from nearcase.decide.neighbours import Prior, in_order
from nearcase.decide.operating import Choice, Selected, select
from nearcase.decide.rate import check_prevalence
from nearcase.decide.record import Origin, Record, record_of
from nearcase.decide.record_file import Sealed, write_sealed
from nearcase.decide.scorers import measure
from nearcase.decide.verdict import called, verdict
from nearcase.errors import InvalidInput, NotFound, Unsupported
from nearcase.types import CaseFacts, Decision, Hit, PointCall

if TYPE_CHECKING:
    from nearcase.types import Embedding


@dataclass(frozen=True, slots=True)
class Asked:
    """What a decision is about, and how sure it must be."""

    facts: CaseFacts
    vector: Embedding | None = None  # needed by the probe, the prompts and the distance from the library
    choice: Choice | None = None  # None takes the finding's default point
    prevalence: float | None = None
    is_one_of_many: bool = False  # several findings are asked at once: a point that one lacks is its abstention
    image_sha256: str = ""  # of the file's bytes; of several, of their hashes in order
    images: tuple[str, ...] = ()  # of several, the hash of each
    image_count: int = 1  # images whose mean embedding the vector is
    inquiry: Inquiry = PLAIN  # how it was asked for, for the record


@dataclass(frozen=True, slots=True)
class Context:
    """Where the hits come from."""

    encoder: str  # identity of the encoder's card
    library: Library  # labelled cases in the finding's scope, without the exclusions of this query
    labelled_count: int  # labelled cases in scope that could have been found, with the exclusions
    secret: bytes  # 32 random bytes, another for each decision: hides what is erased from its record
    kept: Values | None = None  # labelled cases that are as they were at the fit; None where that was not asked
    is_exact: bool = True  # False where the index is approximate
    is_narrowed: bool = False  # True where the caller gave a filter of their own
    at_s: float = 0.0  # seconds since 1970, UTC
    made_by: str = ""  # program and version, for the record
    is_keyed: bool = False  # hashes of images are keyed: the library is de-identified


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with its record, and the record's file."""

    decision: Decision
    record: Record
    file: Sealed


def decide(finding: Finding, fitted: Fitted | None, hits: Sequence[Hit], asked: Asked, context: Context) -> Decided:
    """Returns what the hits say of a finding. Hits without the finding's label, and beyond its K, are left out.

    Raises:
        NotFound: No operating point has the name that was asked for.
        Unsupported: With reason TARGET_UNSUPPORTED: the fitted data can not support the target that was asked for.
        InvalidInput: The prevalence is not inside 0..1, a cost ratio came without one, or the embedding is of another
            dimension.
        Unready: The finding's scorer needs weights that its fitted file does not hold.
    """
    if asked.prevalence is not None:
        check_prevalence(asked.prevalence)
    weighed = _weighed(finding, hits)
    basis = _basis(finding, fitted, tuple(prior for prior, _ in weighed), asked, context)
    bare = verdict(basis)
    record = record_of(basis, bare, _origin(fitted, asked, context), asked.inquiry, context.secret)
    file = write_sealed(record)
    evidence = tuple(
        dataclasses.replace(piece, hit=hit) for piece, (_, hit) in zip(bare.evidence, weighed, strict=True)
    )
    calls = _point_calls(finding, fitted, asked.facts, basis, bare.score) if fitted else ()
    decision = dataclasses.replace(bare, evidence=evidence, record_id=file.record_id, point_calls=calls)
    return Decided(decision, record, file)


def _point_calls(
    finding: Finding, fitted: Fitted, facts: CaseFacts, basis: Basis, score: float | None
) -> tuple[PointCall, ...]:
    """At every point what the verdict on the same evidence would be; the groups are judged at that point."""
    named = {name: select(fitted, Choice(name)) for name in fitted.point_names}
    own = basis.selected
    if own is not None and own not in named.values():
        named[own.point.name] = own
    calls = []
    for name, selected in named.items():
        groups = _groups(finding, fitted, facts, selected)
        call, reason = called(dataclasses.replace(basis, selected=selected, refusal="", groups=groups), score)
        rule_out = selected.rule_out.shown if selected.rule_out else None
        calls.append(PointCall(name, call, reason, selected.point.shown, rule_out, selected == own))
    return tuple(calls)


def _weighed(finding: Finding, hits: Sequence[Hit]) -> list[tuple[Prior, Hit]]:
    """The K nearest that tell the outcome, nearest first."""
    labelled = [(hit, hit.case.labels[finding.label]) for hit in hits if finding.label in hit.case.labels]
    pairs = [
        (Prior(hit.case.case_id, float(hit.similarity), value), hit) for hit, value in labelled if finding.counts(value)
    ]
    return sorted(pairs, key=lambda pair: in_order(pair[0]))[: finding.scorer.k]


def _basis(finding: Finding, fitted: Fitted | None, priors: tuple[Prior, ...], asked: Asked, context: Context) -> Basis:
    selected, refusal = _selected(finding, fitted, asked)
    same_encoder = fitted is not None and fitted.encoder == context.encoder
    return Basis(
        finding=finding,
        priors=priors,
        encoder=context.encoder,
        library=context.library,
        kept=context.kept,
        labelled_count=context.labelled_count,
        is_exact=context.is_exact,
        is_in_scope=finding.scope.takes(asked.facts),
        is_narrowed=context.is_narrowed,
        measured=measure(finding, fitted, asked.vector) if same_encoder or fitted is None else (),
        fit=_fit(finding, fitted) if fitted else None,
        selected=selected,
        refusal=refusal,
        prevalence=asked.prevalence,
        limits=limits_of(fitted, asked.vector) if fitted and same_encoder else Limits(),
        groups=_groups(finding, fitted, asked.facts, selected) if fitted else (),
        image_count=asked.image_count,
    )


def _selected(finding: Finding, fitted: Fitted | None, asked: Asked) -> tuple[Selected | None, str]:
    default = Choice(finding.default_operating_point) if finding.default_operating_point else None
    choice = asked.choice or default
    if fitted is None or choice is None:
        return None, ""
    try:
        return select(fitted, choice, asked.prevalence), ""
    except (NotFound, Unsupported) as error:
        if not asked.is_one_of_many:
            raise
        return None, str(error)


def _fit(finding: Finding, fitted: Fitted) -> Fit:
    parts = {
        "name": (finding.name, fitted.finding),
        "version": (finding.version, fitted.finding_version),
        "label": (finding.label, fitted.label),
        "positive values": (finding.positive_values, fitted.positive_values),
        "negative values": (finding.negative_values, fitted.negative_values),
        "scope": (finding.scope.text, fitted.scope),
        "scorer": (finding.scorer, fitted.scorer),
        "floors of a call": (finding.floors.of_images, fitted.floors.of_images),
    }
    changed = tuple(name for name, (now, then) in parts.items() if now != then)
    return Fit(fitted.encoder, fitted.library, changed, fitted.calibration, fitted.residuals)


def _groups(finding: Finding, fitted: Fitted, facts: CaseFacts, selected: Selected | None) -> tuple[QueryGroup, ...]:
    points = [each for each in (selected.point, selected.rule_out) if each is not None] if selected else []
    return groups_of(facts, fitted.groups, finding.floors.groups, points, fitted.gap, fitted.curve)


def limits_of(fitted: Fitted, vector: Embedding | None) -> Limits:
    """Returns the fitted limits of what is like the library, and the distance of an image's embedding.

    Raises:
        InvalidInput: There is no embedding to compare.
    """
    known = fitted.familiarity
    if known is None:
        return Limits()
    shape = known.ellipsoid
    if shape is None:
        return Limits(known.nearest, known.mean)
    if vector is None:
        raise InvalidInput("expected an embedding to compare with the library, got none", field="vector")
    return Limits(known.nearest, known.mean, shape.limit, shape.distance(vector))


def _origin(fitted: Fitted | None, asked: Asked, context: Context) -> Origin:
    return Origin.of(
        image_sha256=asked.image_sha256,
        vector=asked.vector,
        fitted=fitted,
        at_s=context.at_s,
        made_by=context.made_by,
        is_keyed=context.is_keyed,
        images=asked.images,
    )
