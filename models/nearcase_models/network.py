"""Any torch network that makes one vector of an image -> an encoder's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from nearcase.encode.card import Card
from nearcase.encode.preprocess import STRETCH, Recipe
from nearcase.errors import InvalidInput
from nearcase_models.artefact import Identity, Made, parity_text, write_artefact
from nearcase_models.export import OPSET, export_onnx, parity
from nearcase_models.golden import drawn_images

PARITY_LIMIT = 1e-4
BATCHES = (1, 3, 5)  # none of which the export is traced with
SMALLEST_PX, LARGEST_PX = 16, 4096
Told = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Network:
    """What an importer makes of somebody's checkpoint."""

    model: nn.Module  # (N, 3, size, size) -> (N, D), of any length
    recipe: Recipe
    origin: str
    architecture: str  # for the card's description


class UnitLength(nn.Module):
    """The network with its vectors scaled to unit length, which is then part of the file."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns (N, D) embeddings of unit length."""
        vectors: torch.Tensor = self.model(image)
        length: torch.Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return vectors / length


def stretched(size: object, mean: object, std: object) -> Recipe:
    """Returns the plain recipe for what a library says of a network's input.

    Raises:
        InvalidInput: The input is not a square of three channels, or mean and std are not three numbers each.
    """
    sides = list(size) if isinstance(size, list | tuple) else [size, size]
    if len(set(sides)) != 1 or not isinstance(sides[0], int) or not SMALLEST_PX <= sides[0] <= LARGEST_PX:
        raise InvalidInput(f"expected a square input of {SMALLEST_PX} to {LARGEST_PX} px, got {size}")
    return Recipe(*STRETCH, size_px=sides[0], mean=_three(mean, "mean"), std=_three(std, "std"))


def write_network(network: Network, identity: Identity, out: Path, told: Told = lambda stage: None) -> Card:
    """Writes the encoder's folder and returns its card.

    Raises:
        InvalidInput: `out` exists, the network does not give one vector for each image, or the exported file is not at
            parity with it.
    """
    model = UnitLength(network.model).eval().requires_grad_(False)
    dimension = _dimension(model, network.recipe)

    def build(folder: Path) -> Made:
        return _build(model, network.recipe, dimension, folder / "encoder.onnx", told)

    return write_artefact(out, identity, build)


def _dimension(model: nn.Module, recipe: Recipe) -> int:
    with torch.inference_mode():
        try:
            found = model(torch.rand(2, *recipe.input_shape))
        except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
            raise InvalidInput(f"the network does not take {recipe.input_shape} images: {str(error)[:120]}") from error
    if not isinstance(found, torch.Tensor) or found.ndim != 2 or not bool(torch.isfinite(found).all()):
        raise InvalidInput("expected a network that gives one finite vector for each image, got something else")
    return int(found.shape[1])


def _build(model: nn.Module, recipe: Recipe, dimension: int, path: Path, told: Told) -> Made:
    told("exporting the network")
    export_onnx(model, recipe.input_shape, path)
    told("comparing it with torch")
    rng = np.random.default_rng(4)
    batches = [rng.standard_normal((count, *recipe.input_shape), np.float32) for count in BATCHES]
    difference = parity(model, path, batches)
    if not difference <= PARITY_LIMIT:
        raise InvalidInput(f"expected parity with torch <= {PARITY_LIMIT}, got {difference:.2e}")
    told("writing the golden embeddings")
    against = f"torch {torch.__version__.split('+')[0]}, onnxruntime {onnxruntime.__version__}"
    return Made(
        dimension=dimension,
        opset=OPSET,
        precision="fp32",
        recipe=recipe,
        golden=drawn_images(),
        more=parity_text(against, BATCHES, difference),
    )


def _three(values: object, name: str) -> tuple[float, float, float]:
    numbers = list(values) if isinstance(values, list | tuple) else []
    if len(numbers) != 3 or not all(isinstance(number, int | float) for number in numbers):
        raise InvalidInput(f"expected three numbers as {name}, got {values}")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
