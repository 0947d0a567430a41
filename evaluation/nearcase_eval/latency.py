"""How much processor time an image costs: the encoder alone, and from the file's bytes to the embedding."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from nearcase.encode.base import Encoder
from nearcase.encode.inputs import to_batch, unpack_frame
from nearcase.errors import InvalidInput, Unsupported
from nearcase.intake.burned_in import KEEP_TEXT
from nearcase.prepare import prepare_job
from nearcase_eval.files import Files

IMAGES = 30


@dataclass(frozen=True, slots=True)
class Latency:
    """Medians over images, one at a time, in milliseconds of processor time of this process (all its threads)."""

    images: int
    model_ms: float  # the normalised image to its embedding
    whole_ms: float  # the file's bytes to its embedding: decoding, thumbnail and resizing included


def latency(files: Files, names: Sequence[str], encoder: Encoder) -> Latency:
    """Returns what the first readable images cost, after one that nobody counts.

    Raises:
        InvalidInput: None of them can be read.
    """
    spent = [times for name in names[: IMAGES + 1] if (times := _times(files, name, encoder)) is not None]
    if not spent:
        raise InvalidInput("no image of the cohort could be read")
    counted = spent[1:] or spent
    model, whole = zip(*counted, strict=True)
    return Latency(len(counted), statistics.median(model), statistics.median(whole))


def _times(files: Files, name: str, encoder: Encoder) -> tuple[float, float] | None:
    """Returns (model, whole); runs what a decoding child runs, in this process."""
    recipe = encoder.card.recipe
    options = {
        "frame_number": None,
        "recipe": dataclasses.asdict(recipe),
        "text_policy": dataclasses.asdict(KEEP_TEXT),
    }
    try:
        data = files.read(name)
        start = time.process_time()
        _, (pixels, _) = prepare_job(data, options)
    except (InvalidInput, Unsupported):
        return None
    batch = to_batch(unpack_frame(pixels, recipe)[None], recipe)
    middle = time.process_time()
    encoder.embed(batch)
    end = time.process_time()
    return (end - middle) * 1e3, (end - start) * 1e3
