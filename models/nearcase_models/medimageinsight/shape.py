"""The sizes of MedImageInsight: those that were published, and nothing that can be read from them."""

from __future__ import annotations

from dataclasses import dataclass

IMAGE_PX = 480
MEAN = (0.485, 0.456, 0.406)  # of ImageNet, as the configuration beside the published weights says
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the image tower: `depth` units, each a spatial block and then a channel block."""

    depth: int
    width: int
    heads: int  # of window attention; channel attention has as many groups
    patch_px: int  # side of the convolution that begins the stage
    stride_px: int
    padding_px: int
    norm_first: bool  # True: LayerNorm before that convolution; False: after it


@dataclass(frozen=True, slots=True)
class ImageShape:
    """The image tower: a DaViT of four stages."""

    stages: tuple[Stage, ...]
    window_px: int  # side of the window attention's squares, in tokens

    @property
    def width(self) -> int:
        """Length of the pooled features."""
        return self.stages[-1].width


@dataclass(frozen=True, slots=True)
class TextShape:
    """The text tower: a transformer without a causal mask."""

    layers: int
    width: int
    heads: int
    context: int  # most tokens of a text, begin and end included
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Shape:
    """Both towers and the length of the embeddings that they share."""

    image: ImageShape
    text: TextShape
    dimension: int


PUBLISHED = Shape(
    image=ImageShape(
        stages=(
            Stage(1, 256, 8, 7, 4, 3, norm_first=False),
            Stage(1, 512, 16, 3, 2, 1, norm_first=True),
            Stage(9, 1024, 32, 3, 2, 1, norm_first=True),
            Stage(1, 2048, 64, 3, 2, 1, norm_first=True),
        ),
        window_px=12,
    ),
    text=TextShape(layers=16, width=1024, heads=16, context=77, vocabulary=49_408),
    dimension=1024,
)
"""MedImageInsight as of 27 September 2024 (arXiv 2410.06542): 601 tensors, 615,996,417 parameters."""
