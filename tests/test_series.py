"""Slices become one series by their positions alone, and whatever is wrong with them is said."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nifti_files import rotation

from nearcase.errors import InvalidInput
from nearcase.intake.series import Series, arrange
from nearcase.intake.slices import MAX_FRAMES, Slice, pack_slices, unpack_slices

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def slice_at(z: float, number: int = 1, **changes: Any) -> Slice:
    """An axial slice of 2 x 3 pixels; its file number tells it apart."""
    whole = Slice(
        file_number=number,
        frame_number=1,
        rows=2,
        columns=3,
        position_mm=(-10.0, -20.0, z),
        row_direction=AXIAL[0],
        column_direction=AXIAL[1],
        spacing_mm=(0.5, 0.25),
        series_uid="1.2",
        instance_uid=f"1.2.{number}",
        instance_number=number,
    )
    return dataclasses.replace(whole, **changes)


def stack(*positions: float) -> list[Slice]:
    return [slice_at(z, number) for number, z in enumerate(positions)]


def numbers(series: Series) -> list[int]:
    return [each.file_number for each in series.slices]


# Order, spacing and direction


def test_order_is_by_position_and_never_by_instance_number() -> None:
    series = arrange([slice_at(5.0, 1), slice_at(-5.0, 2), slice_at(0.0, 3)])
    assert numbers(series) == [2, 3, 1]
    assert series.spacing_mm == (5.0, 0.5, 0.25)
    assert series.origin_mm == (-10.0, -20.0, -5.0)
    assert series.findings == ()


@st.composite
def messes(draw: st.DrawFn) -> list[Slice]:
    """Slices with every irregularity at once."""
    positions = draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 3.5, 9.0]), min_size=2, max_size=12))
    changes: list[dict[str, Any]] = [
        {},
        {},
        {"series_uid": "1.3"},
        {"rows": 4},
        {"row_direction": (0.0, 1.0, 0.0), "column_direction": (0.0, 0.0, 1.0)},
        {"spacing_mm": (1.0, 1.0)},
        {"spacing_mm": None},
        {"position_mm": None},
        {"is_localiser": True},
    ]
    return [slice_at(z, number, **draw(st.sampled_from(changes))) for number, z in enumerate(positions)]


@given(messes(), st.randoms(use_true_random=False))
def test_order_in_which_slices_are_given_does_not_matter(slices: list[Slice], random: Any) -> None:
    shuffled = list(slices)
    random.shuffle(shuffled)
    assert told(slices) == told(shuffled)


def told(slices: Sequence[Slice]) -> object:
    try:
        series = arrange(slices)
    except InvalidInput as error:
        return str(error)
    return numbers(series), series.spacing_mm, series.offsets_mm, series.findings, series.direction.tolist()


@given(messes())
def test_kept_slices_are_alike_and_strictly_ordered_and_none_is_lost_unsaid(slices: list[Slice]) -> None:
    try:
        series = arrange(slices)
    except InvalidInput:
        return
    assert len({(each.series_uid, each.rows, each.row_direction, each.spacing_mm) for each in series.slices}) == 1
    assert all(after > before for before, after in zip(series.offsets_mm, series.offsets_mm[1:], strict=False))
    if len(series.slices) < len(slices):
        assert series.findings
    for each, offset in zip(series.slices, series.offsets_mm, strict=True):
        moved = np.array(series.origin_mm) + series.direction[:, 0] * offset
        assert each.position_mm is not None
        assert np.dot(moved, series.direction[:, 0]) == pytest.approx(np.dot(each.position_mm, series.direction[:, 0]))


@given(
    angles=st.tuples(*[st.floats(-3.0, 3.0)] * 3),
    step=st.floats(0.1, 20.0),
    count=st.integers(2, 30),
    start=st.tuples(*[st.floats(-500.0, 500.0)] * 3),
)
def test_any_oblique_stack_gives_back_what_made_it(
    angles: tuple[float, float, float], step: float, count: int, start: tuple[float, float, float]
) -> None:
    row, column, normal = rotation(angles).T
    slices = [
        slice_at(
            0.0,
            number,
            position_mm=tuple(np.array(start) + number * step * normal),
            row_direction=tuple(row),
            column_direction=tuple(column),
        )
        for number in range(count)
    ]
    series = arrange(slices[::-1])
    assert numbers(series) == list(range(count))
    assert series.spacing_mm[0] == pytest.approx(step, rel=1e-6)
    np.testing.assert_allclose(series.direction, np.stack([normal, column, row], axis=1), atol=1e-9)
    assert np.linalg.det(series.direction[:, [2, 1, 0]]) == pytest.approx(1.0)
    assert series.findings == ()


# What is wrong, and said

FINDINGS: dict[str, tuple[list[Slice], list[int], str]] = {
    "gap": (stack(0, 2, 4, 10, 12), [0, 1, 2, 3, 4], "gap of 6.00 mm after slice 3: 2 slices missing"),
    "one_missing": (stack(0, 2, 6, 8, 10), [0, 1, 2, 3, 4], "gap of 4.00 mm after slice 2: 1 slice missing"),
    "uneven": (stack(0, 2, 4.2, 6.2), [0, 1, 2, 3], "distances between slices vary from 2.00 to 2.20 mm"),
    "repeat": ([*stack(0, 2, 4), slice_at(2.004, 9)], [0, 1, 2], "1 image at the position of another left out"),
    "time_points": (
        [slice_at(z, number) for number, z in enumerate([0, 2, 4] * 3)],
        [0, 1, 2],
        "3 images at each position (time points, echoes or copies): the first of each by instance number taken",
    ),
    "localiser": (
        [*stack(0, 2), slice_at(9, 9, is_localiser=True, rows=99)],
        [0, 1],
        "1 localiser left out",
    ),
    "localisers": (
        [*stack(0, 2), *[slice_at(9, n, is_localiser=True) for n in (8, 9)]],
        [0, 1],
        "2 localisers left out",
    ),
    "no_place": (
        [*stack(0, 2), slice_at(9, 9, position_mm=None), slice_at(9, 8, spacing_mm=None)],
        [0, 1],
        "2 images without position, orientation or pixel spacing left out",
    ),
    "size": ([*stack(0, 2), slice_at(4, 9, rows=8)], [0, 1], "1 image of another size left out"),
    "series": ([*stack(0, 2), slice_at(4, 9, series_uid="1.9")], [0, 1], "1 image of another series left out"),
    "frame_of_reference": (
        [*stack(0, 2), slice_at(4, 9, frame_of_reference_uid="1.9")],
        [0, 1],
        "1 image of another frame of reference left out",
    ),
    "orientation": (
        [*stack(0, 2), slice_at(4, 9, row_direction=(0.0, 1.0, 0.0), column_direction=(0.0, 0.0, 1.0))],
        [0, 1],
        "1 image of another orientation left out",
    ),
    "pixel_spacing": (
        [*stack(0, 2), slice_at(4, 9, spacing_mm=(0.7, 0.7))],
        [0, 1],
        "1 image of another pixel spacing left out",
    ),
    "tilted_gantry": (
        [slice_at(0.0, n, position_mm=(0.0, 3.0 * n, 5.0 * n)) for n in range(3)],
        [0, 1, 2],
        "slices are shifted against each other by up to 6.00 mm in their plane (tilted gantry)",
    ),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_irregularity_is_said_in_its_own_words(name: str) -> None:
    slices, kept, finding = FINDINGS[name]
    series = arrange(slices)
    assert numbers(series) == kept
    assert series.findings == (finding,)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_interleaved_time_points_are_not_mixed(number: int) -> None:
    """Scanners count slices within time points, or time points within slices: the first time point comes out."""
    by_time = [slice_at(z, 10 * time + z) for time in range(number) for z in range(4)]
    by_slice = [slice_at(z, 10 * z + time) for time in range(number) for z in range(4)]
    assert numbers(arrange(by_time)) == [0, 1, 2, 3]
    assert numbers(arrange(by_slice)) == [0, 10, 20, 30]


def test_rounded_positions_are_even_and_the_mean_step_is_the_spacing() -> None:
    series = arrange(stack(*[round(0.625 * n, 2) for n in range(101)]))
    assert series.findings == ()
    assert series.spacing_mm[0] == pytest.approx(0.625, rel=1e-3)


def test_many_gaps_are_counted() -> None:
    findings = arrange(stack(*[n + 10 * (n // 2) for n in range(40)], *[400 + n for n in range(40)])).findings
    assert len([finding for finding in findings if finding.startswith("gap")]) == 5
    assert any("more gaps" in finding for finding in findings)


@pytest.mark.parametrize(
    ("slices", "words"),
    [
        ([], "got 0"),
        (stack(1), "got 1"),
        (stack(1, 1, 1), "got 1 (3 images at each position"),
        ([slice_at(0, 1, is_localiser=True)], "got 0 (1 localiser left out)"),
        ([slice_at(0, 1, is_mosaic=True), slice_at(1, 2, is_mosaic=True)], "2 mosaics of many slices in one image"),
    ],
)
def test_what_can_not_be_a_volume_is_refused_with_the_reason(slices: list[Slice], words: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        arrange(slices)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


# The way out of the child process


@given(messes())
def test_slices_survive_the_wire(slices: list[Slice]) -> None:
    for each in slices:
        words, blob = pack_slices((each,))
        assert unpack_slices(json.loads(json.dumps(words)), blob, each.file_number) == (each,)


@given(st.binary(max_size=200), st.sampled_from(["rows", "series_uid", "is_mosaic", ""]))
def test_babble_of_a_child_is_refused(blob: bytes, missing: str) -> None:
    words = pack_slices((slice_at(0.0),))[0]
    words.pop(missing, None)
    if missing or not blob or len(blob) % 88:
        with pytest.raises(InvalidInput):
            unpack_slices(words, blob, 0)
    with pytest.raises(InvalidInput):
        unpack_slices(words, bytes(88 * (MAX_FRAMES + 1)), 0)
    with pytest.raises(InvalidInput):
        unpack_slices(words | {"rows": -2, "columns": -2}, bytes(88), 0)
