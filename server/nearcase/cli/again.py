"""A recorded decision asked again of today's library: the same question, about the same files."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from nearcase.cli.facts import OPTIONS
from nearcase.cli.query import Asked, decide_about
from nearcase.client import Client, Example
from nearcase.decide.inquiry import CASE, FILE, FILES, SERIES, STUDY
from nearcase.decide.operating import Choice
from nearcase.decide.record import Record, read_record
from nearcase.errors import InvalidInput, NotFound
from nearcase.requests import read
from nearcase.types import CaseFacts

_NAMED = {
    FILE: "one file: give it with --image",
    FILES: "several files as one: give them with --image",
    CASE: "a case of the library: give its id with --case",
    SERIES: "a series of the library: give its UID with --series",
    STUDY: "a study of the library: give its UID with --study",
}


def check_query(kept: Record, asked: Asked, facts: CaseFacts, where: str) -> Asked:
    """Returns what is asked about, at the frames of the record, when it is what the decision was about.

    Args:
        kept: The record.
        asked: What the command line names.
        facts: What it says of the files.
        where: Its filter.

    Raises:
        InvalidInput: It is something else, or what the record does not keep was not given.
    """
    inquiry = kept.inquiry
    if _source(asked) != inquiry.source:
        raise InvalidInput(f"expected what was decided about, {_NAMED[inquiry.source]}; got something else")
    _check_facts(inquiry.facts, facts)
    if not inquiry.is_where_kept and not where:
        raise InvalidInput("the decision was asked with a filter that could name a person; give it with --filter")
    if inquiry.is_where_kept and where.strip() not in ("", inquiry.where):
        raise InvalidInput("expected the filter that is in the record, or none; got another")
    _check_hash(kept, asked)
    return dataclasses.replace(asked, examples=_at_frames(inquiry.frames, asked))


def ask_again(client: Client, kept: Record, asked: Asked, facts: CaseFacts, where: str) -> Record:
    """Returns the record of the same question today; the new decision has a record of its own.

    Raises:
        InvalidInput: The server knows the file or case by another hash.
        NotFound: All findings were asked at once, and this one is not among them today.
    """
    basis, inquiry = kept.basis, kept.inquiry
    result = decide_about(
        client,
        asked,
        facts,
        finding="" if inquiry.is_one_of_many else basis.finding.name,
        prevalence=basis.prevalence,
        k=inquiry.k,
        where=where or inquiry.where,
        near_duplicates=inquiry.near_duplicate_similarity,
        **_choice(inquiry.choice),
    )
    found = next((each for each in result.decisions if each.finding == basis.finding.name), None)
    if found is None:
        message = "the finding is not decided for this image today: it is gone, or its scope is another"
        raise NotFound(message, reason="FINDING_NOT_FOUND")
    today = read_record(client.record(found.record_id))
    if inquiry.source in (FILE, FILES, CASE) and today.origin.image_sha256 != kept.origin.image_sha256:
        raise _other()
    return today


def _source(asked: Asked) -> str:
    files, first = len(asked.files), asked.examples[0]
    if len(asked.examples) > max(1, files):
        return ""  # files and what the library holds, or two such things
    if files:
        return FILE if files == 1 else FILES
    return CASE if first.case_id else SERIES if first.series_uid else STUDY


def _check_facts(names: tuple[str, ...], facts: CaseFacts) -> None:
    given = {name for name in OPTIONS if getattr(facts, name) not in ("", None)}
    missing = [OPTIONS.get(name, name) for name in names if name not in given]
    if missing:
        raise InvalidInput(f"the decision was asked with {', '.join(missing)}, which no record keeps; give it again")
    more = [OPTIONS[name] for name in OPTIONS if name in given.difference(names)]
    if more:
        raise InvalidInput(f"the decision was asked without {', '.join(more)}; leave it out")


def _check_hash(kept: Record, asked: Asked) -> None:
    """Only the server can compare keyed hashes, and knows what the library holds."""
    if len(asked.files) != len(kept.inquiry.frames):
        raise _other()
    if asked.files and not kept.origin.is_keyed:
        hashes = [hashlib.sha256(read(example.image or b"")).hexdigest() for example in asked.files]
        many = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
        if kept.origin.image_sha256 != (hashes[0] if len(hashes) == 1 else many):
            raise _other()


def _at_frames(frames: tuple[int, ...], asked: Asked) -> tuple[Example, ...]:
    if not asked.files:
        return asked.examples
    stated = tuple(example.frame_number or 0 for example in asked.files)
    if any(stated) and stated != frames:
        shown = ", ".join(str(frame) if frame else "the middle one" for frame in frames)
        raise InvalidInput(f"expected the frames that were decided about ({shown}), got others")
    pairs = zip(asked.files, frames, strict=True)
    return tuple(dataclasses.replace(example, frame_number=frame or None) for example, frame in pairs)


def _choice(choice: Choice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    return {
        "operating_point": choice.name,
        "sensitivity": choice.target_sensitivity,
        "specificity": choice.target_specificity,
        "cost_ratio": choice.cost_ratio,
    }


def _other() -> InvalidInput:
    return InvalidInput("expected the file that was decided about, got another: its SHA-256 is not the record's")
