"""Packages that only some importers need: named where they are absent, never installed."""

from __future__ import annotations

import importlib
from typing import Any

from nearcase.errors import NotFound


def needed(module: str, requirement: str) -> Any:
    """Returns an imported module.

    Raises:
        NotFound: It is not installed, or does not fit what is; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        absent = error.name or module
        raise NotFound(f"{absent} is not installed; this import needs it: pip install {requirement}") from None
    except Exception as error:  # torchvision raises RuntimeError where it was built for another torch
        said = " ".join(str(error).split())[:120]
        message = f"{module} is installed and can not be imported ({said}): torchvision must be built for your torch"
        raise NotFound(message) from None
