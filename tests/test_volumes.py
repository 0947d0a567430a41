"""Real MR volumes of nibabel are found from an unseen slice, from half of their slices, and from a rescaled copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import zoom

from nearcase.encode.inputs import to_batch
from nearcase.encode.runtime import open_encoder
from nearcase.index.base import Point
from nearcase.index.exact import ExactIndex
from nearcase.index.filters import In, Not
from nearcase.intake.sandbox import Sandbox
from nearcase.prepare import Preparer, prepare_job
from nearcase.retrieve.cases import case_id_of, to_payload
from nearcase.retrieve.scope import Grouping, Query, Scope, SelfExclusion, SeriesMethod
from nearcase.retrieve.search import search
from nearcase.types import Case, CaseFacts

DATA = Path(nibabel.__file__).parent / "tests" / "data"
FILES = ("anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz")
Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def volumes(encoder_folder: Path) -> Iterator[dict[str, tuple[Vectors, Vectors]]]:
    """The slices' embeddings of each volume in each plane that has enough pixels, and of its rescaled copy."""
    encoder = open_encoder(encoder_folder)
    preparer = Preparer(Sandbox(prepare_job, workers=1), encoder.card.recipe, workers=1)

    def embed(voxels: NDArray[np.float32]) -> Vectors:
        data = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), np.eye(4)).to_bytes()  # type: ignore[no-untyped-call]
        frames = [preparer.prepare_now(data, number).pixels for number in range(1, len(voxels) + 1)]
        return np.concatenate([encoder.embed(to_batch(frame[None], encoder.card.recipe)) for frame in frames])

    found = {}
    for name in FILES:
        if not (DATA / name).is_file():
            pytest.skip("this build of nibabel has no test data")
        values = np.asanyarray(nibabel.load(DATA / name).dataobj)  # type: ignore[attr-defined]
        values = values[..., 0] if values.ndim == 4 else values
        for axis in range(3):
            voxels = np.moveaxis(values, axis, 0)[::2].astype(np.float32)
            if min(voxels.shape[1:]) >= 20 and 6 <= len(voxels) <= 20:
                copy = 40.0 + 3.0 * zoom(voxels, (1.0, 0.7, 0.7), order=1)
                found[f"{name} {axis}"] = (embed(voxels), embed(copy))
    yield found
    preparer.close()


async def first(
    index: ExactIndex, vectors: Vectors, method: SeriesMethod | None, without: tuple[str, ...] = ()
) -> tuple[str, int]:
    """The volume that is found first, and how many there are to be found."""
    nobody, where = Case("", CaseFacts()), Not(In("case_id", without)) if without else None
    scope = Scope(k=100, where=where, self_exclusion=SelfExclusion.NONE, grouping=Grouping.SERIES, method=method)
    hits = (await search(index, [Query(nobody, vector) for vector in vectors], scope)).hits
    return hits[0].case.facts.series_uid, len(hits)


async def test_volumes_are_found_ahead_of_others_of_their_modality(volumes: dict[str, tuple[Vectors, Vectors]]) -> None:
    assert len(volumes) >= 3
    index = ExactIndex(next(iter(volumes.values()))[0].shape[1])
    ids: dict[str, list[str]] = {}
    for name, (vectors, _) in volumes.items():
        every = [CaseFacts(modality="MR", series_uid=name, instance_uid=f"{name}.{at}") for at in range(len(vectors))]
        cases = [Case(case_id_of(facts, "", 1), facts) for facts in every]
        ids[name] = [case.case_id for case in cases]
        pairs = zip(cases, vectors, strict=True)
        await index.upsert([Point(case.case_id, vector, to_payload(case)) for case, vector in pairs])
    for name, (vectors, copy) in volumes.items():
        expected = (name, len(volumes))
        middle = len(vectors) // 2
        assert await first(index, vectors[middle : middle + 1], None, (ids[name][middle],)) == expected
        assert await first(index, vectors[1::2], SeriesMethod.POOLED, tuple(ids[name][1::2])) == expected
        assert await first(index, copy, SeriesMethod.POOLED) == expected
