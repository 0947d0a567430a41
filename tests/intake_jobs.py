"""The job that hostile and real files are read with in a sandbox. Children import this module, so it stays light."""

from __future__ import annotations

from typing import Any

from nearcase.intake.files import read_image


def read(data: bytes, options: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Returns shape and rules, and the pixels."""
    image = read_image(data, frame_number=options.get("frame"))
    return {"shape": list(image.pixels.shape), "rules": list(image.rules)}, [image.pixels.tobytes()]
