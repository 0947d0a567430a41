"""The file that holds the key of a library's pseudonyms."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nearcase.errors import InvalidInput
from nearcase.intake.deidentify import MIN_KEY_BYTES

MAX_KEY_BYTES = 4096
MIN_DISTINCT_BYTES = 8
"""32 random bytes have about 30 different ones, and their hexadecimal digits 14; zeros and a held-down key have 1."""


def read_key(file: Path) -> bytes:
    """Returns all bytes of the file, a final newline included.

    Raises:
        InvalidInput: It can not be read, is no plain file, may be read by others than its owner, or is no secret.
    """
    try:
        # A pipe in its place must not hold the start up.
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise _unfit(file, "expected a plain file, got something else")
            if mode & 0o077:
                raise _unfit(file, f"expected a file that only its owner may use (mode 0600), got {mode & 0o777:04o}")
            key = opened.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise _unfit(file, f"it can not be read: {error.strerror}") from None
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        size = len(key) if len(key) <= MAX_KEY_BYTES else "more"
        raise _unfit(file, f"expected {MIN_KEY_BYTES} to {MAX_KEY_BYTES} random bytes, got {size}")
    if len(set(key)) < MIN_DISTINCT_BYTES:
        raise _unfit(file, f"expected random bytes, got {len(set(key))} different ones")
    return key


def _unfit(file: Path, why: str) -> InvalidInput:
    return InvalidInput(f"pseudonym key {file.name}: {why}", reason="PSEUDONYM_KEY", field="pseudonym_key")
