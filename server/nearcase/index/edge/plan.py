"""Which shards are sealed, merged and rewritten when: pure rules over what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nearcase.index.edge.roster import ACTIVE, FROZEN, PLAIN, SEALED


@dataclass(frozen=True, slots=True)
class Sizes:
    """In points, where not stated otherwise."""

    exact_below: int = 50_000  # a library smaller than this has no graph; scoring it all takes 7 ms of CPU
    seal_at: int = 10_000  # an active shard this big is sealed; scoring it takes 1.5 ms of CPU
    shard_most: int = 250_000  # no bigger shard is made: building one takes minutes and as much disk again
    exact_candidates: int = 20_000  # up to this many that pass a filter, every one is scored: 5 ms of CPU
    rest_s: float = 20.0  # seconds without a write after which small shards are merged


@dataclass(frozen=True, slots=True)
class ShardState:
    """One shard that can be read."""

    name: str
    kind: str
    point_count: int
    is_owed: bool = False  # an erasure waits for it to be rewritten


@dataclass(frozen=True, slots=True)
class Job:
    """Shards to rewrite into one, and as what."""

    sources: tuple[str, ...]
    kind: str


_REST_SHARE = 0.05
"""Merge at rest when this share of the points lies outside the biggest small shard: a point is then rewritten about
twenty times while a library doubles, and a search visits few shards."""

_GRAPH_LEAST_BYTES = 4096
"""The engine makes no graph over fewer bytes of vectors than 1 KiB."""


def wants_freeze(states: Sequence[ShardState], sizes: Sizes, *, is_resting: bool) -> bool:
    """Returns whether the active shard has to make room for a new one."""
    active, total = states[-1], _points(states)
    if active.is_owed:
        return True
    enough = max(sizes.seal_at // 5, int(_REST_SHARE * total)) if is_resting else sizes.seal_at
    return total >= sizes.exact_below and active.point_count >= max(1, enough)


def next_job(states: Sequence[ShardState], sizes: Sizes, dimension: int, *, is_resting: bool) -> Job | None:
    """Returns what to rewrite next; None while everything is as it should be."""
    still = sorted((s for s in states if s.kind != ACTIVE), key=lambda state: state.point_count)
    owed = [state for state in still if state.is_owed]
    is_large = _points(states) >= sizes.exact_below
    group: list[ShardState] = []
    if owed:
        group = _grown(owed[0], [s for s in still if s.is_owed or s.point_count <= 2 * sizes.seal_at], sizes.shard_most)
    elif is_large and is_resting:
        group = _loose(still, sizes)
    if not group and is_large:
        unsealed = [s for s in still if s.kind == FROZEN or (s.kind == PLAIN and _bears_graph([s], sizes, dimension))]
        group = _grown(unsealed[0], still, sizes.shard_most) if unsealed else []
    if not group:
        return None
    is_sealed = is_large and _bears_graph(group, sizes, dimension)
    return Job(tuple(state.name for state in group), SEALED if is_sealed else PLAIN)


def _grown(first: ShardState, still: Sequence[ShardState], most: int) -> list[ShardState]:
    """Takes in what is no bigger than what it has: as in a binary counter, a point is moved log2(N) times."""
    group = [first]
    for state in still:
        size = _points(group)
        if state is not first and (state.point_count <= size or state.is_owed) and size + state.point_count <= most:
            group.append(state)
    return group


def _loose(still: Sequence[ShardState], sizes: Sizes) -> list[ShardState]:
    """The shards that are not nearly full, when it pays to make them one."""
    group: list[ShardState] = []
    for state in still:
        if state.point_count <= sizes.shard_most // 2 and _points(group) + state.point_count <= sizes.shard_most:
            group.append(state)
    is_worth_it = len(group) > 1 and _points(group[:-1]) >= _REST_SHARE * _points(group)
    return group if is_worth_it else []


def _bears_graph(group: Sequence[ShardState], sizes: Sizes, dimension: int) -> bool:
    points = _points(group)
    return points >= sizes.seal_at // 10 and points * dimension * 4 >= _GRAPH_LEAST_BYTES


def _points(states: Sequence[ShardState]) -> int:
    return sum(state.point_count for state in states)
