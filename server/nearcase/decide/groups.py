"""Which group of people a query belongs to, and whether the finding was validated there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nearcase.decide.fitted import Group
from nearcase.types import CaseFacts

ATTRIBUTES = ("sex", "age")


@dataclass(frozen=True, slots=True)
class QueryGroup:
    """The query's group for one attribute: a bin, never an age."""

    attribute: str
    name: str  # "not stated" or "other" where no fitted group is the query's
    is_validated: bool
    reason: str = ""  # why not


def groups_of(facts: CaseFacts, groups: Sequence[Group], required: Iterable[str]) -> tuple[QueryGroup, ...]:
    """Returns the query's group for each attribute that was validated or must have been."""
    wanted = {group.attribute for group in groups} | set(required)
    return tuple(
        _group_of(attribute, facts, [group for group in groups if group.attribute == attribute])
        for attribute in ATTRIBUTES
        if attribute in wanted
    )


def _group_of(attribute: str, facts: CaseFacts, groups: Sequence[Group]) -> QueryGroup:
    if not groups:
        return QueryGroup(attribute, "other", False, f"the finding was not validated by {attribute}")
    is_stated = bool(facts.sex) if attribute == "sex" else facts.age_years is not None
    if not is_stated:
        failed = [group for group in groups if not group.is_validated]
        reason = f"it is not stated, and {failed[0].name} was not validated" if failed else ""
        return QueryGroup(attribute, "not stated", not failed, reason)
    for group in groups:
        if _is_in(facts, group):
            return QueryGroup(attribute, group.name, group.is_validated, group.reason)
    return QueryGroup(attribute, "other", False, "no such group was in the validation")


def _is_in(facts: CaseFacts, group: Group) -> bool:
    if group.attribute == "sex":
        return facts.sex == group.name
    years, least, below = facts.age_years, group.at_least_years, group.below_years
    return years is not None and (least is None or years >= least) and (below is None or years < below)
