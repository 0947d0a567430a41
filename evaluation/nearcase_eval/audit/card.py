"""What the developer says of the model and its use; blanks stay blank, and the report shows them as not provided."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nearcase.errors import InvalidInput, Unready


@dataclass(frozen=True, slots=True)
class Model:
    """The system whose scores these are."""

    name: str | None = None
    version: str | None = None
    weights_sha256: str | None = None
    index_version: str | None = None
    index_size: int | None = None
    k: int | None = None
    distance: str | None = None
    score: str | None = None  # definition: vote share, weighted vote, probability ...
    score_is_vote_share: bool | None = None  # then 0 and 1 are clipped to 1/(2k) before a logit


@dataclass(frozen=True, slots=True)
class Use:
    """What the model is for, in the developer's words."""

    intended_use: str | None = None
    users: str | None = None
    population: str | None = None
    out_of_scope: str | None = None
    decision_role: str | None = None
    reference_standard: str | None = None
    data_origin: str | None = None
    target_prevalence: float | None = None
    cost_ratio: str | None = None
    acceptance: str | None = None
    monitoring: str | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """Both, and the demographic mix of the population that the model is meant for."""

    model: Model = field(default_factory=Model)
    use: Use = field(default_factory=Use)
    population: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # attribute to group to share


T = TypeVar("T", Model, Use)


def read_card(path: Path) -> Card:
    """Returns the card in a .toml or .yaml file with the tables model, use and population.

    Raises:
        InvalidInput: It can not be read, or has a key that is not known or of another type.
        Unready: YAML, and PyYAML is not installed.
    """
    table = _table(path)
    if unknown := sorted(set(table) - {"model", "use", "population"}):
        raise InvalidInput(f"{path.name}: unknown table {unknown[0]!r}; known: model, use, population")
    return Card(
        _filled(Model, table.get("model", {}), path),
        _filled(Use, table.get("use", {}), path),
        _population(table.get("population", {}), path),
    )


def _table(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text("utf-8")
        found = _yaml(text, path) if path.suffix in (".yaml", ".yml") else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path.name}: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{path.name}: expected tables, got {type(found).__name__}")
    return found


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise Unready("reading YAML needs PyYAML: pip install pyyaml, or write the card as TOML") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path.name} is no YAML: {str(error).splitlines()[0]}") from error


def _filled(kind: type[T], values: object, path: Path) -> T:
    if not isinstance(values, dict):
        raise InvalidInput(f"{path.name}: expected a table for {kind.__name__.lower()}")
    types = {each.name: str(each.type).removesuffix(" | None") for each in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - set(types)):
        raise InvalidInput(f"{path.name}: unknown key {unknown[0]!r}; known: {', '.join(types)}")
    for name, value in values.items():
        if type(value).__name__ != types[name] and not (types[name] == "float" and isinstance(value, int)):
            raise InvalidInput(f"{path.name}: expected {name} as {types[name]}, got {type(value).__name__}")
    return kind(**values)


def _population(values: object, path: Path) -> dict[str, dict[str, float]]:
    wrong = InvalidInput(f"{path.name}: expected population.ATTRIBUTE tables of group = share, adding up to at most 1")
    if not isinstance(values, dict):
        raise wrong
    found = {}
    for attribute, shares in values.items():
        if not isinstance(shares, dict) or not all(isinstance(each, int | float) for each in shares.values()):
            raise wrong
        found[str(attribute)] = {str(group): float(share) for group, share in shares.items()}
        if min(found[str(attribute)].values(), default=0.0) < 0.0 or sum(found[str(attribute)].values()) > 1.0 + 1e-9:
            raise wrong
    return found
