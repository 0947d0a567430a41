"""Encoders of volumes and CT series that are made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import dicom_file
from numpy.typing import NDArray

SIDE = 32
WHY_TORCH = "torch makes the network of this test: pip install nearcase[models]"


def tiny_checkpoint(path: Path, seed: int = 0) -> Path:
    """A file as Astra's, of a network of the same kind with one narrow block in each layer."""
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    from nearcase_models.astra.network import Astra

    torch.manual_seed(seed)
    model = Astra(tiny_architecture())
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    torch.save({"state_dict": model.state_dict(), "meta": {"source": "made for a test"}}, path)
    return path


def tiny_architecture() -> Any:
    pytest.importorskip("torch", reason=WHY_TORCH)
    from nearcase_models.astra.network import Architecture

    return Architecture(blocks=(1, 1, 1, 1), width=4, shape_voxels=(SIDE, SIDE, SIDE))


def tiny_volume_encoder(folder: Path, seed: int = 0) -> Path:
    """The folder of an encoder that takes series of CT, by the code that imports Astra."""
    checkpoint = tiny_checkpoint(folder.with_suffix(".pt"), seed)
    from nearcase_models.astra.build import import_astra

    import_astra(folder, checkpoint, architecture=tiny_architecture())
    return folder


def body(seed: int, shape: tuple[int, int, int] = (24, 40, 48)) -> NDArray[np.int16]:
    """Hounsfield units (slices, rows, columns) of a body that differs for each seed: blobs of soft tissue in air."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    voxels = np.full(shape, -1024.0)
    for _ in range(5):
        center, radius = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.2, 0.5, 3)
        inside = (((grid - center[:, None, None, None]) / radius[:, None, None, None]) ** 2).sum(0) < 1
        voxels[inside] = rng.uniform(-900, 200)
    return voxels.astype(np.int16)


def ct_series(voxels: NDArray[np.int16], patient: str, **attributes: Any) -> list[bytes]:
    """The DICOM files of a series, one for each slice along its normal; axial from the feet up unless it is said."""
    number = sum(ord(letter) * 7**place for place, letter in enumerate(patient))
    fields: dict[str, Any] = {
        "PatientID": patient,
        "StudyInstanceUID": f"1.2.3.{number}",
        "SeriesInstanceUID": f"1.2.3.{number}.1",
        "Modality": "CT",
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.8, 0.8],
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        **attributes,
    }
    row, column = np.split(np.array(fields["ImageOrientationPatient"], np.float64), 2)
    normal = np.cross(row, column)
    return [
        dicom_file(
            plane,
            SOPInstanceUID=f"{fields['SeriesInstanceUID']}.{z + 1}",
            InstanceNumber=z + 1,
            ImagePositionPatient=[float(-100 + 2.5 * z * along) for along in normal],
            **fields,
        )
        for z, plane in enumerate(voxels)
    ]


def write_files(folder: Path, files: Sequence[bytes]) -> Path:
    folder.mkdir(parents=True)
    for number, data in enumerate(files):
        (folder / f"IM{number:04}").write_bytes(data)
    return folder
