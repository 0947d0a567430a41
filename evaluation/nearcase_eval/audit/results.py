"""Sections 5 to 9 in words: every number with its interval and its counts."""

from __future__ import annotations

from collections.abc import Iterator

from nearcase_eval.audit.layout import Row, Section, Table, table
from nearcase_eval.audit.report import GroupGaps, GroupTable, Point, Report
from nearcase_eval.audit.wording import METRICS, VERDICTS, number, p_value, percent, share, value
from nearcase_eval.estimate import Estimate
from nearcase_eval.gaps import Gap

CALIBRATION = {
    "in_the_large": "in the large",
    "intercept": "intercept",
    "slope": "slope",
    "observed_expected": "O/E",
    "ece_width": "ECE, equal width",
    "ece_mass": "ECE, equal counts",
    "brier": "Brier",
    "brier_skill": "Brier skill",
}


def overall(report: Report) -> Section:
    """Returns section 5."""
    ranking = [
        (
            each.finding,
            f"{each.positives:,} of {each.rows:,}",
            f"{each.patients:,}",
            value(each.auroc),
            value(each.auroc_rows),
            value(each.auprc),
            share(each.prevalence),
            value(each.partial_auroc),
            each.auroc.method,
        )
        for each in report.overall
    ]
    names = ("finding", "positives", "patients", "AUROC", "as if rows were independent", "AUPRC", "prevalence")
    tables = [table("Ranking", (*names, "partial AUROC", "method"), ranking, "Value (95 % interval).")]
    calibrated = [
        (each.finding, *(value(getattr(each.calibration, name)) for name in CALIBRATION))
        for each in report.overall
        if each.calibration
    ]
    if calibrated:
        tables.append(table("Calibration", ("finding", *CALIBRATION.values()), calibrated))
    notes = tuple(
        f"{each.finding}: no calibration, {each.calibration_reason}." for each in report.overall if not each.calibration
    )
    if report.averages:
        rows = [("macro", value(report.averages.macro)), ("micro", value(report.averages.micro))]
        dropped = ", ".join(report.averages.dropped) or "none"
        tables.append(
            table(
                "Averages of AUROC over findings",
                ("average", "AUROC"),
                rows,
                f"Dropped, with one class only: {dropped}.",
            )
        )
    return Section(5, "Overall", tuple(tables), notes)


def points(report: Report) -> Section:
    """Returns section 6."""
    chosen = [_chosen(point) for point in report.points]
    names = ("finding", "rule", "threshold", "method", "chosen on", "pre-specified", "promise", "patients counted")
    done = [point for point in report.points if point.test]
    tables = [
        table("Thresholds", (*names, "needed"), chosen, "A row is called when its score is at or above the threshold."),
        table(
            "Counts on the test rows", ("finding", "rule", "TP", "FN", "FP", "TN"), [_counts(point) for point in done]
        ),
        table(
            "Rates on the test rows",
            ("finding", "rule", "sensitivity", "specificity", "PPV", "NPV", "flagged", "LR+", "LR−", "net benefit"),
            [_rates(point) for point in done],
        ),
    ]
    stated = [
        (point.finding, point.rule, percent(each.prevalence), share(each.ppv), share(each.npv))
        for point in done
        if point.test
        for each in point.test.predictive
    ]
    if stated:
        heads = ("finding", "rule", "prevalence", "PPV", "NPV")
        tables.append(table("Predictive values at stated prevalences", heads, stated))
    return Section(6, "Operating points", tuple(tables))


def groups(report: Report) -> Section:
    """Returns section 7."""
    tables = [_group_table(each) for each in report.groups]
    rows = [
        (
            each.finding,
            each.attribute,
            found.group,
            value(found.in_the_large),
            value(found.slope),
            value(found.observed_expected),
            value(found.brier),
        )
        for each in _first_of_each(report.groups)
        for found in each.calibration
    ]
    if rows:
        names = ("finding", "by", "group", "in the large", "slope", "O/E", "Brier")
        tables.append(table("Calibration by group", names, rows))
    return Section(7, "Subgroups", tuple(tables))


def gaps(report: Report) -> Section:
    """Returns section 8."""
    names = ("finding", "by", "metric", "operating point", "between", "gap", "p", "adjusted p", "family", "by chance")
    largest = [_largest(entry) for entry in report.gaps]
    tables = [table("Largest gaps", (*names, "detectable", "tolerance", "verdict"), largest, NOTE)]
    odds = [
        (each.finding, each.attribute, each.rule, _between(each.gap), value(each.gap.estimate), p_value(each.gap.p))
        for each in report.odds
    ]
    if odds:
        tables.append(table("Equalised odds", ("finding", "by", "operating point", "between", "difference", "p"), odds))
    rest = [
        (
            entry.finding,
            entry.attribute,
            METRICS[entry.metric],
            entry.rule or "–",
            gap.first,
            value(gap.estimate),
            p_value(gap.p),
            VERDICTS[gap.verdict],
        )
        for entry in report.gaps
        for gap in entry.gaps.to_rest
    ]
    heads = ("finding", "by", "metric", "operating point", "group", "minus the rest", "p", "verdict")
    tables.append(table("Each group and the rest", heads, rest))
    tables += _alone(report)
    notes = tuple(
        f"{entry.finding}, {entry.attribute} {each.name}: in no gap of {METRICS[entry.metric]}, {each.reason}."
        for entry in report.gaps
        for each in entry.gaps.excluded
        if each.reason != "there are no rows"
    )
    return Section(8, "Gaps", tuple(tables), notes)


