"""A vision checkpoint in the layout of Hugging Face, from a local folder: nothing is fetched, no code of it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nearcase.errors import InvalidInput
from nearcase_models.extra import needed
from nearcase_models.network import Network, stretched

POOLS = ("auto", "cls", "mean", "pooler")
_POOLER = "pooler."


class _Pooled(nn.Module):
    """The vision model with one vector for each image."""

    def __init__(self, model: nn.Module, pool: str) -> None:
        super().__init__()
        self.model, self.pool = model, pool

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns (N, D) vectors."""
        if self.pool == "features":
            found: Any = self.model.get_image_features(pixel_values=image)  # type: ignore[operator]
            vectors: torch.Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
            return vectors
        found = self.model(pixel_values=image)
        if self.pool == "pooler":
            pooled: torch.Tensor = found.pooler_output
            return pooled.flatten(1)
        tokens: torch.Tensor = found.last_hidden_state
        return tokens[:, 0] if self.pool == "cls" else tokens.mean(dim=1)


def load_huggingface(folder: Path, pool: str = "auto") -> Network:
    """Returns the network of a folder with config.json, model.safetensors and preprocessor_config.json.

    Args:
        folder: The checkpoint.
        pool: What makes one vector: the first token, the mean of all tokens, or the model's own pooler; auto takes the
            shared image and text space where there is one, then the pooler, then the first token.

    Raises:
        NotFound: transformers is not installed.
        InvalidInput: A file is absent, weights are missing, or the model is none for images.
    """
    transformers = needed("transformers", "transformers torchvision")
    config, processing = (_json(folder / name) for name in ("config.json", "preprocessor_config.json"))
    if "auto_map" in config:
        raise InvalidInput("this checkpoint brings code of its own, which is not run")
    if not (folder / "model.safetensors").is_file():
        raise InvalidInput(f"expected model.safetensors in {folder.name}, found none; pickled weights are not opened")
    try:
        model, report = transformers.AutoModel.from_pretrained(
            str(folder.resolve()),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:  # its error types share no base class
        raise InvalidInput(f"transformers can not open it: {' '.join(str(error).split())[:160]}") from None
    chosen = _pool(model, pool, report)
    recipe = stretched(_size(processing), processing.get("image_mean"), processing.get("image_std"))
    kind = str(config.get("model_type", "model"))[:40]
    return Network(
        model=_Pooled(model, chosen),
        recipe=recipe,
        origin=f"transformers {transformers.__version__}, {kind}; weights from a folder of the user's",
        architecture=f"{kind} in the layout of Hugging Face, one vector by {chosen}",
    )


def _pool(model: Any, pool: str, report: Mapping[str, Any]) -> str:
    """Settles how tokens become one vector, and refuses weights that would be random."""
    missing = sorted(str(key) for key in report["missing_keys"])
    has_pooler = getattr(model, "pooler", None) is not None and not any(key.startswith(_POOLER) for key in missing)
    if pool == "auto":
        has_features = hasattr(model, "get_image_features")
        pool = "features" if has_features else "pooler" if has_pooler else "cls"
    if pool == "pooler" and not has_pooler:
        raise InvalidInput("this checkpoint has no pooler; choose cls or mean")
    needed_ones = [key for key in missing if pool == "pooler" or not key.startswith(_POOLER)]
    if needed_ones:
        raise InvalidInput(f"the checkpoint has no {needed_ones[0]} ({len(needed_ones)} tensors missing)")
    if report["mismatched_keys"]:
        raise InvalidInput(
            f"a tensor has another shape than the model: {str(next(iter(report['mismatched_keys'])))[:120]}"
        )
    return pool


def _size(processing: Mapping[str, Any]) -> object:
    """The side of the network's input: that of the crop where there is one."""
    size = processing.get("crop_size") if processing.get("do_center_crop") else processing.get("size")
    if isinstance(size, Mapping):
        sides = [size.get("height", size.get("shortest_edge")), size.get("width", size.get("shortest_edge"))]
        return sides
    return size


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError:
        raise InvalidInput(f"expected {path.name} in {path.parent.name}, found none") from None
    except ValueError as error:
        raise InvalidInput(f"expected {path.name} to be JSON, got: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"expected an object in {path.name}, got {type(found).__name__}")
    return found
