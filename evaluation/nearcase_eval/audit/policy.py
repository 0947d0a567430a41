"""A policy: rules in TOML that a report must meet, so that a pipeline can hold a release back.

    [[rule]]
    name = "finds pneumothorax"
    metric = "auroc"            # auroc, auprc, sensitivity, specificity, brier, slope, in_the_large or gap
    finding = "pneumothorax"    # optional: else every finding
    at_least = 0.80             # at_least, at_most, or both
    judge = "interval"          # all of the interval must meet the limit (the default), or only the value

    [[rule]]
    name = "no gap by sex"
    metric = "gap"
    attribute = "sex"           # optional: else every attribute that is not a crossing
    of = "auroc"                # auroc, miss_rate or false_alarm_rate
    at_most = 0.05

    [[rule]]
    name = "age is known"
    metric = "missing"          # share of the test rows without the attribute
    attribute = "age"
    at_most = 0.05

A rule on an interval passes when all of it meets the limit, fails when none of it does, and is inconclusive between.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearcase.errors import InvalidInput

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"

OVERALL = ("auroc", "auprc", "partial_auroc", "prevalence")
CALIBRATION = ("brier", "slope", "in_the_large", "ece_mass", "ece_width", "observed_expected")
POINTS = ("sensitivity", "specificity")
OTHERS = ("gap", "missing", "patients", "overlap", "prespecified")
METRICS = (*OVERALL, *CALIBRATION, *POINTS, *OTHERS)
GAP_OF = ("auroc", "miss_rate", "false_alarm_rate")
_KEYS = {"name", "metric", "finding", "attribute", "rule", "of", "at_least", "at_most", "judge"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    name: str
    metric: str
    finding: str | None = None
    attribute: str | None = None
    rule: str | None = None  # text of the operating point
    of: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    judge: str = "interval"


@dataclass(frozen=True, slots=True)
class Result:
    """A rule held to one number of the report."""

    rule: str
    verdict: str
    found: str  # in words


def read_policy(path: Path) -> tuple[Rule, ...]:
    """Returns the rules of a policy.

    Raises:
        InvalidInput: It can not be read, has no rule, or a rule is malformed.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path.name}: {error}") from error
    rules = table.get("rule")
    if set(table) != {"rule"} or not isinstance(rules, list) or not rules:
        raise InvalidInput(f"{path.name}: expected tables [[rule]] and nothing else")
    return tuple(_rule(entry, path.name) for entry in rules)


def held_to(report: Mapping[str, Any], rules: Sequence[Rule]) -> list[Result]:
    """Returns the results; a rule that meets no number of the report is inconclusive, never a pass."""
    results = []
    for rule in rules:
        found = list(_results(report, rule))
        results += found or [Result(rule.name, INCONCLUSIVE, "nothing in the report answers this rule")]
    return results


def verdict_of(results: Sequence[Result]) -> str:
    """Returns fail before inconclusive before pass."""
    verdicts = {each.verdict for each in results}
    return next(each for each in (FAIL, INCONCLUSIVE, PASS) if each in verdicts)


