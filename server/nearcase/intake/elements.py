"""Single values out of a dataset that may be damaged: text, whole numbers, numbers, nested items."""

from __future__ import annotations

import re

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from nearcase.errors import InvalidInput

MAX_TEXT_CHARACTERS = 64  # the bound of LO and UI (PS3.5 6.2); longer values are cut

# Of ISO 2022 (PS3.5 6.1.2.5.3); pydicom decodes Chinese (ISO 2022 IR 58) and leaves its escape sequences in the text.
_ESCAPES = re.compile("\x1b[ -/]+[0-~]")
# Latin alphabet 9 (PS3.3 C.12.1.1.2), which pydicom 3.0 does not know.
python_encoding.setdefault("ISO_IR 203", "iso8859_15")
python_encoding.setdefault("ISO 2022 IR 203", "iso8859_15")


def text(dataset: Dataset, keyword: str, *, max_characters: int = MAX_TEXT_CHARACTERS) -> str:
    """Returns the first value as trimmed printable text; empty when it is missing or can not be read."""
    try:
        value = first(dataset, keyword)
        words = "" if value is None else str(value)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # whatever a damaged value makes of pydicom: it states nothing
        return ""
    words = _ESCAPES.sub("", words[: 8 * max_characters])
    # Control characters, NUL and direction marks could forge log lines and file names.
    printable = "".join(character if character.isprintable() else " " for character in words[: 4 * max_characters])
    return " ".join(printable.split())[:max_characters].strip()


def integer(dataset: Dataset, keyword: str, default: int) -> int:
    """Returns the first value as a whole number, or default when it is missing or empty.

    Raises:
        InvalidInput: It is there, but no whole number.
    """
    try:
        value = first(dataset, keyword)
        return default if value is None else int(str(value))
    except (InvalidInput, MemoryError, RecursionError):
        raise
    except Exception:
        raise InvalidInput(
            f"expected a whole number as {keyword}, got something else", reason="BAD_ATTRIBUTE", field=keyword
        ) from None


def number(dataset: Dataset, keyword: str) -> float | None:
    """Returns the first value as a number, or None when it is missing or empty.

    Raises:
        InvalidInput: It is there, but no number.
    """
    try:
        value = first(dataset, keyword)
        return None if value is None else float(str(value))
    except (InvalidInput, MemoryError, RecursionError):
        raise
    except Exception:
        raise InvalidInput(
            f"expected a number as {keyword}, got something else", reason="BAD_ATTRIBUTE", field=keyword
        ) from None


def first(dataset: Dataset, keyword: str) -> object | None:
    """Returns the first of an element's values, None when there is none; it raises whatever pydicom raises."""
    value: object = dataset.get(keyword)
    if isinstance(value, MultiValue | Sequence | list):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else value


def item(dataset: Dataset | None, keyword: str, index: int = 0) -> Dataset | None:
    """Returns one item of a sequence, or None when it is not there."""
    sequence: object = None if dataset is None else dataset.get(keyword)
    if not isinstance(sequence, Sequence) or index >= len(sequence):
        return None
    return sequence[index]


def frame_macro(dataset: Dataset, keyword: str, frame_number: int) -> Dataset | None:
    """Returns the functional group of a frame: its own, else the shared one (PS3.3 C.7.6.16.1.1 and .2).

    Args:
        dataset: An object that may have functional groups.
        keyword: The macro's sequence, for example PixelMeasuresSequence.
        frame_number: Counts from 1.
    """
    own = item(item(dataset, "PerFrameFunctionalGroupsSequence", frame_number - 1), keyword)
    return own or item(item(dataset, "SharedFunctionalGroupsSequence"), keyword)
