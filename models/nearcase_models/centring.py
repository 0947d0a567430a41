"""The mean that the default encoder's features are centred on, fitted on real images inside packages.

None of these images is in the demo (pydicom-data, pydicom) or in an evaluation. Files are read from the installed
packages without importing them, and each is held to its SHA-256: the same files give the same mean. Every source weighs
the same, whatever its number of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage

from nearcase.encode.preprocess import Recipe, normalise, resize
from nearcase_models.lite0 import Lite0

Frames = Iterator[NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file inside an installed package, and how its frames are read."""

    package: str
    version: str
    path: str
    sha256: str
    read: Callable[[Path], Frames]


@dataclass(frozen=True, slots=True)
class Source:
    """Images of one kind, which together weigh as much as any other source."""

    name: str
    licence: str
    files: tuple[SourceFile, ...]


def fit_mean(model: Lite0, recipe: Recipe) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Returns the (D,) mean of the sources' mean features, and how many images each source gave.

    Raises:
        ValueError: A package is absent, has another version, or its file differs.
    """
    means: list[NDArray[np.float64]] = []
    counts: dict[str, int] = {}
    for source in SOURCES:
        frames = [resize(frame, recipe) for file in source.files for frame in file.read(locate(file))]
        with torch.inference_mode():
            features = model.pooled(torch.from_numpy(normalise(np.stack(frames), recipe)))
        means.append(features.numpy().astype(np.float64).mean(axis=0))
        counts[source.name] = len(frames)
    return np.mean(means, axis=0).astype(np.float32), counts


def locate(file: SourceFile) -> Path:
    """Returns where an installed package holds the file, once its bytes are the expected ones."""
    try:
        package = distribution(file.package)
    except PackageNotFoundError as error:
        raise ValueError(f"Expected {file.package} {file.version} to be installed") from error
    path = Path(str(package.locate_file(file.path)))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != file.sha256:
        raise ValueError(f"Expected {file.package} {file.version} with {file.path} {file.sha256}, got {found}")
    return path


def _picture(path: Path) -> Frames:
    with PillowImage.open(BytesIO(path.read_bytes())) as picture:
        yield np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))


def _volume(low: float, high: float, axes: tuple[int, ...]) -> Callable[[Path], Frames]:
    """Reads slices at 35, 50 and 65 % along the axes (0 sagittal, 1 coronal, 2 axial), windowed from low to high."""

    def read(path: Path) -> Frames:
        volume = nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[no-untyped-call]  # nibabel's own types stop here
        voxels = np.asarray(volume.dataobj, np.float64)
        voxels = voxels[..., 0] if voxels.ndim == 4 else voxels
        for axis in axes:
            for share in (0.35, 0.5, 0.65):
                yield _window(np.rot90(np.take(voxels, int(share * voxels.shape[axis]), axis=axis)), low, high)

    return read


def _dicom(low: float, high: float, *frames: int) -> Callable[[Path], Frames]:
    """Reads frames, counted from 1, windowed from low to high stored values; colour as RGB."""

    def read(path: Path) -> Frames:
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array  # pydicom turns YBR into RGB here
        stack = pixels if int(dataset.get("NumberOfFrames", 1)) > 1 else pixels[None]
        for number in frames:
            yield _window(stack[number - 1].astype(np.float64), low, high)

    return read


def _window(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    return np.rint(np.clip((values - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8)


SOURCES: tuple[Source, ...] = (
    Source(
        "MR of the head, template: MNI ICBM152 T1",
        "MNI ICBM152 licence: use, copy, modify and distribute with the notice of McConnell Brain Imaging Centre",
        (
            SourceFile(
                "nilearn",
                "0.14.1",
                "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
                "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
                _volume(0.0, 255.0, axes=(0, 1, 2)),
            ),
        ),
    ),
    Source(
        "MR of the head, single persons: nibabel test volumes",
        "MIT and PDDL 1.0",
        (
            SourceFile(
                "nibabel",
                "5.4.2",
                "nibabel/tests/data/anatomical.nii",
                "1c089f37b6597a38bb4157a1e1b3f7f13f1bc9d4e7a8cfdfaf91d85cd8f66594",
                _volume(0.0, 12700.0, axes=(2,)),
            ),
            SourceFile(
                "nibabel",
                "5.4.2",
                "nibabel/tests/data/example4d.nii.gz",
                "42097dfbab9d2a036b41ae5c97a359591cf2cf5c3f8dc6ca6455c0b8a7f22696",
                _volume(0.0, 700.0, axes=(2,)),
            ),
        ),
    ),
    Source(
        "CT of the head, atlas: TotalSegmentator",
        "Apache-2.0",
        (
            SourceFile(
                "totalsegmentator",
                "2.18.0",
                "totalsegmentator/resources/ct_brain_atlas_1mm.nii.gz",
                "e6964149f62ae88b9973cec43ed80974368a24c922ff8b62d946e7c855eae265",
                _volume(0.0, 80.0, axes=(0, 1, 2)),  # the usual brain window, centre 40 width 80 HU
            ),
        ),
    ),
    Source(
        "Radiograph, of a cat: deid-data",
        "MIT",
        (
            SourceFile(
                "deid-data",
                "0.0.20",
                "deid_data/data/animals/cat.dcm",
                "b59cc9078961c4b377a8e03d5efec84902b4c5375aa7590c862c3afa579f27d0",
                _dicom(0.0, 4095.0, 1),
            ),
        ),
    ),
    Source(
        "Ultrasound, echocardiogram: deid-data",
        "MIT",
        (
            SourceFile(
                "deid-data",
                "0.0.20",
                "deid_data/data/ultrasounds/ultrasound-multiframe.dcm",
                "69e1c7c1165ad829a682417ffbc664fb91cd11afe842aa5fb9145b9ba67309c4",
                _dicom(0.0, 255.0, 1, 11, 21),
            ),
        ),
    ),
    Source(
        "Fundus: scikit-image retina and microaneurysms",
        "CC0 1.0",
        (
            SourceFile(
                "scikit-image",
                "0.26.0",
                "skimage/data/retina.jpg",
                "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
                _picture,
            ),
            SourceFile(
                "scikit-image",
                "0.26.0",
                "skimage/data/microaneurysms.png",
                "a1e1be59aa447f8ce082f7fa809997ab369a2b137cb6c4202abc647c7ccf6456",
                _picture,
            ),
        ),
    ),
    Source(
        "Histology, immunohistochemistry: scikit-image",
        "no known copyright restrictions",
        (
            SourceFile(
                "scikit-image",
                "0.26.0",
                "skimage/data/ihc.png",
                "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
                _picture,
            ),
        ),
    ),
)
