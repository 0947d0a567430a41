"""The groups that are compared: sex, age, any column and crossings, over the test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from nearcase.errors import InvalidInput
from nearcase_eval.ages import ages_of
from nearcase_eval.audit.frame import Frame
from nearcase_eval.audit.plan import Plan
from nearcase_eval.audit.roles import Roles
from nearcase_eval.audit.source import Codes
from nearcase_eval.groups import Grouping, by_age, by_column, by_sex, crossed
from nearcase_eval.sample import Bools, Floats

MOST_GROUPS = 40
"""A column with more values is no attribute but an identifier or a measurement."""

NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class Attribute:
    """A grouping of the test rows; for a crossing, how many groups each side has."""

    grouping: Grouping
    sides: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The attribute's name."""
        return self.grouping.attribute

    @property
    def exploratory(self) -> bool:
        """Whether it is a crossing."""
        return self.sides is not None

    def among(self, rows: Bools) -> Grouping:
        """Returns the grouping of the chosen test rows."""
        return replace(self.grouping, codes=self.grouping.codes[rows])


def attributes_of(frame: Frame, roles: Roles, plan: Plan) -> tuple[Attribute, ...]:
    """Returns the attributes in the plan's order, then the crossings.

    Sex or age without a column is left out, unless the auditor asked for it.

    Raises:
        InvalidInput: An attribute has no column, or has more than 40 values.
    """
    wanted = [*plan.attributes, *(name for pair in plan.crossings for name in pair)]
    single = {name: _grouping(name, frame, roles, plan) for name in dict.fromkeys(wanted)}
    found = [Attribute(grouping) for name in plan.attributes if (grouping := single[name]) is not None]
    for first, second in plan.crossings:
        a, b = single[first], single[second]
        if a is None or b is None:
            missing = first if a is None else second
            raise InvalidInput(f"--cross: there is no column for {missing}", field="cross")
        found.append(Attribute(crossed(a, b), (len(a.names), len(b.names))))
    return tuple(found)


def columns_alone(names: Sequence[str], frame: Frame, roles: Roles) -> Mapping[str, ArrayLike]:
    """Returns the columns that may predict the finding without the image, over the test rows.

    Ages and columns of numbers are numbers; others are categories.
    """
    found: dict[str, ArrayLike] = {}
    for name in names:
        column = frame.columns[_column(name, frame, roles) or _absent(name)].rows(np.flatnonzero(frame.test))
        cells = column.cells()
        if name == "age":
            found[name] = ages_of(cells).years
        elif name == "sex":
            found[name] = _words(by_sex(cells))
        else:
            found[name] = _numbers(column.values, column.codes) if _all_numbers(column.values) else cells
    return found


def stated(grouping: Grouping) -> Grouping:
    """Returns the same groups and one more, of the rows that state none."""
    codes = np.where(grouping.codes < 0, len(grouping.names), grouping.codes)
    return replace(grouping, names=(*grouping.names, NOT_STATED), codes=codes)


def _grouping(name: str, frame: Frame, roles: Roles, plan: Plan) -> Grouping | None:
    column = _column(name, frame, roles)
    if column is None and (plan.attributes_stated or name not in ("sex", "age")):
        raise InvalidInput(f"--by: there is no column for {name!r}", field="by")
    if column is None:
        return None
    if column in (roles.patient, roles.image):
        raise InvalidInput(f"--by: {name!r} names persons or images, which no report may show", field="by")
    cells = frame.columns[column].rows(np.flatnonzero(frame.test)).cells()
    if name == "sex":
        return by_sex(cells)
    if name == "age":
        return by_age(ages_of(cells), plan.age_edges)
    found = by_column(name, cells)
    if len(found.names) > MOST_GROUPS:
        raise InvalidInput(
            f"--by: the column {name!r} has {len(found.names)} values, at most {MOST_GROUPS} groups can be compared",
            field="by",
        )
    return found


def _column(name: str, frame: Frame, roles: Roles) -> str | None:
    guessed = {"sex": roles.sex, "age": roles.age}.get(name, name)
    return guessed if guessed in frame.columns else None


def _absent(name: str) -> str:
    raise InvalidInput(f"--confounders: there is no column for {name}", field="confounders")


def _words(grouping: Grouping) -> list[str]:
    names = (*grouping.names, "")
    return [names[code] for code in grouping.codes.tolist()]


def _all_numbers(values: Sequence[str]) -> bool:
    try:
        return bool([float(value) for value in values if value])
    except ValueError:
        return False


def _numbers(values: Sequence[str], codes: Codes) -> Floats:
    known = np.array([float(value) if value else np.nan for value in values])
    found: Floats = known[codes]
    return found
