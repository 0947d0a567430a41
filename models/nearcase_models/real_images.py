"""Real images to measure with: the DICOM files of installed packages, or a folder of the user's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearcase.encode.base import Encoder
from nearcase.encode.inputs import AnyRecipe, Frame, to_batch
from nearcase.errors import InvalidInput, NearcaseError
from nearcase.prepare import Preparer, prepare_sandbox

_PACKAGES = {"pydicom": "pydicom/data/test_files", "pydicom-data": "data_store/data"}
_KINDS = (".dcm", ".jpg", ".jpeg", ".png", ".nii", ".gz", ".zip")


def packaged_files() -> tuple[list[Path], str]:
    """Returns the DICOM files of pydicom and pydicom-data, and what they are in words.

    Raises:
        InvalidInput: Neither package is installed.
    """
    found: list[Path] = []
    names = []
    for package, folder in _PACKAGES.items():
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            continue
        found += sorted(Path(str(installed.locate_file(folder))).rglob("*.dcm"))
        names.append(f"{package} {installed.version}")
    if not found:
        raise InvalidInput("expected real images, found no package that holds some: pip install nearcase[demo]")
    return found, f"DICOM images of {' and '.join(names)}"


def files_below(folder: Path) -> tuple[list[Path], str]:
    """Returns the image files below a folder, and what they are in words; no path shows in them."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix.lower() in (*_KINDS, "")]
    return found, "images of the user's own"


def read_frames(files: Sequence[Path], recipe: AnyRecipe, on_file: Callable[[], object] = lambda: None) -> list[Frame]:
    """Returns the frames of the files that can be read, in child processes, as the server reads them."""
    preparer = Preparer(prepare_sandbox(recipe, workers=1), recipe, workers=1)
    frames: list[Frame] = []
    try:
        for file in files:
            with contextlib.suppress(NearcaseError):  # packages hold damaged files on purpose
                frames.append(preparer.prepare_now(file.read_bytes()).pixels)
            on_file()
    finally:
        preparer.close()
    return frames


def embed_frames(
    encoder: Encoder, frames: Sequence[Frame], on_frame: Callable[[], object] = lambda: None
) -> NDArray[np.float32]:
    """Returns (N, D) embeddings, made one by one."""
    vectors = []
    for frame in frames:
        vectors.append(encoder.embed(to_batch(frame[None], encoder.card.recipe))[0])
        on_frame()
    return np.stack(vectors) if vectors else np.zeros((0, encoder.card.dimension), np.float32)
