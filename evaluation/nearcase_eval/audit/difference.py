"""Two reports side by side: what moved, and whether a verdict got worse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Change = dict[str, Any]
ORDER = {"pass": 0, "not judged": 1, "inconclusive": 1, "fail": 2}
"""How bad a verdict is."""


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Change]:
    """Returns the changes of AUROC, of operating points and of verdicts, in the order of the second report.

    The two reports need not be of the same patients, so differences have no interval here: for that, audit both scores
    in one table with --compare.
    """
    found = [*_aurocs(first, second), *_points(first, second), *_gaps(first, second)]
    found.append(_verdict(first, second))
    return found


def is_worse(change: Change) -> bool:
    """Returns whether a verdict got worse."""
    if change["kind"] not in ("verdict", "gap") or None in (change["before"], change["after"]):
        return False
    return ORDER[change["after_verdict"]] > ORDER[change["before_verdict"]]


def _verdict(first: Mapping[str, Any], second: Mapping[str, Any]) -> Change:
    before, after = first["summary"]["verdict"], second["summary"]["verdict"]
    return {
        "kind": "verdict",
        "what": "verdict",
        "before": before,
        "after": after,
        "before_verdict": before,
        "after_verdict": after,
        "sentence": f"verdict: {before} before, {after} after",
    }


def _aurocs(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Change]:
    before = {each["finding"]: each["auroc"] for each in first["overall"]}
    after = {each["finding"]: each["auroc"] for each in second["overall"]}
    for name in {**after, **before}:
        yield _number("auroc", f"AUROC of {name}", before.get(name), after.get(name))


def _points(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Change]:
    before, after = ({(each["finding"], each["rule"]): each for each in report["points"]} for report in (first, second))
    for key in {**after, **before}:
        for metric in ("sensitivity", "specificity"):
            old, new = (side[key][metric] if key in side else None for side in (before, after))
            yield _number(metric, f"{metric} of {key[0]} at {key[1]}", old, new)


def _gaps(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Change]:
    def by_key(report: Mapping[str, Any]) -> dict[tuple[str, str, str, str | None], Any]:
        return {
            (each["finding"], each["attribute"], each["metric"], each["rule"]): each["gaps"]["largest"]
            for each in report["gaps"]
            if not each["exploratory"]
        }

    before, after = by_key(first), by_key(second)
    for key in {**after, **before}:
        old, new = before.get(key), after.get(key)
        what = f"gap in {key[2]} of {key[0]} by {key[1]}" + (f" at {key[3]}" if key[3] else "")
        change = _number("gap", what, old and old["estimate"], new and new["estimate"])
        change |= {"before_verdict": old and old["verdict"], "after_verdict": new and new["verdict"]}
        change["sentence"] += (
            f"; {change['before_verdict'] or 'absent'} before, {change['after_verdict'] or 'absent'} after"
        )
        yield change


def _number(kind: str, what: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Change:
    old, new = (None if each is None else each["value"] for each in (before, after))
    moved = f" ({new - old:+.4f})" if old is not None and new is not None else ""
    sentence = f"{what}: {_words(before)} before, {_words(after)} after{moved}"
    return {"kind": kind, "what": what, "before": old, "after": new, "sentence": sentence}


def _words(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "absent"
    if estimate["value"] is None:
        return str(estimate["state"])
    limits = "" if estimate["low"] is None else f" ({estimate['low']:.4f} to {estimate['high']:.4f})"
    return f"{estimate['value']:.4f}{limits}"
