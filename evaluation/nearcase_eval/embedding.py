"""Embeddings of a cohort through the server's own code, kept on disk so that a run can be resumed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearcase.encode.base import Encoder
from nearcase.encode.inputs import to_batch
from nearcase.errors import InvalidInput, NearcaseError, Unsupported
from nearcase.prepare import Prepared, Preparer, prepare_sandbox
from nearcase_eval.files import Files

BATCH = 128
"""Images between two writes: what a broken run loses."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of the images that could be read, in the order asked, and why the others could not."""

    names: tuple[str, ...]
    vectors: NDArray[np.float32]  # (N, D) unit length
    refused: dict[str, str]


def embed_cohort(
    files: Files, names: Sequence[str], encoder: Encoder, cache: Path, *, progress: Callable[[int], None], workers: int
) -> Embedded:
    """Returns the embeddings; those of an earlier run of the same encoder are taken from the cache.

    Args:
        files: Where the images lie.
        names: Which images.
        encoder: As the server runs it.
        cache: Folder of this encoder's vectors.
        progress: Called with the number of images that are done.
        workers: Decoding children.
    """
    folder = cache / hashlib.sha256(encoder.card.identity.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    vectors, refused = _cached(folder)
    missing = [name for name in names if name not in vectors and name not in refused]
    progress(len(names) - len(missing))
    recipe = encoder.card.recipe
    preparer = Preparer(prepare_sandbox(recipe, workers=workers), recipe, workers=workers)
    try:
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            made = _embed(files, batch, encoder, preparer, workers)
            _store(folder, made)
            vectors |= {name: value for name, value in made.items() if not isinstance(value, str)}
            refused |= {name: value for name, value in made.items() if isinstance(value, str)}
            progress(len(batch))
    finally:
        preparer.close()
    kept = [name for name in names if name in vectors]
    if not kept:
        raise InvalidInput("no image of the cohort could be read")
    return Embedded(
        tuple(kept), np.stack([vectors[name] for name in kept]), {n: refused[n] for n in names if n in refused}
    )


def _embed(
    files: Files, names: Sequence[str], encoder: Encoder, preparer: Preparer, workers: int
) -> dict[str, NDArray[np.float32] | str]:
    def one(name: str) -> NDArray[np.float32] | str:
        try:
            prepared: Prepared = preparer.prepare_now(files.read(name))
        except (InvalidInput, Unsupported) as error:
            return str(error)
        vector: NDArray[np.float32] = encoder.embed(to_batch(prepared.pixels[None], encoder.card.recipe))[0]
        return vector

    with ThreadPoolExecutor(workers) as threads:
        return dict(zip(names, threads.map(one, names), strict=True))


def _cached(folder: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    vectors: dict[str, NDArray[np.float32]] = {}
    refused: dict[str, str] = {}
    for file in sorted(folder.glob("*.npz")):
        try:
            with np.load(file, allow_pickle=False) as stored:
                vectors |= dict(zip(stored["names"].tolist(), stored["vectors"], strict=True))
                refused |= dict(zip(stored["refused"].tolist(), stored["reasons"].tolist(), strict=True))
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInput(f"{file.name} in the cache is damaged; delete it and run again") from error
    return vectors, refused


def _store(folder: Path, made: dict[str, NDArray[np.float32] | str]) -> None:
    """Writes one file by rename, so that a broken run leaves no half file."""
    good = {name: value for name, value in made.items() if not isinstance(value, str)}
    bad = {name: value for name, value in made.items() if isinstance(value, str)}
    part = folder / "part"
    vectors = np.stack(list(good.values())) if good else np.zeros((0, 0), np.float32)
    try:
        with part.open("wb") as stream:
            np.savez(
                stream,
                names=np.array(list(good), dtype=np.str_),
                vectors=vectors,
                refused=np.array(list(bad), dtype=np.str_),
                reasons=np.array(list(bad.values()), dtype=np.str_),
            )
        os.replace(part, folder / f"{len(list(folder.glob('*.npz'))):06}.npz")
    except OSError as error:
        raise NearcaseError(f"the embeddings can not be stored: {error.strerror}") from error
