"""The image tower: DaViT (arXiv 2204.03645) with depthwise convolutions before attention and before each MLP.

Feature maps are (batch, rows, columns, width). Names of modules are those of the published weights' tensors. There is
no drop path and no checkpointing: this code does not train.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from nearcase_models.medimageinsight.shape import ImageShape, Stage

MLP_RATIO = 4
CHANNELS = 3


class DaViT(nn.Module):
    """Normalised images (N, 3, H, W) -> pooled features (N, width)."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        widths = (CHANNELS, *(stage.width for stage in shape.stages))
        self.convs = nn.ModuleList(Patches(before, stage) for before, stage in zip(widths, shape.stages, strict=False))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(Unit(stage, shape.window_px) for _ in range(stage.depth))) for stage in shape.stages
        )
        self.norms = nn.LayerNorm(shape.width)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the LayerNorm of the mean over all positions of the last map."""
        features = image.permute(0, 2, 3, 1)
        for patches, units in zip(self.convs, self.blocks, strict=True):
            features = units(patches(features))
        pooled: Tensor = self.norms(features.mean(dim=(1, 2)))
        return pooled


class Patches(nn.Module):
    """The convolution that begins a stage: fewer positions, more width."""

    def __init__(self, width_before: int, stage: Stage) -> None:
        super().__init__()
        self.norm_first = stage.norm_first
        self.proj = nn.Conv2d(width_before, stage.width, stage.patch_px, stage.stride_px, stage.padding_px)
        self.norm = nn.LayerNorm(width_before if stage.norm_first else stage.width)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the next map."""
        features = self.norm(features) if self.norm_first else features
        features = self.proj(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return features if self.norm_first else self.norm(features)


class Unit(nn.Module):
    """A spatial block, then a channel block."""

    def __init__(self, stage: Stage, window_px: int) -> None:
        super().__init__()
        self.spatial_block = SpatialBlock(stage.width, stage.heads, window_px)
        self.channel_block = ChannelBlock(stage.width, stage.heads)

    def forward(self, features: Tensor) -> Tensor:
        """Returns a map of the same size."""
        mixed: Tensor = self.channel_block(self.spatial_block(features))
        return mixed


class SpatialBlock(nn.Module):
    """Positions of one window attend to each other."""

    def __init__(self, width: int, heads: int, window_px: int) -> None:
        super().__init__()
        self.conv1 = Added(Depthwise(width))
        self.window_attn = Added(WindowAttention(width, heads, window_px), nn.LayerNorm(width))
        self.conv2 = Added(Depthwise(width))
        self.ffn = Added(Mlp(width), nn.LayerNorm(width))

    def forward(self, features: Tensor) -> Tensor:
        """Returns a map of the same size."""
        mixed: Tensor = self.ffn(self.conv2(self.window_attn(self.conv1(features))))
        return mixed


class ChannelBlock(nn.Module):
    """Channels of one group attend to each other, over all positions."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.conv1 = Added(Depthwise(width))
        self.channel_attn = Added(ChannelAttention(width, groups), nn.LayerNorm(width))
        self.conv2 = Added(Depthwise(width))
        self.ffn = Added(Mlp(width), nn.LayerNorm(width))

    def forward(self, features: Tensor) -> Tensor:
        """Returns a map of the same size."""
        mixed: Tensor = self.ffn(self.conv2(self.channel_attn(self.conv1(features))))
        return mixed


class Added(nn.Module):
    """features + fn(norm(features)); without a norm, features + fn(features)."""

    def __init__(self, fn: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()
        self.fn = fn

    def forward(self, features: Tensor) -> Tensor:
        """Returns a map of the same size."""
        added: Tensor = features + self.fn(self.norm(features))
        return added


class Depthwise(nn.Module):
    """A 3 x 3 convolution of each channel by itself; the tower's only sense of position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)

    def forward(self, features: Tensor) -> Tensor:
        """Returns a map of the same size."""
        convolved: Tensor = self.dw(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return convolved


class Mlp(nn.Module):
    """Two layers with the exact GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width * MLP_RATIO
        layers = [("fc1", nn.Linear(width, inner)), ("act", nn.GELU()), ("fc2", nn.Linear(inner, width))]
        self.net = nn.Sequential(OrderedDict(layers))

    def forward(self, features: Tensor) -> Tensor:
        """Returns a map of the same size."""
        mixed: Tensor = self.net(features)
        return mixed


class WindowAttention(nn.Module):
    """Attention inside squares of window_px positions.

    The map is padded with zeros at the right and at the bottom to whole windows, after the norm, and the padding takes
    part: masking it moves embeddings to a cosine of 0.93 with the published model's.
    """

    def __init__(self, width: int, heads: int, window_px: int) -> None:
        super().__init__()
        self.heads, self.window_px = heads, window_px
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Returns a map of the same size."""
        side, (rows, columns, width) = self.window_px, features.shape[1:]
        padded = functional.pad(features, (0, 0, 0, -columns % side, 0, -rows % side))
        down, across = padded.shape[1] // side, padded.shape[2] // side
        windows = padded.reshape(-1, down, side, across, side, width).permute(0, 1, 3, 2, 4, 5)
        mixed = self._attend(windows.reshape(-1, side * side, width))
        mixed = mixed.reshape(-1, down, across, side, side, width).permute(0, 1, 3, 2, 4, 5)
        return mixed.reshape(-1, down * side, across * side, width)[:, :rows, :columns]

    def _attend(self, windows: Tensor) -> Tensor:
        """Multi-head attention over (windows, positions, width)."""
        positions, width = windows.shape[1:]
        qkv = self.qkv(windows).reshape(-1, positions, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        weights = (query * (width // self.heads) ** -0.5 @ key.transpose(2, 3)).softmax(dim=3)
        mixed: Tensor = self.proj((weights @ value).transpose(1, 2).reshape(-1, positions, width))
        return mixed


class ChannelAttention(nn.Module):
    """Attention between the channels of a group; the scale falls with the number of positions, not with the width."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Returns a map of the same size."""
        rows, columns, width = features.shape[1:]
        positions = rows * columns
        qkv = self.qkv(features).reshape(-1, positions, 3, self.groups, width // self.groups).permute(2, 0, 3, 4, 1)
        query, key, value = qkv.unbind(0)  # (batch, groups, channels, positions)
        weights = (query * positions**-0.5 @ key.transpose(2, 3)).softmax(dim=3)
        mixed = (weights @ value).permute(0, 3, 1, 2).reshape(-1, rows, columns, width)
        projected: Tensor = self.proj(mixed)
        return projected
