"""Which shards are sealed, merged and rewritten, and when: the plan alone, without an engine."""

from __future__ import annotations

from nearcase.index.edge.plan import Job, ShardState, Sizes, next_job, wants_freeze

NEVER = Sizes()


def state(*counts: tuple[str, int]) -> list[ShardState]:
    return [ShardState(f"{n}", kind, count) for n, (kind, count) in enumerate(counts)]


def test_a_small_library_is_never_given_a_graph() -> None:
    states = state(("plain", 20_000), ("active", 29_000))
    assert not wants_freeze(states, NEVER, is_resting=True)
    assert next_job(states, NEVER, 1024, is_resting=True) is None


def test_a_loading_library_merges_like_a_binary_counter_and_comes_to_rest_in_one_shard() -> None:
    shards = state(("active", 0))
    moved = 0
    for number in range(100, 400):
        shards[-1] = ShardState(shards[-1].name, "active", shards[-1].point_count + 1000)
        moved += _worked_off(shards, number, is_resting=False)
    assert len(shards) <= 8
    assert moved <= 300_000 * 6
    _worked_off(shards, 1000, is_resting=True)
    assert [s.kind for s in shards].count("active") == 1
    assert len(shards) <= 4
    assert sum(s.point_count for s in shards) == 300_000
    assert next_job(shards, NEVER, 1024, is_resting=True) is None


def _worked_off(shards: list[ShardState], number: int, *, is_resting: bool) -> int:
    """Does what the keeper would do, and returns how many points it moved."""
    moved = 0
    for turn in range(100):
        if wants_freeze(shards, NEVER, is_resting=is_resting):
            shards[-1] = ShardState(shards[-1].name, "frozen", shards[-1].point_count)
            shards.append(ShardState(f"{number}-{turn}", "active", 0))
        job = next_job(shards, NEVER, 1024, is_resting=is_resting)
        if job is None:
            return moved
        size = sum(s.point_count for s in shards if s.name in job.sources)
        assert size <= max(NEVER.shard_most, 50_000)
        moved += size
        shards[:] = [ShardState(f"{number}+{turn}", job.kind, size), *(s for s in shards if s.name not in job.sources)]
    raise AssertionError("the plan never comes to rest")


def test_an_erasure_comes_first_and_takes_the_owed() -> None:
    states = [
        ShardState("a", "sealed", 90_000),
        ShardState("b", "sealed", 80_000, is_owed=True),
        ShardState("c", "frozen", 12_000),
        ShardState("d", "active", 3, is_owed=True),
    ]
    assert wants_freeze(states, NEVER, is_resting=False)
    job = next_job(states, NEVER, 1024, is_resting=False)
    assert job == Job(("b", "c"), "sealed")
