"""Files prepared in a child: what its bytes are called, and what is made of it only where somebody asks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serving import picture, scan

from nearcase.encode.card import read_card
from nearcase.intake.sandbox import Sandbox
from nearcase.prepare import Preparer, prepare_job


@pytest.fixture(scope="module")
def preparer(encoder_folder: Path) -> Iterator[Preparer]:
    made = Preparer(Sandbox(prepare_job, workers=1), read_card(encoder_folder).recipe, workers=1)
    yield made
    made.close()


@pytest.mark.parametrize("data", [scan(1), picture(1), picture(1, 1500)], ids=["DICOM", "PNG", "large PNG"])
async def test_the_hash_is_that_of_the_bytes_and_a_picture_is_made_where_asked(preparer: Preparer, data: bytes) -> None:
    plain = await preparer.prepare(data, with_thumbnail=False)
    shown = await preparer.prepare(data)
    assert plain.content_sha256 == shown.content_sha256 == hashlib.sha256(data).hexdigest()
    assert (plain.image.thumbnail_jpeg, shown.image.thumbnail_jpeg[:2]) == (b"", b"\xff\xd8")
    np.testing.assert_array_equal(plain.pixels, shown.pixels)