def comparison(report: Report) -> Section:
    """Returns section 9."""
    if not report.versus:
        return Section(9, "Comparison with another score", notes=("No other score was given (--compare).",))
    rows = [
        (
            each.finding,
            each.attribute or "all",
            each.group,
            each.difference.first,
            value(each.first),
            each.difference.second,
            value(each.second),
            value(each.difference.estimate),
            p_value(each.difference.p),
            _noninferior(each.noninferior),
        )
        for each in report.versus
    ]
    names = ("finding", "by", "group", "score", "AUROC", "other score", "AUROC of it", "difference", "p")
    return Section(9, "Comparison with another score", (table("Paired differences", (*names, "non-inferior"), rows),))


NOTE = (
    "The interval holds for all pairs of groups at once. p is that of a gap this large without any "
    "difference; adjusted "
    "p allows for the family of tests. Detectable is the true gap that these patients would show with a power of 80 %."
)


def _chosen(point: Point) -> Row:
    found = point.threshold
    refused = "" if found.value is not None else f"refused: {found.reason}"
    needed = f"{found.patients_needed:,}" if found.patients_needed else "–"
    counted = f"{found.patients:,}" if found.patients else "–"
    threshold = "none" if found.value is None else f"{found.value:.6g}"
    prespecified = "yes" if point.prespecified else "no: exploratory"
    promise = refused or found.guarantee
    return (point.finding, point.rule, threshold, found.method, point.chosen_on, prespecified, promise, counted, needed)


def _counts(point: Point) -> Row:
    at = point.test
    if at is None:
        return (point.finding, point.rule, "–", "–", "–", "–")
    counts = (at.true_positive, at.false_negative, at.false_positive, at.true_negative)
    return (point.finding, point.rule, *(f"{each:,}" for each in counts))


def _rates(point: Point) -> Row:
    at = point.test
    if at is None:
        return (point.finding, point.rule, *("–",) * 8)
    ratios = (value(at.ratios.positive, 2), value(at.ratios.negative, 2))
    benefit = value(point.benefit.model, 4) if point.benefit else "–"
    rates = (share(point.sensitivity), share(point.specificity), share(at.ppv), share(at.npv), share(at.flagged))
    return (point.finding, point.rule, *rates, *ratios, benefit)


def _group_table(each: GroupTable) -> Table:
    rows = [
        (
            group.name,
            f"{group.positives:,} of {group.n:,}",
            f"{group.positive_patients:,} of {group.patients:,}",
            share(group.prevalence),
            value(group.auroc),
            share(group.sensitivity),
            share(group.specificity),
            share(group.miss_rate),
            share(group.false_alarm_rate),
            share(group.ppv),
            share(group.npv),
            share(group.flagged),
            f"{group.state.value}{': ' + group.reason if group.reason else ''}",
        )
        for group in each.groups
        if group.n or group.state.value == "suppressed"
    ]
    names = (
        "group",
        "positives of images",
        "with it, of patients",
        "prevalence",
        "AUROC",
        "sensitivity",
        "specificity",
    )
    at = f" at {each.rule}, threshold {each.threshold:.6g}" if each.rule and each.threshold is not None else ""
    rates = ("missed (FNR)", "false alarms (FPR)", "PPV", "NPV", "flagged", "state")
    return table(f"{each.finding} by {each.attribute}{at}", (*names, *rates), rows)


def _first_of_each(found: tuple[GroupTable, ...]) -> Iterator[GroupTable]:
    """Calibration knows no threshold: the tables of the first operating point are enough."""
    seen = set()
    for each in found:
        if (each.finding, each.attribute) not in seen:
            seen.add((each.finding, each.attribute))
            yield each


def _largest(entry: GroupGaps) -> Row:
    gap = entry.gaps.largest
    family = f"{entry.family} ({entry.adjustment}{', exploratory' if entry.exploratory else ''})"
    limits = (
        number(gap.expected_by_chance),
        number(gap.minimum_detectable),
        number(gap.tolerance),
        VERDICTS[gap.verdict],
    )
    what = (
        entry.finding,
        entry.attribute,
        METRICS[entry.metric],
        entry.rule or "–",
        _between(gap),
        value(gap.estimate),
    )
    return (*what, p_value(entry.p), p_value(entry.p_adjusted), family, *limits)


def _between(gap: Gap) -> str:
    return f"{gap.first} − {gap.second}" if gap.first else "–"


def _alone(report: Report) -> Iterator[Table]:
    rows = [
        (each.finding, " and ".join(row.columns), value(row.auroc), value(_paired(row.score_minus_baseline)))
        for each in report.confounders
        for row in each.baselines
    ]
    if rows:
        note = "What these columns predict without the image, cross-validated by patient."
        yield table("Confounders alone", ("finding", "columns", "AUROC", "score minus these"), rows, note)
    named = [
        (row.finding, row.metric, row.attribute or "all", row.group, value(row.estimate)) for row in report.metrics
    ]
    if named:
        yield table("Other metrics", ("finding", "metric", "by", "group", "value"), named)


def _paired(difference: object) -> Estimate | None:
    return getattr(difference, "estimate", None)


def _noninferior(found: bool | None) -> str:
    return "–" if found is None else "yes" if found else "not shown"
