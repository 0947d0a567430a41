"""What people correct in a case after it was added: labels with their history, flags, and whose case it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from nearcase.errors import InvalidInput
from nearcase.retrieve.annotations import Annotations, annotate, given_to, renew
from nearcase.retrieve.cases import FLAGS, patient_key
from nearcase.types import Case, CaseFacts, LabelChange

MAX_HISTORY = 1000
"""Corrections of one case; each makes the case larger, and no person makes so many."""

MERGED = "patient (merged)"
"""The name of a merge in the history; no label has blanks in its name."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What to change of a case."""

    labels: Mapping[str, str] = field(default_factory=dict)  # "" removes the label
    set_flags: tuple[str, ...] = ()
    clear_flags: tuple[str, ...] = ()
    changed_by: str = ""


def check_flags(flags: Iterable[str]) -> None:
    """Refuses flags that there are not.

    Raises:
        InvalidInput: One is another word.
    """
    for flag in flags:
        if flag not in FLAGS:
            raise InvalidInput(f"expected the flag {' or '.join(FLAGS)}, got another word", field="flags")


def corrected(case: Case, correction: Correction, now_s: float) -> Case:
    """Returns the case with the correction; equal to the case where that changes nothing.

    Raises:
        InvalidInput: A flag is unknown, or set and cleared at once, or the case has too long a history.
    """
    check_flags((*correction.set_flags, *correction.clear_flags))
    if set(correction.set_flags) & set(correction.clear_flags):
        raise InvalidInput("expected a flag to be set or cleared, got one to be both", field="flags")
    merged = {**case.labels, **correction.labels}
    labels = {name: value for name, value in merged.items() if value}
    flags = set(case.flags) - set(correction.clear_flags) | set(correction.set_flags)
    changed = relabelled(replace(case, flags=tuple(sorted(flags))), labels, now_s, correction.changed_by)
    return replace(changed, labels=labels)


def relabelled(case: Case, labels: Mapping[str, str], now_s: float, changed_by: str) -> Case:
    """Returns the case with what these labels change in its history; the labels themselves stay."""
    names = sorted(name for name in {*case.labels, *labels} if case.labels.get(name) != labels.get(name))
    rows = (LabelChange(name, case.labels.get(name, ""), labels.get(name, ""), now_s, changed_by) for name in names)
    return _with_history(case, tuple(rows))


def renewed(case: Case, given: Annotations, stored: Case | None, now_s: float, changed_by: str) -> Case:
    """Returns the case that an image becomes which is added, perhaps again.

    What people corrected stays: flags, history, and a patient whom the file still calls by the id that is gone. Another
    patient's file under the same id of its image is refused: it can neither have this one's labels, nor take away the
    case with its flags.

    Args:
        case: As its file states it.
        given: What is known besides.
        stored: What it is now; None for a new one.
        now_s: When it is added.
        changed_by: Who says so.

    Raises:
        InvalidInput: With reason INSTANCE_OF_ANOTHER_PATIENT. Or the case has too long a history.
    """
    if stored is None:
        return annotate(case, given)
    new = annotate(case, renew(given_to(stored), given))
    if is_merged_away(new, stored):
        new = with_patient_of(new, stored)
    if new.content_sha256 != stored.content_sha256 and _are_two(new.facts, stored.facts):
        raise InvalidInput(
            "expected a file of the patient whose image has this SOP Instance UID here, got another patient's",
            reason="INSTANCE_OF_ANOTHER_PATIENT",
            field="PatientID",
        )
    history = relabelled(stored, new.labels, now_s, changed_by).history
    return replace(new, flags=stored.flags, history=history)


def moved(case: Case, to: Case, now_s: float, changed_by: str) -> Case:
    """Returns the case as one of another case's patient; the history says whose it was."""
    row = LabelChange(MERGED, _key(case), _key(to), now_s, changed_by)
    return _with_history(with_patient_of(case, to), (row,))


def is_merged_away(case: Case, stored: Case) -> bool:
    """Returns whether a case names a patient that the stored one was taken from: files and tables go on naming it."""
    return _key(case) in {change.old for change in stored.history if change.name == MERGED}


def with_patient_of(case: Case, other: Case) -> Case:
    """Returns the case with the other's patient; given where the case's own was given."""
    patient = (other.facts.patient_id, other.facts.patient_id_issuer)
    given = case.given
    if "patient_id" in given:
        rest = tuple(name for name in given if name not in ("patient_id", "patient_id_issuer"))
        given = ("patient_id", *(("patient_id_issuer",) if patient[1] else ()), *rest)
    return replace(case, facts=replace(case.facts, patient_id=patient[0], patient_id_issuer=patient[1]), given=given)


def _with_history(case: Case, rows: tuple[LabelChange, ...]) -> Case:
    if rows and len(case.history) + len(rows) > MAX_HISTORY:
        raise InvalidInput(f"expected at most {MAX_HISTORY} corrections of one case, got more", field="labels")
    return replace(case, history=(*case.history, *rows))


def _are_two(one: CaseFacts, other: CaseFacts) -> bool:
    """Returns whether two patients are stated and differ; an id without its issuer may be that of any."""
    ids = (one.patient_id, other.patient_id)
    issuers = (one.patient_id_issuer, other.patient_id_issuer)
    return all(ids) and (ids[0] != ids[1] or (all(issuers) and issuers[0] != issuers[1]))


def _key(case: Case) -> str:
    return patient_key(case.facts.patient_id, case.facts.patient_id_issuer)
