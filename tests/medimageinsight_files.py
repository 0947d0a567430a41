"""Checkpoints of MedImageInsight with random weights, under the published names.

    python tests/medimageinsight_files.py checkpoint.safetensors     (full size: 2.46 GB)

Weights are tame, or rounding is amplified until no two right programs agree: fan-in scaling, LayerNorm weights near 1,
and small queries in channel attention, whose softmax runs over sums of all positions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from safetensors.torch import save_file
from torch import Tensor

from nearcase_models.medimageinsight.model import MedImageInsight
from nearcase_models.medimageinsight.shape import MEAN, PUBLISHED, STD, ImageShape, Shape, Stage, TextShape

SMALL = Shape(
    image=ImageShape(
        stages=(
            Stage(1, 16, 2, 7, 4, 3, norm_first=False),
            Stage(1, 32, 4, 3, 2, 1, norm_first=True),
            Stage(2, 48, 6, 3, 2, 1, norm_first=True),
            Stage(1, 64, 8, 3, 2, 1, norm_first=True),
        ),
        window_px=12,
    ),
    text=TextShape(layers=2, width=32, heads=4, context=77, vocabulary=49_408),
    dimension=1024,
)
"""Both towers with every kind of block, at the published input size."""


def random_weights(shape: Shape, seed: int = 0) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint, by their published names."""
    with torch.device("meta"):
        places = MedImageInsight(shape).state_dict()
    generator = torch.Generator().manual_seed(seed)
    return {name: _tame(name, tuple(place.shape), generator) for name, place in places.items()}


def _tame(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    return torch.tensor(4.5) if name == "logit_scale" else _centre(name) + noise * _spread(name, noise)


def _centre(name: str) -> float:
    return 1.0 if name.endswith("weight") and ("norm" in name or "ln_" in name) else 0.0


def _spread(name: str, noise: Tensor) -> float:
    if name.endswith("bias") or "norm" in name or "ln_" in name:
        return 0.05
    if "embedding" in name:
        return 0.5
    fan_in = len(noise) if name.endswith("projection") else noise[0].numel()
    return float(fan_in**-0.5) * (0.4 if "channel_attn.fn.qkv" in name else 1.0)


def write_checkpoint(
    path: Path, shape: Shape = PUBLISHED, *, seed: int = 0, change: Callable[[dict[str, Tensor]], object] | None = None
) -> Path:
    """Writes random weights, changed as a test likes."""
    weights = random_weights(shape, seed)
    if change:
        change(weights)
    save_file(weights, path)
    return path


def import_small(folder: Path) -> Path:
    """Returns the folder of a small encoder with random weights of seed 0."""
    from nearcase_models.medimageinsight.importing import OtherWeights, import_medimageinsight

    checkpoint = write_checkpoint(folder / "small.safetensors", SMALL)
    return import_medimageinsight(checkpoint, folder / "encoder", shape=SMALL, other_weights=OtherWeights()).folder


def structured(seed: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Returns a picture with structure at every scale: smooth blobs with fine grain, each channel its own."""
    rng = np.random.default_rng(seed)
    planes = []
    for _ in range(shape[2] if len(shape) == 3 else 1):
        coarse = PillowImage.fromarray(rng.integers(0, 256, (9, 7), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((shape[1], shape[0]), PillowImage.Resampling.BICUBIC), np.int16)
        planes.append(np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8))
    return planes[0] if len(shape) == 2 else np.stack(planes, axis=2)


def reference_batch(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Returns the reference's own transform of grey or RGB images, step by step as torchvision does it on pictures."""
    rows = []
    for image in images:
        picture = PillowImage.fromarray(image).convert("RGB").resize((480, 480), PillowImage.Resampling.BICUBIC)
        scaled = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).to(torch.float32).div(255)
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        rows.append(scaled.sub_(mean).div_(std))
    return torch.stack(rows)


if __name__ == "__main__":
    write_checkpoint(Path(sys.argv[1]))
