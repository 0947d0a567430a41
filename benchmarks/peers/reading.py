"""From the bytes of a DICOM file to the network's input, as pydicom's own documentation shows it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, convert_color_space

from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.encode.preprocess import Recipe

ENCODER = Path(os.environ.get("PEER_ENCODER") or default_encoder_folder())


def recipe() -> Recipe:
    """Returns the size, mean and deviation that the network was trained with."""
    found = read_card(ENCODER).recipe
    assert isinstance(found, Recipe)  # noqa: S101
    return found


def read(data: bytes, wanted: Recipe) -> NDArray[np.float32]:
    """Returns (1, 3, size, size)."""
    dataset = dcmread(io.BytesIO(data))
    values = dataset.pixel_array
    if dataset.get("NumberOfFrames", 1) > 1:
        values = values[len(values) // 2]
    if dataset.SamplesPerPixel == 3:
        if dataset.PhotometricInterpretation.startswith("YBR_FULL"):
            values = convert_color_space(values, dataset.PhotometricInterpretation, "RGB")
    else:
        values = apply_voi_lut(apply_modality_lut(values, dataset), dataset)
        low, high = float(values.min()), float(values.max())
        values = ((values - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            values = 255 - values
    size = (wanted.size_px, wanted.size_px)
    picture = Image.fromarray(values.astype(np.uint8)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
    scaled = np.asarray(picture, np.float32) / 255
    normal = (scaled - np.asarray(wanted.mean, np.float32)) / np.asarray(wanted.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32)


def session() -> onnxruntime.InferenceSession:
    """Returns the network with the options that nearcase runs it with: one thread, no spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(ENCODER / "encoder.onnx"), options, providers=["CPUExecutionProvider"])
