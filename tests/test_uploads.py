"""Files in chunks: resumed where they broke, never more than announced, never under a client's name."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcase.errors import InvalidInput, Overloaded, Unready
from nearcase.serve.uploads import HOUR_S, Uploads

DATA = bytes(range(256)) * 8
DIGEST = hashlib.sha256(DATA).hexdigest()


@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=6), backs=st.lists(st.integers(0, 300), max_size=6))
def test_any_cuts_and_step_backs_give_the_file(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], backs: list[int]
) -> None:
    uploads = Uploads(tmp_path_factory.mktemp("uploads"), max_bytes=10_000)
    for cut, back in zip([*sorted(cuts), len(DATA)], [*backs, *[0] * 8], strict=False):
        upload = uploads.open("a", DIGEST, len(DATA))  # each piece as a new stream would send it
        offset = max(0, upload.received_bytes - back)
        upload.write(offset, DATA[offset : max(cut, offset)])
        uploads.close(upload)
    upload = uploads.open("a", DIGEST, len(DATA))
    upload.write(upload.received_bytes, DATA[upload.received_bytes :])
    assert upload.is_whole
    assert upload.take() == DATA


def test_gaps_overruns_and_wrong_bytes_are_refused(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, max_bytes=10_000)
    upload = uploads.open("a", DIGEST, len(DATA))
    with pytest.raises(InvalidInput, match="byte 0"):
        upload.write(5, b"x")
    with pytest.raises(InvalidInput, match="announced"):
        upload.write(0, DATA + b"x")
    upload.write(0, bytes(len(DATA)))
    with pytest.raises(InvalidInput, match="sha256"):
        upload.take()
    assert list(tmp_path.iterdir()) == []


def test_one_stream_at_a_time_and_a_bound_on_all(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, max_bytes=3 * len(DATA))
    first = uploads.open("a", DIGEST, len(DATA))
    with pytest.raises(InvalidInput, match="another stream"):
        uploads.open("a", DIGEST, len(DATA))
    uploads.open("b", DIGEST, 2 * len(DATA))
    with pytest.raises(Overloaded):
        uploads.open("c", DIGEST, len(DATA))
    uploads.close(first)
    uploads.open("c", DIGEST, len(DATA))


def test_what_is_found_is_what_was_received(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, max_bytes=10_000)
    assert uploads.find("a", DIGEST) == (0, 0)
    upload = uploads.open("a", DIGEST, len(DATA))
    upload.write(0, DATA[:77])
    assert uploads.find("a", DIGEST) == (77, len(DATA))
    assert uploads.find("b", DIGEST) == (0, 0)
    with pytest.raises(InvalidInput):
        uploads.find("a", "../../x")


def test_parts_that_nobody_resumed_are_dropped_at_start(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, max_bytes=10_000)
    for name in ("old", "new"):
        uploads.open(name, DIGEST, len(DATA)).write(0, DATA[:9])
    old = next(tmp_path.glob("*.part"))
    os.utime(old, (0, old.stat().st_mtime - 24 * HOUR_S - 60))
    Uploads(tmp_path, max_bytes=10_000)
    assert len(list(tmp_path.glob("*.part"))) == 1


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unready):
        Uploads(tmp_path / "file" / "uploads", max_bytes=1)


def test_in_memory_nothing_is_written_and_nothing_is_found_again(tmp_path: Path) -> None:
    Uploads(tmp_path, max_bytes=10_000).open("a", DIGEST, len(DATA)).write(0, DATA[:9])
    uploads = Uploads(tmp_path, max_bytes=10_000, in_memory=True)
    assert list(tmp_path.iterdir()) == []
    upload = uploads.open("a", DIGEST, len(DATA))
    upload.write(0, DATA[:100])
    upload.write(50, DATA[50:])
    assert (upload.is_whole, upload.take(), uploads.find("a", DIGEST)) == (True, DATA, (0, 0))
    uploads.close(upload)
    assert not upload.is_whole
    assert uploads.open("a", DIGEST, len(DATA)).received_bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_in_memory_the_bound_and_the_refusals_are_the_same(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, max_bytes=2 * len(DATA), in_memory=True)
    upload = uploads.open("a", DIGEST, len(DATA))
    with pytest.raises(InvalidInput, match="byte 0"):
        upload.write(5, b"x")
    with pytest.raises(Overloaded):
        uploads.open("b", DIGEST, 2 * len(DATA))
    upload.write(0, bytes(len(DATA)))
    with pytest.raises(InvalidInput, match="sha256"):
        upload.take()
