"""What a request says of a file besides what the file states: where both speak they must agree.

Adding keeps what the file states and passes over the rest, because a table of a thousand rows is corrected later. A
search or a decision is about one picture now, and where the caller and the file speak of two patients nobody here can
tell which of them is meant: leaving out the wrong one would show a patient's own cases as evidence.
"""

from __future__ import annotations

import dataclasses

from nearcase.errors import InvalidInput
from nearcase.types import CaseFacts

YEARS = 1.0
"""Ages are written as whole years in one place and computed from dates in another; below this they are one age."""

_WORDS = {"patient_id": "patient", "patient_id_issuer": "issuer of the patient id", "age_years": "age"}
_NAMES = tuple(field.name for field in dataclasses.fields(CaseFacts))


def check_agreement(stated: CaseFacts, given: CaseFacts) -> None:
    """Refuses facts that are not those of the file; an empty one agrees with all.

    Raises:
        InvalidInput: With reason FACTS_DIFFER: the file states otherwise. The message has the fact's name alone.
    """
    for name in _NAMES:
        ours, theirs = getattr(stated, name), getattr(given, name)
        if ours in ("", None) or theirs in ("", None):
            continue
        if abs(ours - theirs) >= YEARS if name == "age_years" else ours != theirs:
            word = _WORDS.get(name, name.replace("_", " "))
            message = f"expected the {word} that the file states, got another; is it the right file?"
            raise InvalidInput(message, reason="FACTS_DIFFER", field=f"facts.{name}")


def stated_names(facts: CaseFacts) -> tuple[str, ...]:
    """Returns the names of the facts that are not empty."""
    return tuple(name for name in _NAMES if getattr(facts, name) not in ("", None))
