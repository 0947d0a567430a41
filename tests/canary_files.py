"""How the two canaries of the server are made: a slice and a volume of a ball in water, of nobody."""

from __future__ import annotations

import gzip
import io
import struct

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

UID = "2.25.113129840981"


def ball(side: int) -> NDArray[np.int16]:
    """(side, side, side) Hounsfield units: air, and a ball of soft tissue with a harder core."""
    axis = np.linspace(-1, 1, side)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    units: NDArray[np.int16] = np.select([radius < 0.3, radius < 0.8], [300, 40], -1000).astype(np.int16)
    return units


def dicom_canary() -> bytes:
    """Returns a CT slice of 64 x 64."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, uid.UID(f"{UID}.1")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = Dataset()
    slice_.file_meta = meta
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, f"{UID}.1"
    slice_.StudyInstanceUID, slice_.SeriesInstanceUID = f"{UID}.2", f"{UID}.3"
    slice_.Modality, slice_.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    slice_.BurnedInAnnotation = "NO"
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.Rows = slice_.Columns = 64
    slice_.BitsAllocated = slice_.BitsStored = 16
    slice_.HighBit, slice_.PixelRepresentation = 15, 1
    slice_.RescaleSlope, slice_.RescaleIntercept = 1, 0
    slice_.WindowCenter, slice_.WindowWidth = 40, 400
    slice_.PixelData = ball(64)[32].tobytes()
    written = io.BytesIO()
    dcmwrite(written, slice_, enforce_file_format=True)
    return written.getvalue()


def nifti_canary() -> bytes:
    """Returns a NIfTI-1 volume of 32 x 32 x 32 voxels of 2 mm."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 32, 32, 32, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, 2, 2, 2, 0, 0, 0, 0)
    struct.pack_into("<fff", header, 108, 352, 1, 0)
    struct.pack_into("<hh", header, 252, 0, 1)
    for row in range(3):
        struct.pack_into("<4f", header, 280 + 16 * row, *[2.0 if row == column else 0.0 for column in range(3)], 0.0)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + ball(32).tobytes(), mtime=0)
