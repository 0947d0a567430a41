"""Numbers and names as people read them; the same words in the page, the Markdown and the summary."""

from __future__ import annotations

from nearcase_eval.estimate import Estimate, State
from nearcase_eval.gaps import Verdict

METRICS = {
    "auroc": "AUROC",
    "miss_rate": "missed findings (FNR, underdiagnosis)",
    "false_alarm_rate": "false alarms (FPR, overdiagnosis)",
    "equalised odds": "equalised odds",
}

SHORT = {"auroc": "AUROC", "miss_rate": "FNR", "false_alarm_rate": "FPR", "equalised odds": "odds"}

VERDICTS = {
    Verdict.PASS: "Within tolerance",
    Verdict.FAIL: "Beyond tolerance",
    Verdict.INCONCLUSIVE: "Inconclusive",
    Verdict.NOT_JUDGED: "Not judged",
}

MINUS = "−"


def number(value: float | None, digits: int = 3) -> str:
    """Returns a number for reading, with a real minus sign; JSON holds the unrounded one."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.removeprefix("-")


def percent(value: float | None, digits: int = 1) -> str:
    """Returns a share in percent."""
    return "–" if value is None else f"{number(100.0 * value, digits)} %"


def count(value: int | None) -> str:
    """Returns a count with thousands apart; None was hidden."""
    return "hidden" if value is None else f"{value:,}"


def several(value: int, word: str, plural: str = "") -> str:
    """Returns a count with its noun."""
    return f"{value:,} {word if value == 1 else plural or word + 's'}"


def p_value(value: float | None) -> str:
    """Returns a p-value."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """Returns "0.731 to 0.842", or why there is none."""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"


def value(estimate: Estimate | None, digits: int = 3) -> str:
    """Returns the value with its interval, or the state in words."""
    if estimate is None:
        return "–"
    if estimate.state is State.SUPPRESSED:
        return "hidden"
    if estimate.value is None:
        return "not estimable"
    return f"{number(estimate.value, digits)} ({interval(estimate, digits)})"


def share(estimate: Estimate | None) -> str:
    """Returns a proportion in percent with its interval and its counts."""
    if estimate is None or estimate.value is None:
        return value(estimate)
    limits = "no interval"
    if estimate.low is not None and estimate.high is not None:
        limits = f"{number(100.0 * estimate.low, 1)} to {number(100.0 * estimate.high, 1)}"
    counts = "" if estimate.k is None else f", {estimate.k:,}/{estimate.n:,}"
    return f"{percent(estimate.value)} ({limits}{counts})"
