"""Where the files lie that a library was made from: it keeps none of them, only the SHA-256 of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path


def find_originals(
    files: Iterable[Path], digest: Callable[[str], str], advance: Callable[[], None]
) -> Mapping[str, Path]:
    """Returns the file of each content hash; a file that can not be read is left out, and its case is then missing.

    Args:
        files: Those to look at; all of each is read.
        digest: What the library knows a SHA-256 as: itself, or a pseudonym.
        advance: Is told of each file.
    """
    found: dict[str, Path] = {}
    for path in files:
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            continue
        finally:
            advance()
        found.setdefault(digest(sha256), path)
    return found


def files_below(folders: Iterable[Path]) -> Iterator[Path]:
    """Yields all files in a stable order, hidden ones too: a name does not tell what was added."""
    for folder in folders:
        if folder.is_file():
            yield folder
        else:
            yield from (path for path in sorted(folder.rglob("*")) if path.is_file())
