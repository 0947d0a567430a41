"""VOI windows: which values of the anatomy fill the grey scale (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class WindowFunction(Enum):
    """VOI LUT Function (0028,1056)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class Window:
    """A window in units of the modality transform's output, for CT Hounsfield units."""

    center: float
    width: float
    function: WindowFunction = WindowFunction.LINEAR

    @property
    def is_valid(self) -> bool:
        """True where the standard defines the window: LINEAR needs a width of 1 or more, the others above 0."""
        smallest = 1.0 if self.function is WindowFunction.LINEAR else math.ulp(0.0)
        return math.isfinite(self.center) and math.isfinite(self.width) and self.width >= smallest

    @property
    def ends(self) -> tuple[float, float] | None:
        """The values at which brightness begins to rise and is full; None where it does not rise as a straight line."""
        if self.function is WindowFunction.SIGMOID or (self.function, self.width) == (WindowFunction.LINEAR, 1.0):
            return None
        if self.function is WindowFunction.LINEAR_EXACT:
            return self.center - self.width / 2.0, self.center + self.width / 2.0
        return self.center - self.width / 2.0, self.center + self.width / 2.0 - 1.0

    def __str__(self) -> str:
        return f"window {self.center:g}/{self.width:g} {self.function.value}"


@dataclass(frozen=True, slots=True)
class Range:
    """The values of an image without a window, all of which are to be seen; in units of the modality transform."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        """As those of a window."""
        return self.low, self.high

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the share of full brightness of each value; where there is one value only it is 0."""
        if self.low == self.high:
            return np.zeros_like(values)
        return (values - self.low) / (self.high - self.low)

    def __str__(self) -> str:
        return "full range, one value only" if self.low == self.high else f"full range {self.low:g} to {self.high:g}"


def apply_window(values: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """Returns the share of full brightness, 0 to 1, of each value; never falls as values rise.

    LINEAR is the pseudo-code of PS3.3 C.11.2.1.2.1, with its half-value shift and width - 1; LINEAR_EXACT is
    C.11.2.1.3.2; SIGMOID is C.11.2.1.3.1.
    """
    with np.errstate(over="ignore"):  # a width near 0 is a step, and infinity on its flanks is right
        if window.function is WindowFunction.SIGMOID:
            exponent = np.clip(-4.0 * (values - window.center) / window.width, -700.0, 700.0)
            return 1.0 / (1.0 + np.exp(exponent))
        if window.function is WindowFunction.LINEAR_EXACT:
            return _ramp(values, window.center, window.width)
        if window.width == 1.0:
            return (values > window.center - 0.5).astype(np.float64)
        return _ramp(values, window.center - 0.5, window.width - 1.0)


def _ramp(values: NDArray[np.float64], center: float, width: float) -> NDArray[np.float64]:
    share: NDArray[np.float64] = np.clip((values - center) / width + 0.5, 0.0, 1.0)
    return share
