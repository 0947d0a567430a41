"""Findings as versioned data: one TOML file for each finding, read strictly at the start of a server.

name = "melanoma"                       version = "2026-11"          display_name = "Melanoma"
label = "melanoma"                      positive_values = ["1"]      negative_values = ["0"]
fitted = "melanoma.json"                default_operating_point = "sensitivity-90"
codes = [{ scheme = "SCT", value = "372244006", meaning = "Malignant melanoma" }]

[scope]                                 # filter, modality, body_part, age_years = [at least, below]
[scorer]                                # kind, k, temperature, vote, class_weights, blend, templates, prompts
[abstain]                               # minimum_evidence, least_agreement, least_similarity, library_change, groups
"""

from __future__ import annotations

import re
from pathlib import Path

from nearcase.decide.finding import SCORERS, TEMPERATURE, Code, Finding, Floors, K, Prompt, Scope, Scorer, number_of
from nearcase.decide.fitted import Fitted, read_fitted
from nearcase.decide.table import Table, read_table
from nearcase.errors import InvalidInput
from nearcase.index.filter_text import parse

MAX_K = 1000
OLDEST_YEARS = 150.0
MAX_LINE = 200

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")  # as of a label, since an undeclared label is a finding too
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.json")
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")  # PS3.5 section 6.2, VR CS
_TEMPLATE = re.compile(r"[^{}]*\{\}[^{}]*")


def read_findings(folder: Path) -> dict[str, tuple[Finding, Fitted | None]]:
    """Returns the findings of a folder by name, each with the fit that it names.

    Raises:
        InvalidInput: A file is wrong, with its line and column; two findings have one name; or a fit is missing, was
            edited, is of another finding, or lacks the default operating point or the weights of the scorer.
    """
    found: dict[str, tuple[Finding, Fitted | None]] = {}
    for path in sorted(folder.glob("*.toml")):
        table = read_table(_text(path), path.name)
        finding = _finding(table)
        if finding.name in found:
            table.refuse(("name",), "the name of one finding only", finding.name)
        found[finding.name] = finding, _fit(folder, finding, table)
    return found


def read_finding(text: str, file: str) -> Finding:
    """Returns the finding that a TOML text defines; file is its name, for messages.

    Raises:
        InvalidInput: With file, line and column, of reason FINDING_INVALID.
    """
    return _finding(read_table(text, file))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path.name}: expected a readable UTF-8 file", reason="FINDING_INVALID") from error


def _fit(folder: Path, finding: Finding, table: Table) -> Fitted | None:
    if not finding.fitted:
        return None
    try:
        data = (folder / finding.fitted).read_bytes()
    except OSError:
        table.refuse(("fitted",), "a readable file beside this one", finding.fitted)
    fitted: list[Fitted] = []
    table.check(("fitted",), lambda: fitted.append(read_fitted(data)))
    if fitted[0].finding != finding.name:
        table.refuse(("fitted",), f"the fit of {finding.name}", f"that of {fitted[0].finding}")
    for kind, _ in finding.scorer.parts:
        if not fitted[0].has(kind):
            table.refuse(("fitted",), f"a fit with the weights of the {kind}", "one without")
    point = finding.default_operating_point
    if point and point not in fitted[0].point_names:
        table.refuse(("default_operating_point",), " or ".join(fitted[0].point_names) or "absent", point)
    return fitted[0]


def _finding(table: Table) -> Finding:
    finding = Finding(
        name=table.text("name", pattern=_NAME),
        version=_line(table, "version"),
        label=table.text("label", pattern=_NAME),
        display_name=_line(table, "display_name", ""),
        positive_values=table.texts("positive_values"),
        negative_values=table.texts("negative_values"),
        is_number=table.choice("answer", ("class", "number"), "class") == "number",
        unit=_line(table, "unit", ""),
        codes=tuple(map(_code, table.tables("codes"))),
        scope=_scope(table.table("scope")),
        scorer=_scorer(table.table("scorer")),
        floors=_floors(table.table("abstain")),
        fitted=table.text("fitted", "", _FILE),
        default_operating_point=table.text("default_operating_point", ""),
    )
    table.end()
    _check(finding, table)
    return finding


def _check(finding: Finding, table: Table) -> None:
    if finding.is_number and finding.positive_values:
        table.refuse(("positive_values",), "absent where the answer is a number", "some")
    if not finding.is_number and not finding.positive_values:
        table.refuse(("positive_values",), "at least one value", "none")
    for at, value in enumerate(finding.negative_values):
        if value in finding.positive_values:
            table.refuse(("negative_values", at), "not among the positive values", value)
    if finding.default_operating_point and not finding.fitted:
        table.refuse(("default_operating_point",), "absent without a fitted file", finding.default_operating_point)
    kinds = [kind for kind, _ in finding.scorer.parts]
    if not finding.fitted and ("probe" in kinds or "prompt" in kinds):
        table.refuse(("scorer", "kind"), "neighbours where no fitted file holds its weights", finding.scorer.kind)
    _check_prompts(finding, table)
    _check_weights(finding, table)


