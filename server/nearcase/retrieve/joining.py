"""A case that comes from an export joins the case that is here.

What is imported counts, except where this library knows more: a flag that was set here stays set, a correction and a
merge of patients that were made here stay made, and of two times of adding the earlier one holds. So an import never
gives back a consent that was withdrawn, and importing again changes nothing. Exports tell times to the microsecond;
times that differ by less are one.
"""

from __future__ import annotations

from dataclasses import replace

from nearcase.retrieve.corrections import is_merged_away, with_patient_of
from nearcase.types import Case, LabelChange


def joined(stored: Case | None, imported: Case) -> Case:
    """Returns the case as the library keeps it: joined(joined(s, i), i) == joined(s, i)."""
    if stored is None:
        return replace(imported, flags=tuple(sorted(imported.flags)), history=_history((), imported.history))
    whose = with_patient_of(imported, stored) if is_merged_away(imported, stored) else imported
    return replace(
        whose,
        labels=_labels(stored, imported),
        flags=tuple(sorted({*stored.flags, *imported.flags})),
        history=_history(stored.history, imported.history),
        added_at_s=_earlier_s(stored.added_at_s, imported.added_at_s),
        thumbnail_jpeg=imported.thumbnail_jpeg or stored.thumbnail_jpeg,
    )


def _earlier_s(here_s: float, there_s: float) -> float:
    return there_s if _micros(there_s) < _micros(here_s) else here_s


def _history(here: tuple[LabelChange, ...], there: tuple[LabelChange, ...]) -> tuple[LabelChange, ...]:
    """All changes once, in the order of their times; of equal times, those that were here come first."""
    changes = {_key(change): change for change in (*there, *here)}  # of two that are one, what is here stays
    order = dict.fromkeys(map(_key, (*here, *there)))
    return tuple(sorted((changes[key] for key in order), key=lambda change: _micros(change.changed_at_s)))


def _labels(stored: Case, imported: Case) -> dict[str, str]:
    """The imported labels, and those names as they are here whose newest change was made here."""
    labels = dict(imported.labels)
    newest = {change.name: change for change in _history(stored.history, imported.history)}
    known = set(map(_key, imported.history))
    for name, change in newest.items():
        if _key(change) not in known:
            labels.pop(name, None)
            if name in stored.labels:
                labels[name] = stored.labels[name]
    return labels


def _key(change: LabelChange) -> tuple[str, str, str, int, str]:
    return change.name, change.old, change.new, _micros(change.changed_at_s), change.changed_by


def _micros(time_s: float) -> int:
    return round(time_s * 1e6)
