"""An fp32 ONNX network -> int8 for the CPU: weights by channel, activations calibrated on real images.

Convolutions and matrix products are quantized, with the values between them; lengths, sums and norms stay in fp32.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from nearcase.errors import InvalidInput

_PRODUCTS = ("Conv", "MatMul", "Gemm")
LEAST_CALIBRATION = 8


def quantize(model: onnx.ModelProto, batches: Sequence[NDArray[np.float32]]) -> onnx.ModelProto:
    """Returns the network in int8, with QuantizeLinear and DequantizeLinear around what is quantized.

    Args:
        model: In fp32.
        batches: Inputs of one real image each, for the ranges of the activations.

    Raises:
        InvalidInput: There are too few images, or onnxruntime can not quantize the network.
    """
    if len(batches) < LEAST_CALIBRATION:
        raise InvalidInput(f"expected {LEAST_CALIBRATION} or more images to calibrate with, got {len(batches)}")
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.getLogger("root").setLevel(logging.ERROR)  # it tells of its own settings there
    with tempfile.TemporaryDirectory(prefix="nearcase-int8-") as folder:
        given, ready, made = (Path(folder) / name for name in ("given.onnx", "ready.onnx", "made.onnx"))
        onnx.save(model, given)
        try:
            quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(made),
                _Reader(iter(batches)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_PRODUCTS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        except Exception as error:  # its error types share no base class
            message = f"expected a network that onnxruntime can quantize, got: {' '.join(str(error).split())[:200]}"
            raise InvalidInput(message) from error
        return onnx.load(made)


class _Reader:
    """What onnxruntime calls a CalibrationDataReader."""

    def __init__(self, batches: Iterator[NDArray[np.float32]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Returns the next input, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}
