"""Whole series as queries: is a volume found from an unseen slice, from half of its slices, and from a rescaled copy?

Real volumes: MR from the packages nilearn and nibabel, and NIfTI files of folders named with --more (the Debian package
mricron-data and the files of dipy are good ones); CT slices of ../shared/data/ct_contrast_dicom.zip, one to four of a
patient and far apart, so that only their rescaled copies can be expected to be found. Every volume is written as NIfTI
and read as the server reads it; the library has all volumes, and what is asked with is left out of it. A volume is
found where it is the first hit, ahead of all others of its modality.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from scipy.ndimage import zoom

from nearcase.encode.base import Encoder
from nearcase.encode.card import default_encoder_folder
from nearcase.encode.inputs import to_batch
from nearcase.encode.runtime import open_encoder
from nearcase.index.base import Point
from nearcase.index.exact import ExactIndex
from nearcase.index.filters import And, Equals, Filter, In, Not
from nearcase.intake.sandbox import Sandbox
from nearcase.prepare import Preparer, prepare_job
from nearcase.retrieve.cases import case_id_of, to_payload
from nearcase.retrieve.scope import Grouping, Pooling, Query, Scope, SelfExclusion, SeriesMethod
from nearcase.retrieve.search import search
from nearcase.types import Case, CaseFacts

COHORT = Path(__file__).resolve().parents[2] / "shared" / "data" / "ct_contrast_dicom.zip"
SLICES = 24
LEAST_SIDE_PX = 30
HELD_OUT = 4
PLANES = ("sagittal", "coronal", "axial")
WAYS: dict[str, tuple[SeriesMethod, Pooling]] = {
    "pooled mean": (SeriesMethod.POOLED, Pooling.MEAN),
    "pooled median": (SeriesMethod.POOLED, Pooling.MEDIAN),
    "pooled max": (SeriesMethod.POOLED, Pooling.MAX),
    "frequency": (SeriesMethod.FREQUENCY, Pooling.MEAN),
    "max": (SeriesMethod.MAX, Pooling.MEAN),
    "sum": (SeriesMethod.SUM, Pooling.MEAN),
}
Voxels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Volume:
    """One real volume."""

    name: str
    modality: str
    voxels: Voxels  # (slices, rows, columns)


@dataclass(frozen=True, slots=True)
class Stored:
    """A volume as the library holds it, and its rescaled copy."""

    volume: Volume
    cases: tuple[Case, ...]
    vectors: NDArray[np.float32]  # (slices, D)
    rescaled: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """How often a volume was the first hit."""

    modality: str
    query: str
    method: str
    queries: int
    found: int
    volumes: int


def thinned(name: str, modality: str, voxels: Voxels) -> Volume:
    """At most SLICES slices, evenly spaced over the middle four fifths, where there is something to see."""
    count = len(voxels)
    if count > SLICES:
        voxels = voxels[np.linspace(0.1 * count, 0.9 * count, SLICES).astype(int)]
    return Volume(name, modality, np.ascontiguousarray(voxels, np.float32))


def of_nifti(name: str, file: Path) -> Iterator[Volume]:
    """The volume in each of its planes that has enough slices and pixels; of several volumes the first."""
    values = np.asanyarray(nibabel.load(file).dataobj).astype(np.float32)  # type: ignore[attr-defined]
    values = values[..., 0] if values.ndim == 4 else values
    if values.ndim != 3 or len(np.unique(values)) < 100:
        return  # labels, not an image
    for axis, plane in enumerate(PLANES):
        voxels = np.moveaxis(values, axis, 0)[:, :, ::-1].swapaxes(1, 2)
        if min(voxels.shape[1:]) >= LEAST_SIDE_PX and len(voxels) >= 2 * HELD_OUT:
            yield thinned(f"{name} {plane}", "MR", voxels)


def of_packages(more: list[Path]) -> Iterator[Volume]:
    """The MR volumes."""
    folders = [_package("nilearn") / "datasets" / "data", _package("nibabel") / "tests" / "data", *more]
    for folder in folders:
        for file in sorted((*folder.glob("*.nii"), *folder.glob("*.nii.gz"))):
            if not any(word in file.name for word in ("_gm_", "_wm_", "dconn", "image_10426", "moved")):
                yield from of_nifti(file.name.partition(".")[0], file)


def of_cohort() -> Iterator[Volume]:
    """The CT slices of each patient who has several of one size."""
    found: dict[str, list[Voxels]] = defaultdict(list)
    with zipfile.ZipFile(COHORT) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".dcm"):
                file = pydicom.dcmread(io.BytesIO(archive.read(name)))
                values = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
                found[str(file.PatientID)].append(np.clip(values, -1000, 1000).astype(np.float32))
    for number, slices in enumerate(found.values()):
        yield Volume(f"patient {number}", "CT", np.stack(slices))


def rescaled(volume: Volume) -> Voxels:
    """Smaller pixels in number, fewer slices, and grey values on another, bent scale."""
    scale = (0.8 if len(volume.voxels) > HELD_OUT else 1.0, 0.7, 0.7)
    voxels = zoom(volume.voxels, scale, order=1)
    low, high = float(voxels.min()), float(voxels.max())
    bent: Voxels = (50.0 + 600.0 * ((voxels - low) / (high - low)) ** 0.8).astype(np.float32)
    return bent


def embed(voxels: Voxels, encoder: Encoder, preparer: Preparer) -> NDArray[np.float32]:
    """One embedding for each slice, through the intake of the server."""
    data = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), np.eye(4)).to_bytes()  # type: ignore[no-untyped-call]
    frames = [preparer.prepare_now(data, number).pixels for number in range(1, len(voxels) + 1)]
    return np.concatenate([encoder.embed(to_batch(frame[None], encoder.card.recipe)) for frame in frames])


def store(volume: Volume, encoder: Encoder, preparer: Preparer) -> Stored:
    """The volume's slices as cases of one series."""
    facts = [
        CaseFacts(modality=volume.modality, series_uid=volume.name, instance_uid=f"{volume.name}.{number}")
        for number in range(len(volume.voxels))
    ]
    cases = tuple(Case(case_id_of(each, "", 1), each) for each in facts)
    return Stored(volume, cases, embed(volume.voxels, encoder, preparer), embed(rescaled(volume), encoder, preparer))


