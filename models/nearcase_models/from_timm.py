"""A timm model by its name, with weights from a file: its pooled features."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from nearcase.errors import InvalidInput
from nearcase_models.checkpoint import load_strictly, read_checkpoint
from nearcase_models.extra import needed
from nearcase_models.network import Network, stretched


def load_timm(name: str, checkpoint: Path) -> Network:
    """Returns the network without its classifier, whose weights alone may be left over in the file.

    Raises:
        NotFound: timm is not installed.
        InvalidInput: There is no such model, or the file does not fit it.
    """
    timm = needed("timm", "timm torchvision")
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3)
        raise InvalidInput(f"timm {timm.__version__} has no model {name[:60]}; near: {', '.join(near) or 'none'}")
    model = timm.create_model(name, pretrained=False, num_classes=0)
    config = model.pretrained_cfg
    heads = config.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    tensors = {
        key: value for key, value in read_checkpoint(checkpoint).items() if not (prefixes and key.startswith(prefixes))
    }
    load_strictly(model, tensors)
    return Network(
        model=model,
        recipe=stretched(list(config["input_size"][1:]), config["mean"], config["std"]),
        origin=f"timm {timm.__version__}, {name}; weights from a file of the user's",
        architecture=f"{name} of timm, pooled features",
    )
