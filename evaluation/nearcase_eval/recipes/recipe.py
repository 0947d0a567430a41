"""What a recipe is, and what it makes of a folder: entries that have the columns of a cohort's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TRAIN, VALIDATION, TEST = "train", "validation", "test"
POSITIVE, NEGATIVE, UNKNOWN = "1", "0", ""

Progress = Callable[[str, int, int], None]
"""Called with a stage, how many files more are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a set."""

    image: str  # path below the folder of images, with slashes
    patient: str
    sex: str  # F, M, O or empty
    age: str  # years or a DICOM age string, as the set states it; empty if unknown
    split: str  # TRAIN, VALIDATION, TEST, or empty where the set has no official split
    labels: Mapping[str, str]  # finding to POSITIVE, NEGATIVE or UNKNOWN
    view: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)  # others that the set states, for groups


@dataclass(frozen=True, slots=True)
class Built:
    """All images of a set that are there."""

    images: Path  # folder that the entries' paths start from
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()  # one sentence for each thing that a reader of the results must know


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one public set becomes a cohort.

    `build` gets the set's folder, a folder that it may write converted images to, and the progress to tell.
    """

    name: str
    title: str
    modality: str
    terms: str  # licence or terms of use, one line
    source: str  # where the layout was looked up
    build: Callable[[Path, Path, Progress], Built]
    unconfirmed: tuple[str, ...] = ()  # what could not be looked up
    cautions: tuple[str, ...] = ()  # what is known to mislead in this set
    refused: str = ""  # why the set can not be served yet; empty: it can
