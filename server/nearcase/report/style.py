"""The style sheet of a page and its hash, which the page's Content-Security-Policy names."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Style:
    """What goes between the style tags; nothing else may style the page, and no script runs."""

    text: str

    @property
    def sha256_base64(self) -> str:
        """As a Content-Security-Policy writes it."""
        return base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode("ascii")


def style_of(*names: str, rules: str = "") -> Style:
    """Returns the named sheets of this folder, and rules that depend on the page."""
    sheets = [(Path(__file__).parent / name).read_text("utf-8") for name in names]
    return Style("".join([*sheets, rules]))
