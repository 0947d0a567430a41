"""The cases that both libraries hold, side by side: two matrices in a file without a name, and what votes need.

The file is in the data folder and has no name, so that nothing of it is left behind, however this process ends.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from nearcase.errors import Unready
from nearcase.retrieve.cases import patient_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.transfers import StoredCase
    from nearcase.types import Case, Embedding

ORIGINS = 5
"""What two images of one origin share: patient, study, series, instance, or the file's bytes."""

MAX_LABELS = 20


@dataclass(frozen=True, slots=True)
class Label:
    """One label of N cases."""

    name: str
    values: tuple[str, ...]  # in order of text
    codes: NDArray[np.int32]  # (N,) position in values, -1 where the case has none


@dataclass(frozen=True, slots=True)
class Pairs:
    """N cases in the order of their ids."""

    old: Embedding  # (N, D_old), unit rows
    new: Embedding  # (N, D_new), unit rows
    origins: NDArray[np.int64]  # (N, ORIGINS); 0 where it is not stated
    labels: tuple[Label, ...]  # the most frequent ones, at most MAX_LABELS
    case_ids: tuple[str, ...]

    @property
    def patients(self) -> NDArray[np.int64]:
        """(N,) one number for all images that can not be told to be of different people."""
        stated = self.origins != 0
        first = np.argmax(stated, axis=1)
        rows = np.arange(len(self.origins))
        alone = self.origins.max(initial=0) + 1 + rows
        numbers: NDArray[np.int64] = np.where(stated.any(axis=1), self.origins[rows, first], alone)
        return numbers


class Pairing:
    """Takes cases in, one after the other; flagged ones are left out, since no search finds them."""

    def __init__(self, old_file: IO[bytes], new_file: IO[bytes]) -> None:
        self._files = old_file, new_file
        self._numbers: dict[tuple[int, str], int] = {}
        self._origins: list[list[int]] = []
        self._labels: list[Mapping[str, str]] = []
        self._ids: list[str] = []

    def take(self, case: Case, old: Embedding, new: Embedding) -> None:
        """Takes one case with both its vectors.

        Raises:
            Unready: The disk is full.
        """
        if case.flags:
            return
        try:
            for file, vector in zip(self._files, (old, new), strict=True):
                file.write(np.ascontiguousarray(vector, np.float32).tobytes())
        except OSError as error:
            raise Unready(f"the comparison needs more room: {error.strerror}", reason="DISK") from error
        self._origins.append([self._number(kind, text) for kind, text in enumerate(_origins(case))])
        self._labels.append(case.labels)
        self._ids.append(case.case_id)

    def finish(self, old_dimension: int, new_dimension: int) -> Pairs:
        """Returns what was taken."""
        return Pairs(
            old=self._matrix(0, old_dimension),
            new=self._matrix(1, new_dimension),
            origins=np.array(self._origins, np.int64).reshape(-1, ORIGINS),
            labels=self._coded(),
            case_ids=tuple(self._ids),
        )

    def _number(self, kind: int, text: str) -> int:
        return self._numbers.setdefault((kind, text), len(self._numbers) + 1) if text else 0

    def _matrix(self, which: int, dimension: int) -> Embedding:
        self._files[which].flush()
        shape = (len(self._ids), dimension)
        if not self._ids:
            return np.empty(shape, np.float32)
        matrix: Embedding = np.memmap(self._files[which], np.float32, "r", shape=shape)
        return matrix

    def _coded(self) -> tuple[Label, ...]:
        counts = Counter(name for labels in self._labels for name in labels)
        names = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_LABELS]
        return tuple(self._label(name) for name in sorted(names))

    def _label(self, name: str) -> Label:
        values = tuple(sorted({labels[name] for labels in self._labels if name in labels}))
        places = {value: place for place, value in enumerate(values)}
        codes = [places[labels[name]] if name in labels else -1 for labels in self._labels]
        return Label(name, values, np.array(codes, np.int32))


@contextmanager
def pairing_in(folder: Path) -> Iterator[Pairing]:
    """A pairing whose matrices are in nameless files of the folder.

    Raises:
        Unready: The disk refuses.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as old_file, tempfile.TemporaryFile(dir=folder) as new_file:
            yield Pairing(old_file, new_file)
    except OSError as error:
        raise Unready(f"the comparison needs room in {folder}: {error.strerror}", reason="DISK") from error


async def joined_by_id(
    old: AsyncIterator[StoredCase], new: AsyncIterator[StoredCase]
) -> AsyncIterator[tuple[StoredCase, StoredCase]]:
    """Yields the cases that are in both; each comes in the order of ids."""
    one, other = await anext(old, None), await anext(new, None)
    while one is not None and other is not None:
        if one.case.case_id == other.case.case_id:
            yield one, other
            one, other = await anext(old, None), await anext(new, None)
        elif one.case.case_id < other.case.case_id:
            one = await anext(old, None)
        else:
            other = await anext(new, None)


def _origins(case: Case) -> tuple[str, ...]:
    facts = case.facts
    patient = patient_key(facts.patient_id, facts.patient_id_issuer)
    return patient, facts.study_uid, facts.series_uid, facts.instance_uid, case.content_sha256
