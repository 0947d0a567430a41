"""Which column is what: as the options say, else guessed from the names; never between two that are alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nearcase.errors import InvalidInput

NAMES = {
    "patient": ("patient_id", "patientid", "patient", "subject_id", "subjectid", "subject", "mrn", "person_id"),
    "sex": ("sex", "gender", "patient_sex", "patientsex", "patient_gender"),
    "age": ("age", "age_years", "patient_age", "patientage", "anchor_age"),
    "split": ("split", "partition", "subset", "set", "set_id"),
    "image": ("image_id", "imageid", "image", "image_index", "sop_instance_uid", "sopinstanceuid", "filename", "path"),
}
"""Names that are understood, in any case and with any sign between the words."""

LABELS = ("y_true", "label", "labels", "truth", "target", "y", "ground_truth", "outcome")
SCORES = ("y_score", "score", "scores", "y_prob", "prob", "probability", "prediction", "pred", "y_pred", "output")
LABEL_PATTERNS = ("label_*", "y_true_*", "truth_*", "target_*", "gt_*", "y_*")
SCORE_PATTERNS = ("score_*", "y_score_*", "prob_*", "probability_*", "pred_*", "y_prob_*", "y_pred_*", "p_*")

OPTIONS = {"image": "on"}
"""Option of a role, where it is not named like the role."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One outcome and the score for it."""

    name: str
    label: str
    score: str
    compared: str | None = None  # column of the other model's score


@dataclass(frozen=True, slots=True)
class Roles:
    """Which column is what; None where there is none."""

    findings: tuple[Finding, ...]
    patient: str | None
    sex: str | None
    age: str | None
    split: str | None
    image: str | None
    guessed: frozenset[str] = frozenset()  # roles that no option named


def assign(
    columns: Sequence[str],
    *,
    label: str | None = None,
    score: str | None = None,
    compare: str | None = None,
    patient: str | None = None,
    split: str | None = None,
    image: str | None = None,
) -> Roles:
    """Returns the roles of the columns.

    Args:
        columns: Names in the table, those of the metadata included.
        label: Column of 0/1 outcomes, or a pattern with one *, for several findings.
        score: Column or pattern of scores; what its * stands for must be what the label's stands for.
        compare: Column or pattern of another model's scores.
        patient: Column of patients; "none" when every row is a patient of its own.
        split: Column that says which rows are test rows; "none" when all are.
        image: Column that names each row.

    Raises:
        InvalidInput: A column is not there, nothing can be guessed, or two columns are equally likely; the message
            names the option that settles it.
    """
    given = {"patient": patient, "split": split, "image": image, "sex": None, "age": None}
    found = {role: _one(role, given[role], columns) for role in given}
    pairs, guessed = _pairs(columns, label, score)
    others = dict(_matches(compare, columns, "--compare")) if compare else {}
    findings = tuple(_finding(name, a, b, others if compare else None, len(pairs)) for name, a, b in pairs)
    roles = {role for role, column in found.items() if column and not given[role]} | guessed
    return Roles(findings, **found, guessed=frozenset(roles))


def _finding(name: str, label: str, score: str, others: dict[str, str] | None, count: int) -> Finding:
    if others is None:
        return Finding(name, label, score)
    if count == 1 and len(others) == 1:
        return Finding(name, label, score, next(iter(others.values())))
    if name not in others:
        raise InvalidInput(f"expected a column of --compare for the finding {name!r}, found none", field="compare")
    return Finding(name, label, score, others[name])


def _one(role: str, given: str | None, columns: Sequence[str]) -> str | None:
    option = f"--{OPTIONS.get(role, role)}"
    if given:
        if given not in columns and given != "none":
            raise InvalidInput(f"{option}: there is no column {given!r}; there are {', '.join(columns)}", field=role)
        return None if given == "none" else given
    likely = [name for name in columns if _plain(name) in NAMES[role]]
    if len(likely) > 1:
        how = f"say which with {option}" if role not in ("sex", "age") else "rename or drop one of them"
        raise InvalidInput(f"{' and '.join(map(repr, likely))} could each be the {role}: {how}", field=role)
    return likely[0] if likely else None


def _pairs(columns: Sequence[str], label: str | None, score: str | None) -> tuple[list[tuple[str, str, str]], set[str]]:
    labels, label_guessed = _outcome(columns, label, LABELS, LABEL_PATTERNS, "--label")
    scores, score_guessed = _outcome(columns, score, SCORES, SCORE_PATTERNS, "--score")
    guessed = {name for name, was in (("label", label_guessed), ("score", score_guessed)) if was}
    if len(labels) == len(scores) == 1:
        (name, column), (other, value) = labels[0], scores[0]
        return [(name or other or _short(column), column, value)], guessed
    by_name = dict(scores)
    if missing := [name for name, _ in labels if name not in by_name]:
        raise InvalidInput(
            f"expected a score for the finding {missing[0]!r}; scores are there for {', '.join(by_name) or 'none'}: "
            "say which columns with --label and --score, for example --label 'label_*' --score 'score_*'",
            field="score",
        )
    return [(name, column, by_name[name]) for name, column in labels], guessed


def _short(column: str) -> str:
    """Returns what a usual pattern leaves of a label's name: pneumothorax of label_pneumothorax."""
    return next((name for pattern in LABEL_PATTERNS for name, _ in _matching(pattern, [column])), column)


def _outcome(
    columns: Sequence[str], given: str | None, names: Sequence[str], patterns: Sequence[str], option: str
) -> tuple[list[tuple[str, str]], bool]:
    """Returns ((what * stands for, column), ...), and whether it was guessed."""
    if given:
        return list(_matches(given, columns, option)), False
    if option == "--label":  # y_* must not take y_score_*
        columns = [name for name in columns if not any(list(_matching(each, [name])) for each in SCORE_PATTERNS)]
    exact = [name for name in columns if _plain(name) in names]
    if len(exact) > 1:
        raise InvalidInput(
            f"{' and '.join(map(repr, exact))} could each be the {option[2:]}: say which with {option}",
            field=option[2:],
        )
    if exact:
        return [("", exact[0])], True
    for pattern in patterns:
        if found := list(_matching(pattern, columns)):
            return found, True
    raise InvalidInput(
        f"no column looks like the {option[2:]}: say which with {option}; there are {', '.join(columns)}",
        field=option[2:],
    )


def _matches(pattern: str, columns: Sequence[str], option: str) -> Iterator[tuple[str, str]]:
    if pattern in columns:
        return iter([("", pattern)])
    if pattern.count("*") > 1:
        raise InvalidInput(f"{option}: expected at most one * in {pattern!r}", field=option[2:])
    found = list(_matching(pattern, columns))
    if not found:
        raise InvalidInput(f"{option}: no column is {pattern!r}; there are {', '.join(columns)}", field=option[2:])
    return iter(found)


def _matching(pattern: str, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    before, _, after = pattern.partition("*")
    for name in columns:
        long_enough = len(name) > len(before) + len(after)
        if "*" in pattern and long_enough and name.startswith(before) and name.endswith(after):
            yield name[len(before) : len(name) - len(after)], name


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
