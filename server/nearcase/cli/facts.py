"""Options that say of files what they do not state themselves, for every command that asks about files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from nearcase.types import CaseFacts

F = TypeVar("F", bound=Callable[..., Any])

_KEPT = "nearcase.facts."
OPTIONS = {
    "patient_id": "--patient",
    "patient_id_issuer": "--issuer",
    "age_years": "--age",
    "sex": "--sex",
    "modality": "--modality",
    "body_part": "--body-part",
}
"""Facts by the option that gives them."""


def _fact(name: str, **attributes: Any) -> Callable[[F], F]:
    def keep(context: click.Context, _: click.Parameter, value: object) -> None:
        context.meta[_KEPT + name] = value

    return click.option(OPTIONS[name], expose_value=False, callback=keep, default=None, **attributes)


_given = (
    _fact("patient_id", metavar="ID", help="Whose image it is, where the file does not say: their cases are left out."),
    _fact("patient_id_issuer", metavar="NAME", help="Who issued that patient id."),
    _fact("age_years", type=click.FloatRange(0, 120), help="Age in years, where the file does not say it."),
    _fact("sex", type=click.Choice(["M", "F", "O"], case_sensitive=False), help="Sex, likewise."),
    _fact("modality", metavar="CODE", help="Modality, likewise: CT, MR, DX ..."),
    _fact("body_part", metavar="TERM", help="Body part examined, likewise."),
)


def facts_options(command: F) -> F:
    """Adds what may be said of files; `facts_given` takes it from there. A file that states otherwise is refused."""
    for option in reversed(_given):
        command = option(command)
    return command


def facts_given() -> CaseFacts:
    """Returns what the options of the command that runs say."""
    meta = click.get_current_context().meta
    stated = {name: value for name in OPTIONS if (value := meta.get(_KEPT + name)) is not None}
    return CaseFacts(**stated)
