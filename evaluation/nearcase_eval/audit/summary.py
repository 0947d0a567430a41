"""The first minute: what was tested, how well it did, and each gap in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nearcase_eval.audit.report import Flow, GroupGaps, Judged, Overall, Point, Summary
from nearcase_eval.audit.wording import METRICS, interval, number, percent, several, value
from nearcase_eval.estimate import State
from nearcase_eval.gaps import Gap, Verdict


def summary_of(
    flow: Flow,
    overall: Sequence[Overall],
    points: Sequence[Point],
    gaps: Sequence[GroupGaps],
    patients: int,
) -> Summary:
    """Returns the summary; crossings are explored and do not count toward the verdict."""
    judged = tuple(_judged(each) for each in gaps if not each.exploratory)
    verdict = worst([each.verdict for each in judged])
    return Summary(verdict, _sentence(verdict, judged), tuple(_tested(flow, overall, points, patients)), judged)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Returns fail before inconclusive before pass; of no verdict at all, inconclusive."""
    for each in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
        if each in verdicts:
            return each
    return Verdict.INCONCLUSIVE


def _sentence(verdict: Verdict, judged: Sequence[Judged]) -> str:
    if not judged:
        return "No gap was judged: the table has no attribute to compare, such as sex or age."
    counts = {each: sum(one.verdict is each for one in judged) for each in Verdict}
    if verdict is Verdict.PASS:
        every = "The one gap" if len(judged) == 1 else f"All {len(judged)} gaps"
        return f"{every} between groups {'is' if len(judged) == 1 else 'are'} within the stated tolerance."
    if verdict is Verdict.FAIL:
        beyond = counts[Verdict.FAIL]
        return (
            f"{several(beyond, 'gap')} of {len(judged)} between groups {'is' if beyond == 1 else 'are'} beyond the "
            f"stated tolerance; {counts[Verdict.INCONCLUSIVE]} cannot be decided with this much data."
        )
    return (
        f"{counts[Verdict.INCONCLUSIVE]} of {several(len(judged), 'gap')} between groups cannot be decided with this "
        "much data: neither fairness nor unfairness is shown."
    )


def _tested(flow: Flow, overall: Sequence[Overall], points: Sequence[Point], patients: int) -> Iterator[str]:
    tested = next(step.rows for step in reversed(flow.steps))
    people = f" of {several(patients, 'patient')}" if flow.unit == "patient" else " (patients are not named)"
    names = ", ".join(each.finding for each in overall[:4]) + (" and more" if len(overall) > 4 else "")
    yield f"Tested: {several(tested or 0, 'image')}{people}, for {names}."
    for each in overall[:6]:
        if each.auroc.value is None:
            yield f"{each.finding}: the AUROC cannot be estimated, {each.auroc.reason}."
            continue
        yield (
            f"{each.finding}: AUROC {value(each.auroc)}. Of two images, one with the finding and one without, the "
            f"score ranks the right one higher in {percent(each.auroc.value, 0)} of pairs. {each.positives:,} of "
            f"{several(each.rows, 'image')} have the finding."
        )
    if len(overall) > 6:
        yield f"{len(overall) - 6} more findings are in section 5."
    for point in points[:3]:
        if point.test and point.sensitivity and point.specificity and point.sensitivity.value is not None:
            yield (
                f"{point.finding} at a threshold of {point.test.threshold:.4g} ({_origin(point)}): finds "
                f"{percent(point.sensitivity.value)} of the positives and clears {percent(point.specificity.value)} of "
                "the negatives."
            )


def _origin(point: Point) -> str:
    if point.chosen_on == "test rows":
        return f"{point.rule}, chosen on the test rows, so these two numbers are optimistic"
    return "given beforehand" if point.chosen_on == "given beforehand" else f"{point.rule}, chosen on other rows"


def _judged(entry: GroupGaps) -> Judged:
    gap = entry.gaps.largest
    return Judged(entry.finding, entry.attribute, entry.metric, entry.rule, gap.verdict, _gap_sentence(entry, gap))


def _gap_sentence(entry: GroupGaps, gap: Gap) -> str:
    name, at = METRICS[entry.metric], f" at {entry.rule}" if entry.rule else ""
    if gap.estimate.state is State.SUPPRESSED:
        return f"Gap in {name} by {entry.attribute}{at}: hidden, since it speaks of a group too small to be shown."
    if gap.estimate.value is None:
        return f"Gap in {name} by {entry.attribute}{at}: it cannot be estimated, {gap.estimate.reason}."
    scale = f"{number(gap.estimate.value)} (interval {interval(gap.estimate)})"
    said = f"{gap.first} has {'a higher value' if entry.metric == 'auroc' else 'more'} than {gap.second} by {scale}"
    tolerance = number(gap.tolerance)
    verdict = {
        Verdict.PASS: f"the whole interval is within the tolerance of {tolerance}",
        Verdict.FAIL: f"the whole interval is beyond the tolerance of {tolerance}",
        Verdict.INCONCLUSIVE: f"the interval reaches across the tolerance of {tolerance}",
        Verdict.NOT_JUDGED: "no tolerance was stated",
    }[gap.verdict]
    more = ""
    if gap.verdict is Verdict.INCONCLUSIVE and gap.minimum_detectable is not None:
        more = f" With these patients only a gap of about {number(gap.minimum_detectable)} would be seen reliably."
    return f"{name[0].upper()}{name[1:]}, by {entry.attribute}{at}: {said}; {verdict}.{more}"