def _check_weights(finding: Finding, table: Table) -> None:
    """A weight for a value that is not declared is a slip of the pen: what other values there are, nobody can check."""
    declared = (*finding.positive_values, *finding.negative_values)
    for value, _ in finding.scorer.class_weights:
        path = ("scorer", "class_weights", value)
        if finding.is_number and number_of(value) is None:
            table.refuse(path, "a number", value)
        if not finding.is_number and value not in declared:
            table.refuse(path, "of one of positive_values and negative_values", value)


def _check_prompts(finding: Finding, table: Table) -> None:
    for at, prompt in enumerate(finding.scorer.prompts):
        if finding.is_number and number_of(prompt.value) is None:
            table.refuse(("scorer", "prompts", at, "value"), "a number", prompt.value)
        if not finding.counts(prompt.value):
            table.refuse(("scorer", "prompts", at, "value"), "a positive or negative value", prompt.value)


def _line(table: Table, key: str, default: str | None = None) -> str:
    """Takes text that is shown to people: signs that reorder or hide others would make it say something else."""
    text = table.text(key, default)
    if len(text) > MAX_LINE:
        table.refuse((key,), f"at most {MAX_LINE} characters", f"{len(text)}")
    if not text.isprintable():
        table.refuse((key,), "one printable line without control or format characters", ascii(text))
    return text


def _code(table: Table) -> Code:
    code = Code(_line(table, "scheme"), _line(table, "value"), _line(table, "meaning"))
    table.end()
    return code


def _scope(table: Table) -> Scope:
    where = table.text("filter", "")
    if where:
        table.check(("filter",), lambda: parse(where))
    years = table.numbers("age_years", 0.0, OLDEST_YEARS)
    if years and (len(years) != 2 or years[0] >= years[1]):
        table.refuse(("age_years",), "two ages, the first below the second", f"{len(years)} in another order")
    scope = Scope(
        filter=where,
        modalities=table.texts("modality", _CODE_STRING),
        body_parts=table.texts("body_part"),
        at_least_years=years[0] if years else None,
        below_years=years[1] if years else None,
    )
    table.end()
    return scope


def _scorer(table: Table) -> Scorer:
    kind = table.choice("kind", SCORERS, "neighbours")
    scorer = Scorer(
        kind=kind,
        k=table.integer("k", 1, MAX_K, K),
        temperature=table.number("temperature", 1e-3, 1e4, TEMPERATURE),
        is_weighted=table.choice("vote", ("weighted", "plain"), "weighted") == "weighted",
        class_weights=_weights(table.table("class_weights")),
        blend=_blend(table.table("blend")),
        templates=table.texts("templates", _TEMPLATE),
        prompts=tuple(map(_prompt, table.tables("prompts"))),
    )
    table.end()
    if (kind == "blend") != bool(scorer.blend):
        table.refuse(("blend",), "there exactly where the kind is blend", "it" if scorer.blend else "no such key")
    uses_prompts = "prompt" in dict(scorer.parts)
    for key, given in (("prompts", len(scorer.prompts) > 1), ("templates", bool(scorer.templates))):
        if given != uses_prompts:
            table.refuse((key,), "there exactly where prompts are scored, two values or more", "another number of them")
    return scorer


def _weights(table: Table) -> tuple[tuple[str, float], ...]:
    """Weights of 0 are refused: cases of that value would be evidence that counts for nothing."""
    return tuple((key, table.number(key, 1e-6, 1e6, 1.0)) for key in sorted(table.keys()))


def _blend(table: Table) -> tuple[tuple[str, float], ...]:
    given = tuple((kind, table.number(kind, 1e-6, 1e6, 1.0)) for kind in SCORERS[:-1] if table.has(kind))
    table.end()
    return given


def _prompt(table: Table) -> Prompt:
    prompt = Prompt(table.text("value"), table.texts("names"))
    table.end()
    if not prompt.names:
        table.refuse(("names",), "at least one name", "none")
    return prompt


def _floors(table: Table) -> Floors:
    floors = Floors(
        evidence=table.integer("minimum_evidence", 1, 10**9, 1),
        agreement=table.number("least_agreement", 0.0, 1.0, 0.0),
        similarity=table.number("least_similarity", -1.0, 1.0, -1.0) if table.has("least_similarity") else None,
        library_change=table.number("library_change", 0.0, 1.0, 0.0),
        groups=table.texts("groups", re.compile("sex|age")),
    )
    table.end()
    return floors
