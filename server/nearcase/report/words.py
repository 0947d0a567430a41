"""How facts and figures are written for people; what is missing is said to be missing, never guessed."""

from __future__ import annotations

from nearcase.types import Call, CaseFacts, Decision, PointCall

NOT_STATED = "not stated"

_SEX = {"M": "male", "F": "female", "O": "other"}  # Patient's Sex (0010,0040), PS3.3 C.7.1.1
_LATERALITY = {"L": "left", "R": "right", "B": "both sides", "U": "unpaired"}  # (0020,0062), PS3.3 C.7.6.16.2.3
_CALL = {
    Call.POSITIVE: "Positive",
    Call.POSSIBLE: "Possible",
    Call.NEGATIVE: "Negative",
    Call.ABSTAIN: "No call",
}


def age(years: float | None) -> str:
    """Returns an age as a clinician writes it: days under one month, months under two years, then years."""
    if years is None:
        return NOT_STATED
    if years >= 2 or years == 0:  # files state ages as whole days, weeks, months or years: 0 is "000Y"
        return _counted(int(years), "year")
    months = int(years * 12 + 1e-6)
    return _counted(months, "month") if months else _counted(round(years * 365.25), "day")


def sex(code: str) -> str:
    """Returns Patient's Sex in words; a code that the standard does not define is shown as it is."""
    return _SEX.get(code, code) or NOT_STATED


def body_part(facts: CaseFacts) -> str:
    """Returns the body part with its side and view, where they are stated."""
    part = facts.body_part.capitalize() if facts.body_part.isupper() else facts.body_part
    return ", ".join(
        filter(None, (part or NOT_STATED, _LATERALITY.get(facts.laterality, facts.laterality), facts.view))
    )


def similarity(cosine: float) -> str:
    """Returns a cosine with two decimals and a true minus sign."""
    return f"{cosine:.2f}".replace("-0.00", "0.00").replace("-", "\N{MINUS SIGN}")


def call(decision: Decision | PointCall) -> str:
    """Returns what a decision says, with the reason where it says nothing."""
    said = _CALL[decision.call]
    if decision.call is not Call.ABSTAIN:
        return said
    return f"{said}: {reason(decision.abstain_reason)}"


def reason(code: str) -> str:
    """Returns an UPPER_SNAKE_CASE reason in words."""
    return code.replace("_", " ").strip().lower() or "reason " + NOT_STATED


def cases(count: int) -> str:
    """Returns a number of cases."""
    return _counted(count, "case")


def images(count: int) -> str:
    """Returns a number of images."""
    return _counted(count, "image")


def patients(count: int) -> str:
    """Returns a number of patients."""
    return _counted(count, "patient")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