def _rule(entry: object, file: str) -> Rule:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InvalidInput(f"{file}: expected a name in every [[rule]]")
    name = entry["name"]
    if unknown := sorted(set(entry) - _KEYS):
        raise InvalidInput(f"{file}, rule {name!r}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    if entry.get("metric") not in METRICS:
        raise InvalidInput(f"{file}, rule {name!r}: expected a metric of {', '.join(METRICS)}")
    if entry["metric"] == "gap" and entry.get("of", "auroc") not in GAP_OF:
        raise InvalidInput(f"{file}, rule {name!r}: expected of = one of {', '.join(GAP_OF)}")
    limits = [entry.get(key) for key in ("at_least", "at_most")]
    if not any(_is_number(each) for each in limits) or any(
        each is not None and not _is_number(each) for each in limits
    ):
        raise InvalidInput(f"{file}, rule {name!r}: expected a number in at_least or at_most")
    if entry.get("judge", "interval") not in ("interval", "value"):
        raise InvalidInput(f"{file}, rule {name!r}: expected judge = interval or value")
    return Rule(**entry)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _results(report: Mapping[str, Any], rule: Rule) -> Iterator[Result]:
    if rule.metric in OVERALL or rule.metric in CALIBRATION:
        for each in report["overall"]:
            if rule.finding in (None, each["finding"]):
                holder = each["calibration"] or {} if rule.metric in CALIBRATION else each
                yield _judged(rule, holder.get(rule.metric), each["finding"])
    elif rule.metric in POINTS:
        for each in report["points"]:
            if rule.finding in (None, each["finding"]) and rule.rule in (None, each["rule"]):
                yield _judged(rule, each[rule.metric], f"{each['finding']} at {each['rule']}")
    elif rule.metric == "gap":
        yield from _gaps(report, rule)
    else:
        yield from _counts(report, rule)


def _gaps(report: Mapping[str, Any], rule: Rule) -> Iterator[Result]:
    for each in report["gaps"]:
        wanted = rule.attribute in (None, each["attribute"]) and rule.finding in (None, each["finding"])
        right = each["metric"] == (rule.of or "auroc") and (rule.rule is None or each["rule"] in (None, rule.rule))
        if wanted and right and (rule.attribute is not None or not each["exploratory"]):
            where = f"{each['finding']} by {each['attribute']}" + (f" at {each['rule']}" if each["rule"] else "")
            yield _judged(rule, each["gaps"]["largest"]["estimate"], where)


def _counts(report: Mapping[str, Any], rule: Rule) -> Iterator[Result]:
    rows = report["run"]["rows"]
    if rule.metric == "missing":
        for step in report["flow"]["missing"]:
            if rule.attribute in (None, step["what"]):
                share = None if step["rows"] is None or not rows else step["rows"] / rows
                yield _exact(rule, share, f"{step['what']} missing")
    elif rule.metric == "patients":
        yield _exact(rule, report["run"]["patients"], "patients")
    elif rule.metric == "overlap":
        overlaps = report["system"]["overlaps"]
        yield _exact(rule, sum(each["patients"] for each in overlaps) if overlaps else None, "shared patients")
    else:
        for each in report["points"]:
            yield _exact(rule, float(each["prespecified"]), f"{each['finding']} at {each['rule']}, pre-specified")


def _judged(rule: Rule, estimate: Mapping[str, Any] | None, where: str) -> Result:
    if estimate is None or estimate["value"] is None:
        reason = estimate["reason"] if estimate else "not in the report"
        return Result(rule.name, INCONCLUSIVE, f"{where}: {reason}")
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if rule.judge == "value":
        return _exact(rule, value, where)
    if low is None or high is None:
        return Result(rule.name, INCONCLUSIVE, f"{where}: {value:.4g} without an interval")
    verdicts = {_meets(rule, end) for end in (low, high)}
    beyond = (rule.at_least is not None and high < rule.at_least) or (rule.at_most is not None and low > rule.at_most)
    verdict = PASS if verdicts == {True} else FAIL if beyond else INCONCLUSIVE
    return Result(rule.name, verdict, f"{where}: {value:.4g} ({low:.4g} to {high:.4g}), {_limit(rule)}")


def _exact(rule: Rule, value: float | None, where: str) -> Result:
    if value is None:
        return Result(rule.name, INCONCLUSIVE, f"{where}: not known")
    return Result(rule.name, PASS if _meets(rule, value) else FAIL, f"{where}: {value:.4g}, {_limit(rule)}")


def _meets(rule: Rule, value: float) -> bool:
    above = rule.at_least is None or value >= rule.at_least
    return above and (rule.at_most is None or value <= rule.at_most)


def _limit(rule: Rule) -> str:
    limits = [("at least", rule.at_least), ("at most", rule.at_most)]
    return "wanted " + " and ".join(f"{name} {limit:g}" for name, limit in limits if limit is not None)
