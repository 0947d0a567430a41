"""The eleven sections in words, for the page and for Markdown; the numbers are in sections 5 to 9 (results.py)."""

from __future__ import annotations

from nearcase_eval.audit.layout import Section, table
from nearcase_eval.audit.report import Report
from nearcase_eval.audit.results import comparison, gaps, groups, overall, points
from nearcase_eval.audit.wording import count, percent

NOT_PROVIDED = "not provided"
SYSTEM = {
    "name": "name",
    "version": "version",
    "weights_sha256": "SHA-256 of the weights",
    "index_version": "index version",
    "index_size": "cases in the index",
    "k": "neighbours (k)",
    "distance": "distance",
    "score": "definition of the score",
}


def sections_of(report: Report) -> tuple[Section, ...]:
    """Returns the sections in order."""
    return (
        _run(report),
        _system(report),
        _use(report),
        _flow(report),
        overall(report),
        points(report),
        groups(report),
        gaps(report),
        comparison(report),
        Section(10, "Limits", notes=report.limits),
        _maps(report),
    )


def _run(report: Report) -> Section:
    run = report.run
    facts = [
        ("tool", f"{run.tool} {run.version}"),
        ("date", run.date or "not stated"),
        ("rows and patients tested", f"{run.rows:,} and {run.patients:,}"),
        ("seed and replicates", f"{run.seed} and {run.replicates:,}"),
        ("SHA-256 of the options", run.options_sha256),
        *((each.name, each.value) for each in run.libraries),
    ]
    return Section(
        1,
        "Run",
        (
            table("What ran", ("fact", "value"), facts),
            table(
                "Files",
                ("file", "SHA-256", "rows"),
                [(each.name, each.sha256, f"{each.rows:,}") for each in run.inputs],
            ),
            table("Columns", ("role", "column"), [(each.name, each.value) for each in run.columns]),
            table("Options", ("option", "value"), [(each.name, each.value) for each in run.options]),
        ),
    )


def _system(report: Report) -> Section:
    facts = [(title, _said(getattr(report.system, name))) for name, title in SYSTEM.items()]
    facts += [
        ("findings", ", ".join(report.system.findings)),
        ("patients in index and test", report.system.overlap_check),
    ]
    shared = [(each.part, count(each.patients)) for each in report.system.overlaps]
    return Section(
        2,
        "Model and index",
        (
            table("What was audited", ("fact", "value"), facts),
            table("Test patients who are also in another part", ("part", "patients"), shared),
        ),
    )


def _use(report: Report) -> Section:
    facts = [(each.field.replace("_", " "), _said(each.text)) for each in report.use]
    note = "In the words of the model's card; nothing was filled in."
    return Section(3, "Use", (table("Intended use", ("field", "statement"), facts, note),))


def _flow(report: Report) -> Section:
    flow = report.flow
    steps = [(each.what, count(each.rows)) for each in flow.steps]
    spread = [
        ("unit of resampling", flow.unit),
        ("images of a patient, median", f"{flow.images_per_patient_median:g}"),
        ("images of a patient, most", f"{flow.images_per_patient_max:,}"),
        ("share of the test rows from one patient, most", percent(flow.largest_patient_share)),
        *((f"rows that do not state {each.what}", count(each.rows)) for each in flow.missing),
    ]
    found = [
        (
            each.finding,
            f"{each.rows:,}",
            f"{each.patients:,}",
            f"{each.positives:,}",
            f"{each.positive_patients:,}",
            f"{each.unlabelled:,}",
            f"{each.uncertain:,}",
            f"{each.unscored:,}",
            f"{each.lowest_score:g} to {each.highest_score:g}" if each.lowest_score is not None else "–",
            f"{each.distinct_scores:,}",
        )
        for each in flow.findings
    ]
    names = ("finding", "rows", "patients", "positives", "patients with it", "without a label", "of these uncertain")
    people = [
        (
            each.attribute,
            each.group,
            count(each.rows),
            count(each.patients),
            percent(each.share),
            percent(each.target_share),
        )
        for each in flow.demographics
    ]
    return Section(
        4,
        "Data flow",
        (
            table("From the file to the test set", ("step", "rows"), steps),
            table("Patients and images", ("fact", "value"), spread),
            table("Findings", (*names, "without a score", "scores", "different scores"), found),
            table(
                "Demographics", ("by", "group", "rows", "patients", "share of patients", "target population"), people
            ),
        ),
        flow.notes,
    )


def _maps(report: Report) -> Section:
    rows = [
        (each.item, each.source, f"section {each.section}", "yes" if each.answered else f"no: {each.note}")
        for each in report.maps
    ]
    note = "A map shows where to look. It is no statement of conformity."
    return Section(
        11,
        "Maps to guidelines and law",
        (table("Where each item is answered", ("item", "source", "where", "answered"), rows, note),),
    )


def _said(value: object) -> str:
    return NOT_PROVIDED if value is None else str(value)
