"""JPEG 2000 and HTJ2K frames decoded at a half, a quarter ... of their size: the finer wavelet levels are left out.

OpenJPEG by way of Pillow, which can leave levels out; imagecodecs decodes whole frames only. A halved film costs a
quarter.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from nearcase.intake.codestream import Codestream


def halvings_for(stream: Codestream, most: int) -> int:
    """Returns how often a grey frame can be halved, at most so often; 0 where only the whole frame is right.

    Pillow expects sizes rounded to the nearest, the standard rounds up (T.800 B.15): a level where they differ is
    passed over.
    """
    if stream.components != 1 or not 1 <= stream.precision <= 16:
        return 0
    fitting = (count for count in range(min(most, stream.levels), 0, -1) if _sizes_agree(stream, count))
    return next(fitting, 0)


def decode_halved(codestream: bytes, stream: Codestream, halvings: int) -> NDArray[Any]:
    """Returns the values of a frame halved so often, of the codestream's own precision and sign.

    There is one more row and column than there are samples, copies of the last: halved frames begin half a sample late
    (reduction.frame_box), so the frame ends beyond its last sample.

    Raises:
        OSError: The codestream is damaged, or some part of it has fewer levels than its header says.
    """
    with PIL.Image.open(BytesIO(codestream), formats=("JPEG2000",)) as opened:
        if not isinstance(opened, Jpeg2KImageFile):
            raise OSError("expected JPEG 2000")
        opened.reduce = halvings
        opened.load()
        values = np.asarray(opened)
    if values.shape != (_halved(stream.rows, halvings), _halved(stream.columns, halvings)):
        raise OSError("expected a frame of another size")
    values = np.pad(values, (0, 1), mode="edge")
    container_bits = 8 * values.dtype.itemsize
    values = values >> (container_bits - stream.precision)  # Pillow fills the container from its top
    if not stream.is_signed:
        return values
    return (values.astype(np.int32) - (1 << stream.precision - 1)).astype(f"i{values.dtype.itemsize}")


def _halved(length: int, halvings: int) -> int:
    return -(-length >> halvings)


def _sizes_agree(stream: Codestream, halvings: int) -> bool:
    half = 1 << halvings - 1
    return all(side + half >> halvings == _halved(side, halvings) for side in (stream.rows, stream.columns))
