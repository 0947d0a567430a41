"""A library belongs to the encoder that wrote it, and a folder to the library that is in it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from strategies import point_id

from nearcase.errors import Unready
from nearcase.index.base import Point
from nearcase.index.manifest import FORMAT_VERSION, NAME, claim
from nearcase.index.opening import open_index


def refusal(folder: Path, *, dimension: int = 8, encoder: str = "tiny 1 abc") -> str:
    with pytest.raises(Unready) as refused:
        claim(folder, dimension=dimension, encoder_identity=encoder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "deep" / "library"
    claim(folder, dimension=8, encoder_identity="tiny 1 abc")
    return folder


def test_an_absent_folder_is_made_for_us_alone(library: Path) -> None:
    assert library.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in library.iterdir()] == [NAME]
    stated = json.loads((library / NAME).read_text(encoding="utf-8"))
    assert stated["format_version"] == FORMAT_VERSION
    assert (stated["encoder_identity"], stated["dimension"]) == ("tiny 1 abc", 8)


def test_the_same_encoder_may_come_back(library: Path) -> None:
    before = (library / NAME).read_bytes()
    again = claim(library, dimension=8, encoder_identity="tiny 1 abc")
    assert (again.encoder_identity, again.dimension) == ("tiny 1 abc", 8)
    assert (library / NAME).read_bytes() == before


def test_another_encoder_is_refused_with_both_names(library: Path) -> None:
    message = refusal(library, encoder="large 2 def", dimension=16)
    assert all(part in message for part in ("tiny 1 abc", "large 2 def", "8", "16", "--data"))


def test_another_dimension_is_refused(library: Path) -> None:
    assert "can not be compared" in refusal(library, dimension=9)


def test_a_format_of_the_future_is_refused(library: Path) -> None:
    (library / NAME).write_text('{"format_version": 7, "shape": "unknown"}', encoding="utf-8")
    assert "format 7" in refusal(library)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 1}', '{"format_version": []}', "\udcff"])
def test_a_damaged_manifest_is_refused(library: Path, text: str) -> None:
    (library / NAME).write_text(text, encoding="utf-8", errors="surrogateescape")
    assert "damaged" in refusal(library)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").touch()
    assert "Expected an empty folder" in refusal(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.doc"]


def test_points_without_a_manifest_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    assert "Expected an empty folder" in refusal(tmp_path)


def test_a_crash_while_it_is_written_leaves_an_empty_library(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.abcd1234").write_text("{", encoding="utf-8")
    claim(tmp_path, dimension=8, encoder_identity="tiny 1 abc")


def test_a_file_in_the_way_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "can not be used" in refusal(tmp_path / "file")
    assert "can not be used" in refusal(tmp_path / "file" / "below")
    assert "can not be used" in refusal(Path("/proc/nearcase"))


def test_of_many_encoders_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    winners: list[str] = []

    def try_it(encoder: str) -> None:
        start.wait()
        try:
            claim(folder, dimension=8, encoder_identity=encoder)
        except Unready:
            return
        winners.append(encoder)

    for attempt in range(20):
        folder = tmp_path / str(attempt)
        winners.clear()
        threads = [threading.Thread(target=try_it, args=(f"encoder {n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        assert [entry.name for entry in folder.iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("written", "opened", "message"),
    [
        ("", "key one", "is not de-identified, and this server has deidentify on"),
        ("key one", "", "is de-identified, and this server has deidentify off"),
        ("key one", "key two", "another pseudonym key"),
    ],
)
def test_another_privacy_is_refused(tmp_path: Path, written: str, opened: str, message: str) -> None:
    claim(tmp_path / "library", dimension=8, encoder_identity="tiny", pseudonym_check=written)
    with pytest.raises(Unready, match=message) as refused:
        claim(tmp_path / "library", dimension=8, encoder_identity="tiny", pseudonym_check=opened)
    assert refused.value.reason == "DEIDENTIFICATION_MISMATCH"
    claim(tmp_path / "library", dimension=8, encoder_identity="tiny", pseudonym_check=written)


def test_a_manifest_that_does_not_speak_of_privacy_is_of_a_library_as_stated(library: Path) -> None:
    stated = json.loads((library / NAME).read_text(encoding="utf-8"))
    del stated["pseudonym_check"]
    (library / NAME).write_text(json.dumps(stated), encoding="utf-8")
    assert claim(library, dimension=8, encoder_identity="tiny 1 abc").pseudonym_check == ""


async def test_a_refused_encoder_leaves_the_library_as_it_was(tmp_path: Path) -> None:
    index = await open_index(tmp_path, dimension=2, encoder_identity="one")
    await index.upsert([Point(point_id(1), np.array([1, 0], dtype=np.float32), {})])
    with pytest.raises(Unready, match="encoder one"):
        await open_index(tmp_path, dimension=2, encoder_identity="other")
    await index.close()
    index = await open_index(tmp_path, dimension=2, encoder_identity="one")
    assert await index.count() == 1
    await index.close()
