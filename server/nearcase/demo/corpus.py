"""The real images that the demo searches, found inside installed packages; `corpus.toml` is the table of them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

from nearcase.errors import NotFound


@dataclass(frozen=True, slots=True)
class DemoImage:
    """One image file, and what the table says of it."""

    path: Path
    source: str  # package, version and file, in words
    licence: str
    group: str  # same patient, or same series where no patient is named
    modality: str
    region: str  # part of the body, told from the picture by the authors of the table; empty where it can not be told
    shows: str  # one line for people


@dataclass(frozen=True, slots=True)
class Corpus:
    """The images to add, and the held-out images to search with; no group is in both."""

    library: tuple[DemoImage, ...]
    queries: tuple[DemoImage, ...]


def load_corpus() -> Corpus:
    """Returns the demo's images in the order of the table.

    Raises:
        NotFound: A package, or one of its files, is not installed.
    """
    table = tomllib.loads((files("nearcase.demo") / "corpus.toml").read_text("utf-8"))
    packages = {name: _Package.find(name, row) for name, row in table["packages"].items()}
    return Corpus(
        library=tuple(packages[row["package"]].image(row) for row in table["image"] if row["role"] == "library"),
        queries=tuple(packages[row["package"]].image(row) for row in table["image"] if row["role"] == "query"),
    )


@dataclass(frozen=True, slots=True)
class _Package:
    """An installed package that holds images; it is never imported, only its files are read."""

    name: str
    installed: Distribution
    folder: str
    licence: str
    extra: str  # of nearcase, that installs it

    @classmethod
    def find(cls, name: str, row: Mapping[str, str]) -> _Package:
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            message = f'Expected the package {name}, which is not installed: pip install "nearcase[{row["extra"]}]"'
            raise NotFound(message, reason="DEMO_PACKAGE_NOT_FOUND") from None
        return cls(name, installed, row["folder"], row["licence"], row["extra"])

    def image(self, row: Mapping[str, Any]) -> DemoImage:
        """Returns the image that a row of the table names, once its file is there."""
        path = Path(str(self.installed.locate_file(f"{self.folder}/{row['path']}")))
        if not path.is_file():
            message = (
                f"Expected {row['path']} in {self.name}, but {self.name} {self.installed.version} does not have it: "
                f'pip install --force-reinstall "nearcase[{self.extra}]"'
            )
            raise NotFound(message, reason="DEMO_FILE_NOT_FOUND")
        return DemoImage(
            path=path,
            source=f"{self.name} {self.installed.version}, {row['path']}",
            licence=self.licence,
            group=row["group"],
            modality=row["modality"],
            region=row["region"],
            shows=row["shows"],
        )
