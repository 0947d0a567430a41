"""An encoder's folder in fp32 -> another one in a lower precision, if it passes the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from nearcase.encode.card import Card
from nearcase.encode.golden import read_golden
from nearcase.encode.inputs import Frame, to_batch
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput
from nearcase_models.artefact import Identity, Made, write_artefact
from nearcase_models.gate import Measured, check, distinct, gate_text, measure
from nearcase_models.lower import emulate, lower, opset_of
from nearcase_models.quantize import quantize
from nearcase_models.real_images import embed_frames, files_below, packaged_files, read_frames
from nearcase_models.towers import carry_text

PRECISIONS = ("fp16", "bf16", "int8")
CALIBRATION_SHARE = 3
"""For int8 every third image is for the ranges, and the gate is measured on the others."""

Progress = Callable[[str, int, int], object]
Vectors = NDArray[np.float32]


def export_precision(
    encoder: Path,
    out: Path,
    precision: str,
    *,
    images: Path | None = None,
    on_progress: Progress = lambda stage, done, total: None,
) -> tuple[Card, Measured]:
    """Writes the folder, and returns its card and how close it is to fp32.

    bf16 is for GPUs: no CPU runs it, so the gate and the golden embeddings are those of the same network with every
    16-bit value rounded as it would be stored.

    Args:
        encoder: The folder of the fp32 encoder.
        out: The folder, which must not exist.
        precision: One of PRECISIONS.
        images: Real images for the gate; None takes those of installed packages.
        on_progress: Told stage, done and total.

    Raises:
        InvalidInput: It does not pass the gate, there are too few images, or the network can not be converted.
        Unready: The fp32 encoder is damaged.
    """
    if precision not in PRECISIONS:
        raise InvalidInput(f"expected one of {', '.join(PRECISIONS)}, got {precision}")
    if out.exists():
        raise InvalidInput(f"expected a new folder, got {out.name}, which is there already")
    reference = open_encoder(encoder)
    card = reference.card
    if card.precision != "fp32":
        raise InvalidInput(f"expected an encoder in fp32, got {card.name} in {card.precision}")
    files, sources = files_below(images) if images else packaged_files()
    frames = read_frames(files, card.recipe, _counter("reading images", len(files), on_progress))
    vectors = embed_frames(reference, frames, _counter("embedding in fp32", len(frames), on_progress))
    kept = distinct(vectors)
    frames, vectors = [frames[place] for place in kept], vectors[kept]
    made, held_out = _convert(onnx.load(card.onnx_path, load_external_data=False), precision, card, frames)
    runs = _runner(emulate(made) if precision == "bf16" else made)
    counted = _counter(f"embedding in {precision}", len(held_out), on_progress)
    found = np.concatenate([_counted(runs(to_batch(frames[at][None], card.recipe)), counted) for at in held_out])
    measured = measure(vectors[held_out], found)
    check(measured, precision)

    def build(folder: Path) -> Made:
        onnx.checker.check_model(made)
        (folder / "encoder.onnx").write_bytes(made.SerializeToString(deterministic=True))
        return Made(
            dimension=card.dimension,
            opset=opset_of(made),
            precision=precision,
            recipe=card.recipe,
            golden=read_golden(card).images,
            more=gate_text(measured, sources, card.sha256) + carry_text(card, folder),
            files=_notices(card),
            embed=runs if precision == "bf16" else None,
        )

    return write_artefact(out, _identity(card, precision), build), measured


def _identity(card: Card, precision: str) -> Identity:
    return Identity(
        name=f"{card.name}-{precision}",
        description=f"{card.description} In {precision}.",
        origin=card.origin,
        licence=card.licence,
        statement=card.statement,
        is_medical=card.is_medical,
        version=card.version,
    )


def _convert(
    model: onnx.ModelProto, precision: str, card: Card, frames: Sequence[Frame]
) -> tuple[onnx.ModelProto, list[int]]:
    """Returns the network, and the places of the images that it has not seen."""
    places = range(len(frames))
    if precision != "int8":
        return lower(model, precision), list(places)
    seen = [to_batch(frames[place][None], card.recipe) for place in places if place % CALIBRATION_SHARE == 0]
    return quantize(model, seen), [place for place in places if place % CALIBRATION_SHARE]


def _runner(model: onnx.ModelProto) -> Callable[[Vectors], Vectors]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its error types share no base class
        message = f"expected a network that onnxruntime loads, got: {' '.join(str(error).split())[:200]}"
        raise InvalidInput(message) from error

    def run(batch: Vectors) -> Vectors:
        found: Vectors = session.run(["embedding"], {"image": batch})[0]
        return found

    return run


def _notices(card: Card) -> dict[str, str]:
    """What must travel with the weights does so in every precision."""
    return {name: (card.folder / name).read_text("utf-8") for name in ("NOTICE",) if (card.folder / name).is_file()}


def _counter(stage: str, total: int, on_progress: Progress) -> Callable[[], None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        on_progress(stage, done, total)

    return count


def _counted(vectors: Vectors, count: Callable[[], None]) -> Vectors:
    count()
    return vectors
