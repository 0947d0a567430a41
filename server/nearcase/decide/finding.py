"""What can be decided: a finding, its scope, how its score is made, and when to abstain."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from nearcase.decide.scope_filter import may_hold
from nearcase.index.filter_words import quoted
from nearcase.types import CaseFacts

SCORERS = ("neighbours", "probe", "prompt", "blend")

K = 10
"""Neighbours of the published routine's code; the K of its tables was not published."""

TEMPERATURE = 100.0
"""Scale of the cosine in the published routine: 0.01 of cosine is a factor of e."""


@dataclass(frozen=True, slots=True)
class Code:
    """A code for a finding in a terminology (PS3.3 section 8)."""

    scheme: str  # coding scheme designator: SCT, RADLEX ...
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Which images the finding is decided for, and which cases may be its evidence; empty is no condition."""

    filter: str = ""  # in the filter language
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    at_least_years: float | None = None
    below_years: float | None = None

    @property
    def text(self) -> str:
        """The whole scope in the filter language; "" is every case."""
        parts = [f"({self.filter})"] if self.filter else []
        for field, values in (("modality", self.modalities), ("body_part", self.body_parts)):
            parts += [f"{field} in ({', '.join(map(quoted, values))})"] if values else []
        parts += [f"age_years >= {self.at_least_years!r}"] if self.at_least_years is not None else []
        parts += [f"age_years < {self.below_years!r}"] if self.below_years is not None else []
        return " and ".join(parts)

    def takes(self, facts: CaseFacts) -> bool:
        """Returns whether an image may be asked about: what its file states must fit, what it leaves open may.

        Of the filter too, as far as it asks what is known of an image: see `scope_filter`.
        """
        return (
            _fits(facts.modality, self.modalities)
            and _fits(facts.body_part, self.body_parts)
            and (facts.age_years is None or self._has_age(facts.age_years))
            and (not self.filter or may_hold(self.filter, facts))
        )

    def _has_age(self, years: float) -> bool:
        least, below = self.at_least_years, self.below_years
        return (least is None or years >= least) and (below is None or years < below)


def _fits(stated: str, allowed: Sequence[str]) -> bool:
    return not stated or not allowed or stated in allowed


@dataclass(frozen=True, slots=True)
class Prompt:
    """The words for one value of the label; each goes into each template."""

    value: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scorer:
    """How the score is made; part of what an operating point was fitted for."""

    kind: str = "neighbours"  # one of SCORERS
    k: int = K
    temperature: float = TEMPERATURE
    is_weighted: bool = True  # False: one vote for each neighbour
    class_weights: tuple[tuple[str, float], ...] = ()  # of label values; 1 where not given
    blend: tuple[tuple[str, float], ...] = ()  # weights of the scorers that are mixed
    templates: tuple[str, ...] = ()  # with {} where a prompt's name goes
    prompts: tuple[Prompt, ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, float], ...]:
        """The scorers that take part, with weights that add up to 1."""
        total = sum(weight for _, weight in self.blend)
        return tuple((kind, weight / total) for kind, weight in self.blend) if self.blend else ((self.kind, 1.0),)

    def texts(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Returns for each value the sentences that the text tower embeds."""
        return tuple(
            (prompt.value, tuple(template.replace("{}", name) for name in prompt.names for template in self.templates))
            for prompt in self.prompts
        )


@dataclass(frozen=True, slots=True)
class Floors:
    """Below these no call is made."""

    evidence: int = 1  # labelled cases in scope
    agreement: float = 0.0  # share of the leading value among the neighbours
    similarity: float | None = None  # cosine of the nearest case, where it is higher than the fitted floor
    library_change: float = 0.0  # share of the fit's labelled cases that may be gone, or have come, since
    groups: tuple[str, ...] = ()  # attributes (sex, age) for which the query's group must have been validated

    @property
    def of_images(self) -> tuple[float, float | None, frozenset[str]]:
        """Those that choose between images; the others are about the library as a whole."""
        return self.agreement, self.similarity, frozenset(self.groups)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that can be decided, told by a label of the library's cases."""

    name: str
    version: str
    label: str
    display_name: str = ""
    positive_values: tuple[str, ...] = ()
    negative_values: tuple[str, ...] = ()  # empty: every value that is not positive
    is_number: bool = False  # the values are numbers and the answer is one
    unit: str = ""
    codes: tuple[Code, ...] = ()
    scope: Scope = Scope()
    scorer: Scorer = Scorer()
    floors: Floors = Floors()
    fitted: str = ""  # name of the file with calibration and operating points, beside the finding's own
    default_operating_point: str = ""

    @property
    def shown(self) -> str:
        """The name for people."""
        return self.display_name or self.name

    def counts(self, value: str) -> bool:
        """Returns whether a case with this value of the label is evidence; "uncertain" may be neither."""
        if self.is_number:
            return number_of(value) is not None
        return not self.negative_values or value in self.negative_values or value in self.positive_values

    def with_k(self, k: int) -> Finding:
        """Returns the finding as it weighs another number of neighbours, for which no point was fitted."""
        return dataclasses.replace(self, scorer=dataclasses.replace(self.scorer, k=k))


def undeclared(label: str) -> Finding:
    """Returns the finding that a label is without a definition: its votes can be shown, no value is positive."""
    return Finding(name=label, version="", label=label)


def number_of(value: str) -> float | None:
    """Returns the number that a label's value states, None for other text."""
    try:
        found = float(value)
    except ValueError:
        return None
    return found if abs(found) < 1e308 else None  # also no for NaN
