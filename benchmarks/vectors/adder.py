"""Adds made pictures to a server at a steady rate until it is ended: `python -m vectors.adder ADDRESS PER_SECOND`."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator

import numpy as np
from PIL import Image

from nearcase.client import AddItem, Client
from nearcase.types import CaseFacts

SIDE_PX = 256


def picture(number: int) -> bytes:
    """A PNG that differs for each number."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    out = io.BytesIO()
    coarse.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def items(per_s: float) -> Iterator[AddItem]:
    """Never ends."""
    start_s, number = time.monotonic(), 0
    while True:
        time.sleep(max(0.0, start_s + number / per_s - time.monotonic()))
        yield AddItem(str(number), picture(number), facts=CaseFacts(patient_id=f"A{number}", modality="OT"))
        number += 1


def main() -> None:
    """Prints the number of cases so far, a line for each."""
    with Client(sys.argv[1], timeout_s=3600) as client:
        for count, result in enumerate(client.add(items(float(sys.argv[2]))), 1):
            if result.error:
                raise SystemExit(str(result.error))
            print(count, flush=True)


if __name__ == "__main__":
    main()