def questions(stored: Stored) -> Iterator[tuple[str, NDArray[np.float32], tuple[str, ...]]]:
    """What is asked: a name, the slices' embeddings, and the cases to leave out of the library meanwhile."""
    count = len(stored.cases)
    if count > 1:
        for place in sorted({int(at) for at in np.linspace(0.2 * count, 0.8 * count, HELD_OUT)}):
            yield "unseen slice", stored.vectors[place : place + 1], (stored.cases[place].case_id,)
        yield "half of the slices", stored.vectors[1::2], tuple(case.case_id for case in stored.cases[1::2])
    yield "rescaled copy", stored.rescaled, ()


async def measure(volumes: list[Stored]) -> list[Row]:
    """Asks everything in every way."""
    index = ExactIndex(volumes[0].vectors.shape[1])
    for each in volumes:
        points = zip(each.cases, each.vectors, strict=True)
        await index.upsert([Point(case.case_id, vector, to_payload(case)) for case, vector in points])
    counts: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    nobody = Case("", CaseFacts())
    for each in volumes:
        for question, vectors, hidden in questions(each):
            where: Filter = Equals("modality", each.volume.modality)
            where = And((where, Not(In("case_id", hidden)))) if hidden else where
            queries = [Query(nobody, vector) for vector in vectors]
            for name, (method, pooling) in WAYS.items():
                scope = Scope(
                    k=1, where=where, self_exclusion=SelfExclusion.NONE, grouping=Grouping.SERIES,
                    method=method, pooling=pooling,
                )  # fmt: skip
                first = (await search(index, queries, scope)).hits[0]
                is_found = first.case.facts.series_uid == each.volume.name
                counts[each.volume.modality, question, name].append(is_found)
    sizes = {modality: sum(each.volume.modality == modality for each in volumes) for modality, _, _ in counts}
    return [
        Row(modality, question, name, len(found), sum(found), sizes[modality])
        for (modality, question, name), found in counts.items()
    ]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"this benchmark needs the package {name}: pip install {name}")
    return Path(spec.submodule_search_locations[0])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--more", type=Path, action="append", default=[], metavar="FOLDER", help="more NIfTI files, MR")
    parser.add_argument("--encoder", type=Path, default=default_encoder_folder())
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    encoder = open_encoder(given.encoder)
    preparer = Preparer(Sandbox(prepare_job, workers=1), encoder.card.recipe, workers=1)
    try:
        volumes = [*of_packages(given.more), *(of_cohort() if COHORT.exists() else ())]
        stored = [store(volume, encoder, preparer) for volume in volumes]
    finally:
        preparer.close()
    for modality in sorted({each.volume.modality for each in stored}):
        chosen = [each for each in stored if each.volume.modality == modality]
        print(f"{modality}: {len(chosen)} volumes, {sum(len(each.cases) for each in chosen)} slices")
    rows = asyncio.run(measure(stored))
    print(f"{'modality':<9}{'asked with':<20}{'method':<15}{'first hit is the volume':>24}")
    for row in rows:
        share = f"{row.found} of {row.queries} ({row.found / row.queries:.0%})"
        print(f"{row.modality:<9}{row.query:<20}{row.method:<15}{share:>24}")
    if given.json:
        report = {
            "encoder": encoder.card.identity,
            "volumes": [v.name for v in volumes],
            "rows": [asdict(r) for r in rows],
        }
        given.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
