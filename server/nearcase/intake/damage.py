"""The boundary at which whatever pydicom and the codecs raise becomes one typed error of one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from nearcase.errors import InvalidInput, NearcaseError


@contextmanager
def typed_damage(kind: str, reason: str) -> Iterator[None]:
    """Lets typed errors through and turns all others into InvalidInput; warnings are silenced.

    Args:
        kind: What the bytes claim to be, for the message: "DICOM".
        reason: The code of damage that has no better one.

    Raises:
        InvalidInput: Anything but a typed error was raised inside.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of patient data in its words
        try:
            yield
        except NearcaseError:
            raise
        except (MemoryError, RecursionError) as error:
            raise InvalidInput(f"reading this file ended in {type(error).__name__}", reason="DECODE_LIMIT") from None
        except Exception as error:
            raise InvalidInput(
                f"expected a sound {kind} file, got a damaged one ({type(error).__name__})", reason=reason
            ) from None
