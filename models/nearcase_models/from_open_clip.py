"""The image tower of an open_clip model by its name, with weights from a file."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import torch
from torch import nn

from nearcase.errors import InvalidInput
from nearcase_models.checkpoint import load_strictly, read_checkpoint
from nearcase_models.extra import needed
from nearcase_models.network import Network, stretched

_OF_PARALLEL = "module."  # what torch's DistributedDataParallel puts before every name


class _ImageTower(nn.Module):
    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns (N, D) vectors in the space that images and texts share."""
        vectors: torch.Tensor = self.visual(image)
        return vectors


def load_open_clip(name: str, checkpoint: Path) -> Network:
    """Returns the image tower; the whole file is read strictly, text tower included.

    Raises:
        NotFound: open_clip is not installed.
        InvalidInput: There is no such model, or the file does not fit it.
    """
    open_clip = needed("open_clip", "open_clip_torch torchvision")
    names = open_clip.list_models()
    if name not in names:
        near = get_close_matches(name, names, n=3)
        raise InvalidInput(f"open_clip has no model {name[:60]}; near: {', '.join(near) or 'none'}")
    model = open_clip.create_model(name, pretrained=None, load_weights=False)
    tensors = {key.removeprefix(_OF_PARALLEL): value for key, value in read_checkpoint(checkpoint).items()}
    load_strictly(model, tensors)
    visual = model.visual
    return Network(
        model=_ImageTower(visual),
        recipe=stretched(visual.image_size, list(visual.image_mean), list(visual.image_std)),
        origin=f"open_clip {open_clip.__version__}, {name}; weights from a file of the user's",
        architecture=f"Image tower of {name} of open_clip",
    )
