"""Real servers for tests, and small real files to send them."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import dicom_file
from PIL import Image as PillowImage

from nearcase.demo.server import RunningServer, running_server
from nearcase.serve.app import App, start
from nearcase.settings import Settings


@contextmanager
def serving(data: Path, *options: str) -> Iterator[RunningServer]:
    """A server in a process of its own, as a user runs it."""
    with running_server(data, *options) as server:
        yield server


@asynccontextmanager
async def serving_here(data: Path, **changed: object) -> AsyncIterator[App]:
    """A server in this process, whose parts a test can look at."""
    given = {"data": data, "listen": "127.0.0.1:0", "decode_workers": 2, "drain_s": 5.0}
    app = await start(Settings(**(given | changed)))  # type: ignore[arg-type]  # a test names real settings
    try:
        yield app
    finally:
        await app.stop()


def picture(seed: int, side: int = 64) -> bytes:
    """A PNG that differs for each seed: smooth blobs, as images have, not noise."""
    rng = np.random.default_rng(seed)
    coarse = PillowImage.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    out = io.BytesIO()
    coarse.resize((side, side), PillowImage.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def scan(seed: int, patient: str = "", **attributes: Any) -> bytes:
    """A DICOM file that differs for each seed; each patient has one study and one series."""
    rng = np.random.default_rng(seed)
    coarse = PillowImage.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((64, 64), PillowImage.Resampling.BICUBIC), dtype=np.uint16)
    person = patient or f"P{seed}"
    number = sum(ord(letter) * 7**place for place, letter in enumerate(person))
    given: dict[str, Any] = {
        "PatientID": person,
        "StudyInstanceUID": f"1.2.3.{number}",
        "SeriesInstanceUID": f"1.2.3.{number}.1",
        "SOPInstanceUID": f"1.2.3.{number}.1.{seed + 1}",
        "Modality": "CT",
    }
    return dicom_file(pixels, **(given | attributes))
