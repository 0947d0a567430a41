"""Both towers with their projections, under the names of the published weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearcase_models.medimageinsight.davit import DaViT
from nearcase_models.medimageinsight.shape import Shape
from nearcase_models.medimageinsight.transformer import TextTransformer


class MedImageInsight(nn.Module):
    """The module whose state is a checkpoint; `ImageEncoder` and `TextEncoder` are what is run and exported."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.lang_encoder = TextTransformer(shape.text)
        self.lang_projection = nn.Parameter(torch.empty(shape.text.width, shape.dimension))
        self.image_encoder = DaViT(shape.image)
        self.image_projection = nn.Parameter(torch.empty(shape.image.width, shape.dimension))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def image_side(self) -> ImageEncoder:
        """The image tower alone."""
        return ImageEncoder(self.image_encoder, self.image_projection).eval()

    def text_side(self) -> TextEncoder:
        """The text tower alone."""
        return TextEncoder(self.lang_encoder, self.lang_projection).eval()


class ImageEncoder(nn.Module):
    """Normalised images (N, 3, 480, 480) -> embeddings (N, 1024) of unit length."""

    def __init__(self, tower: DaViT, projection: nn.Parameter) -> None:
        super().__init__()
        self.tower, self.projection = tower, projection

    def forward(self, image: Tensor) -> Tensor:
        """Returns one embedding for each image."""
        return _unit(self.tower(image) @ self.projection)


class TextEncoder(nn.Module):
    """Token ids and their mask (N, L) -> embeddings (N, 1024) of unit length."""

    def __init__(self, tower: TextTransformer, projection: nn.Parameter) -> None:
        super().__init__()
        self.tower, self.projection = tower, projection

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Returns one embedding for each text."""
        return _unit(self.tower(ids, mask) @ self.projection)


def _unit(vectors: Tensor) -> Tensor:
    unit: Tensor = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return unit
