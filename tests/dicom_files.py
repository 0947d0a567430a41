"""DICOM files made on the spot, with the patient's data planted as CANARY so that a leak into a message is seen."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

CANARY = "CANARY4711"


def dicom_file(
    pixels: NDArray[Any] | None = None,
    *,
    syntax: UID = ExplicitVRLittleEndian,
    compressed: list[bytes] | None = None,
    offsets: bool = True,
    preamble: bytes = bytes(128),
    **attributes: Any,
) -> bytes:
    """Returns a file of these pixels, (rows, columns), (frames, rows, columns) or with a last axis of 3.

    Args:
        pixels: The stored values; a 4 x 4 ramp when left out.
        syntax: How the data set is written.
        compressed: One codestream a frame, in place of the native pixels.
        offsets: Whether a basic offset table is written for compressed.
        preamble: The first 128 bytes.
        attributes: By keyword; None leaves an attribute out.
    """
    pixels = np.arange(16, dtype=np.uint16).reshape(4, 4) if pixels is None else pixels
    dataset = _dataset(pixels)
    if compressed is None:
        ordered = pixels.astype(pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">"))
        dataset.PixelData = ordered.tobytes()
        dataset.PixelData += b"\0" * (len(dataset.PixelData) % 2)
    else:
        dataset.PixelData = encapsulate(compressed, has_bot=offsets)
        dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB" if compressed or pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in attributes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return written(dataset, syntax, preamble)


def written(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian, preamble: bytes = bytes(128)) -> bytes:
    """Returns the bytes of a file with this data set."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    dataset.file_meta = meta
    dataset.preamble = preamble
    out = BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """Returns the bytes with the only occurrence of old replaced."""
    assert data.count(old) == 1
    return data.replace(old, new)


def _dataset(pixels: NDArray[Any]) -> Dataset:
    is_color = pixels.ndim > 2 and pixels.shape[-1] == 3
    shape = pixels.shape[:-1] if is_color else pixels.shape
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.PatientName = f"{CANARY}^Jane"
    dataset.PatientID = CANARY
    dataset.StudyDescription = CANARY
    dataset.Modality = "CT"
    dataset.SamplesPerPixel = 3 if is_color else 1
    dataset.PhotometricInterpretation = "RGB" if is_color else "MONOCHROME2"
    if is_color:
        dataset.PlanarConfiguration = 0
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    dataset.Rows, dataset.Columns = shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    return dataset
