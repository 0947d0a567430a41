"""Names of a checkpoint's tensors: two older generations -> the published one.

Published files have the new names; files of earlier training code have the old ones. Some of them are mixtures.
"""

from __future__ import annotations

import re

_TOP = {
    "visual.": "image_encoder.",
    "text.": "lang_encoder.",
    "vision_projection": "image_projection",
    "text_projection": "lang_projection",
}
_FOLDERS = {"image_encoder.conv_embeds.": "image_encoder.convs.", "image_encoder.main_blocks.": "image_encoder.blocks."}
_UNIT = re.compile(r"(image_encoder\.blocks\.\d+\.\d+)\.([01])\.(cpe\.0\.proj|cpe\.1\.proj|norm1|norm2|attn|mlp)\.(.+)")
_PARTS = {
    "cpe.0.proj": "conv1.fn.dw",
    "cpe.1.proj": "conv2.fn.dw",
    "norm2": "ffn.norm",
    "mlp": "ffn.fn.net",
}


def published_name(name: str) -> str:
    """Returns the published name of a tensor; a name that is not an old one comes back as it is."""
    for table in (_TOP, _FOLDERS):
        for old, new in table.items():
            if name.startswith(old) if old.endswith(".") else name == old:
                name = new + name[len(old) :]
                break
    match = _UNIT.fullmatch(name)
    return name if match is None else _unit_name(*match.groups())


def _unit_name(unit: str, block: str, part: str, rest: str) -> str:
    """The old names count a unit's blocks: 0 is spatial, 1 is channel."""
    block_name, attention = [("spatial_block", "window_attn"), ("channel_block", "channel_attn")][int(block)]
    parts = {**_PARTS, "norm1": f"{attention}.norm", "attn": f"{attention}.fn"}
    return f"{unit}.{block_name}.{parts[part]}.{rest}"
