"""The image network of Astra: a ResNet-152 inflated to three dimensions, averaged to one vector for each volume.

Astra (Hugging Face zzzwzh/Astra_CTRG) writes reports of chest CT; its image network began as Merlin's (Stanford MIMI).
The layers are ResNet's bottlenecks, v1.5: the stride is on the middle convolution. Names of parameters are those of the
published checkpoint, because they are its format.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

EXPANSION = 4


@dataclass(frozen=True, slots=True)
class Architecture:
    """How large the network is; the default is the published one."""

    blocks: tuple[int, int, int, int] = (3, 8, 36, 3)
    width: int = 64
    shape_voxels: tuple[int, int, int] = (224, 224, 160)  # RAS: to the right, to the front, to the head

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self.width * 8 * EXPANSION


PUBLISHED = Architecture()


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3, 1x1x1 with a shortcut around them; (N, C, D, H, W) in and out."""

    def __init__(self, channels: int, width: int, stride: int, *, has_projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, width * EXPANSION, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(width * EXPANSION)
        self.downsample: nn.Module = nn.Identity()
        if has_projection:
            projection = nn.Conv3d(channels, width * EXPANSION, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(width * EXPANSION))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the features of the next block."""
        inner = torch.relu(self.bn1(self.conv1(features)))
        inner = torch.relu(self.bn2(self.conv2(inner)))
        return torch.relu(self.bn3(self.conv3(inner)) + self.downsample(features))


class Astra(nn.Module):
    """Volumes (N, 1, X, Y, Z) in RAS, values 0 to 1 -> embeddings (N, D) of unit length.

    The average over all positions and the length are part of the network, so that the exported file alone is the
    encoder.
    """

    def __init__(self, architecture: Architecture = PUBLISHED) -> None:
        super().__init__()
        width = architecture.width
        self.architecture = architecture
        self.conv1 = nn.Conv3d(3, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        first, second, third, fourth = architecture.blocks
        self.layer1 = _layer(width, width, first, 1)
        self.layer2 = _layer(width * EXPANSION, width * 2, second, 2)
        self.layer3 = _layer(width * 2 * EXPANSION, width * 4, third, 2)
        self.layer4 = _layer(width * 4 * EXPANSION, width * 8, fourth, 2)

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Returns the last feature map (N, D, Z / 16, X / 32, Y / 32) of (N, 1, X, Y, Z) volumes."""
        slices = image.permute(0, 1, 4, 2, 3)  # (N, 1, Z, X, Y)
        three = torch.cat((slices, slices, slices), dim=1)
        stem = self.maxpool(torch.relu(self.bn1(self.conv1(three))))
        last: torch.Tensor = self.layer4(self.layer3(self.layer2(self.layer1(stem))))
        return last

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns (N, D) embeddings of unit length."""
        pooled = self.features(image).mean(dim=(2, 3, 4))
        length: torch.Tensor = torch.linalg.vector_norm(pooled, dim=1, keepdim=True)
        return pooled / length


def _layer(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(width * EXPANSION, width, 1, has_projection=False) for _ in range(1, blocks))
    return nn.Sequential(Bottleneck(channels, width, stride, has_projection=True), *rest)
