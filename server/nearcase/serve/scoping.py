"""SearchOptions -> Scope: what may be found, how many, what counts as one hit, and in which order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TypeVar

from nearcase.convert import check_case_mask
from nearcase.errors import InvalidInput
from nearcase.index.filter_text import parse
from nearcase.retrieve.scope import Grouping, Pooling, Scope, SelfExclusion, SeriesMethod
from nearcase.v1 import search_pb2

MAX_HITS = 1000
MAX_WEIGHT = 1000.0
DEFAULT_METHOD = SeriesMethod.POOLED
"""Of a series or study query where none is asked for; see benchmarks/volumes.py."""

_EXCLUSIONS: dict[int, SelfExclusion] = {
    search_pb2.SELF_EXCLUSION_UNSPECIFIED: SelfExclusion.PATIENT,
    search_pb2.SELF_EXCLUSION_PATIENT: SelfExclusion.PATIENT,
    search_pb2.SELF_EXCLUSION_STUDY: SelfExclusion.STUDY,
    search_pb2.SELF_EXCLUSION_NONE: SelfExclusion.NONE,
}
_GROUPINGS: dict[int, Grouping | None] = {
    search_pb2.GROUPING_UNSPECIFIED: None,
    search_pb2.GROUPING_INSTANCE: Grouping.INSTANCE,
    search_pb2.GROUPING_SERIES: Grouping.SERIES,
    search_pb2.GROUPING_STUDY: Grouping.STUDY,
    search_pb2.GROUPING_PATIENT: Grouping.PATIENT,
}
_METHODS: dict[int, SeriesMethod | None] = {
    search_pb2.SERIES_METHOD_UNSPECIFIED: None,
    search_pb2.SERIES_METHOD_FREQUENCY: SeriesMethod.FREQUENCY,
    search_pb2.SERIES_METHOD_MAX: SeriesMethod.MAX,
    search_pb2.SERIES_METHOD_SUM: SeriesMethod.SUM,
    search_pb2.SERIES_METHOD_POOLED: SeriesMethod.POOLED,
}
_POOLINGS: dict[int, Pooling] = {
    search_pb2.POOLING_UNSPECIFIED: Pooling.MEAN,
    search_pb2.POOLING_MEAN: Pooling.MEAN,
    search_pb2.POOLING_MEDIAN: Pooling.MEDIAN,
    search_pb2.POOLING_MAX: Pooling.MAX,
}
_V = TypeVar("_V", bound=Enum | None)


def to_scope(options: search_pb2.SearchOptions, examples: Sequence[search_pb2.Example]) -> Scope:
    """Returns what may be found.

    Raises:
        InvalidInput: A value is out of range, options contradict each other or the examples, or the filter can not be
            read.
    """
    if not 0 <= options.k <= MAX_HITS:
        raise InvalidInput(f"expected k from 1 to {MAX_HITS}, got {options.k}", field="k")
    if not 0 <= options.diversity < 1:
        raise InvalidInput(f"expected diversity from 0 to below 1, got {options.diversity}", field="diversity")
    method = _method(options, examples)
    return Scope(
        k=options.k or 10,
        where=parse(options.filter) if options.filter.strip() else None,
        min_similarity=_cosine(options, "min_similarity", -1),
        self_exclusion=_named(_EXCLUSIONS, options.self_exclusion, "self_exclusion"),
        with_thumbnails="thumbnail_jpeg" in check_case_mask(options.case_mask),
        grouping=_named(_GROUPINGS, options.grouping, "grouping") or _own_grouping(examples, method),
        method=method,
        pooling=_pooling(options, method),
        diversity=options.diversity,
        near_duplicate_similarity=_cosine(options, "near_duplicate_similarity", 0),
    )


def weight_of(example: search_pb2.Example) -> float:
    """Returns how much an example counts.

    Raises:
        InvalidInput: It is 0 or no number, or larger than MAX_WEIGHT.
    """
    weight = example.weight if example.HasField("weight") else 1.0
    if not math.isfinite(weight) or not 0 < abs(weight) <= MAX_WEIGHT:
        raise InvalidInput(f"expected a weight up to {MAX_WEIGHT:g} that is not 0, got {weight}", field="weight")
    return weight


def _method(options: search_pb2.SearchOptions, examples: Sequence[search_pb2.Example]) -> SeriesMethod | None:
    """None where the examples are joined by weight."""
    asked = _named(_METHODS, options.series_method, "series_method")
    is_weighted = any(weight_of(example) != 1.0 for example in examples)
    is_series = any(example.WhichOneof("source") in ("series_uid", "study_uid") for example in examples)
    votes = asked not in (None, SeriesMethod.POOLED)
    if votes and is_weighted:
        message = "images vote alike: a combination with weights, or with something unlike, needs SERIES_METHOD_POOLED"
        raise InvalidInput(message, field="series_method")
    if votes and options.diversity and asked is not SeriesMethod.MAX:
        message = "diversity needs an order by similarity: SERIES_METHOD_POOLED or SERIES_METHOD_MAX"
        raise InvalidInput(message, field="diversity")
    if asked or not is_series:
        return asked
    return SeriesMethod.POOLED if is_weighted or options.diversity else DEFAULT_METHOD


def _pooling(options: search_pb2.SearchOptions, method: SeriesMethod | None) -> Pooling:
    pooling = _named(_POOLINGS, options.pooling, "pooling")
    if options.pooling != search_pb2.POOLING_UNSPECIFIED and method is not SeriesMethod.POOLED:
        raise InvalidInput("pooling belongs to SERIES_METHOD_POOLED, which is not asked for", field="pooling")
    return pooling


def _own_grouping(examples: Sequence[search_pb2.Example], method: SeriesMethod | None) -> Grouping:
    """What a query is, its hits are: a study finds studies, a series finds series, an image images."""
    if method is None:
        return Grouping.INSTANCE
    is_study = any(example.WhichOneof("source") == "study_uid" for example in examples)
    return Grouping.STUDY if is_study else Grouping.SERIES


def _cosine(options: search_pb2.SearchOptions, name: str, least: float) -> float | None:
    if not options.HasField(name):  # type: ignore[arg-type]  # the stub wants literals
        return None
    value = float(getattr(options, name))
    if not least <= value <= 1:
        raise InvalidInput(f"expected {name} from {least} to 1, got {value}", field=name)
    return value


def _named(names: Mapping[int, _V], number: int, field: str) -> _V:
    if number not in names:
        raise InvalidInput(f"unknown {field} {number}", field=field)
    return names[number]
