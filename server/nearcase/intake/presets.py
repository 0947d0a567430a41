"""Windows that a person chooses: by the name of a CT preset, by number among the file's own, or by center and width."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from nearcase.errors import InvalidInput
from nearcase.intake.elements import frame_macro, text
from nearcase.intake.windows import Window, WindowFunction

FIRST = "first"
"""The choice that leaves the file's own first window or VOI LUT in force."""

CT_WINDOWS = {
    "abdomen": Window(50.0, 400.0),
    "bone": Window(400.0, 1800.0),
    "brain": Window(40.0, 80.0),
    "liver": Window(30.0, 150.0),
    "lung": Window(-600.0, 1500.0),
    "mediastinum": Window(50.0, 350.0),
    "soft-tissue": Window(40.0, 400.0),
    "spine": Window(50.0, 250.0),
    "stroke": Window(40.0, 40.0),
    "subdural": Window(75.0, 215.0),
    "temporal-bone": Window(600.0, 2800.0),
}
"""Center and width in Hounsfield units, from the article "Windowing (CT)" of Radiopaedia.org.

It gives ranges for soft tissue (width 350 to 400, level 20 to 60) and subdural (130 to 300, 50 to 100): the commonest
pair and the middles are taken. Presets are for looking at an image; no encoder is fed with them.
"""

_NUMBER = r"[+-]?[0-9]{1,7}(?:\.[0-9]{1,6})?"
_CENTER_AND_WIDTH = re.compile(rf"({_NUMBER})/({_NUMBER})")


def parse_window(words: str) -> Window | int:
    """Returns the window that the words give, or the place, from 1, among those of the file.

    Args:
        words: "first", a place such as "2", a name of CT_WINDOWS, or "center/width" such as "-600/1500".

    Raises:
        InvalidInput: The words are none of these, or the width is below 1.
    """
    name = words.strip().lower().replace(" ", "-").replace("_", "-")
    if name == FIRST:
        return 1
    if name in CT_WINDOWS:
        return CT_WINDOWS[name]
    if re.fullmatch("[0-9]{1,3}", name) and int(name) > 0:
        return int(name)
    found = _CENTER_AND_WIDTH.fullmatch(name)
    if found and (window := Window(float(found[1]), float(found[2]))).is_valid:
        return window
    raise _wrong(f"expected a window as first, a number from 1, center/width or one of {', '.join(CT_WINDOWS)}")


def window_for(dataset: Dataset, frame_number: int, words: str) -> Window | None:
    """Returns the chosen window of one frame; None leaves the file's own first window or VOI LUT in force.

    Window Center and Window Width may have several values, alternative views of the same image (PS3.3 C.11.2.1.2),
    those of the frame before those of the object (C.7.6.16.2.10).

    Raises:
        InvalidInput: The words are no window, the file has fewer, or a CT preset is asked of another modality: its
            values are not in Hounsfield units.
    """
    choice = parse_window(words)
    if words.strip().lower() == FIRST:
        return None
    if isinstance(choice, int):
        return _of_file(dataset, frame_number, choice)
    if not _CENTER_AND_WIDTH.fullmatch(words.strip()) and text(dataset, "Modality").upper() != "CT":
        raise _wrong(f"expected a CT image for the window {words.strip().lower()}, got another modality")
    return choice


def _of_file(dataset: Dataset, frame_number: int, place: int) -> Window:
    group = frame_macro(dataset, "FrameVOILUTSequence", frame_number)
    source = dataset if group is None else group
    centers, widths = _numbers(source, "WindowCenter"), _numbers(source, "WindowWidth")
    count = min(len(centers), len(widths))
    if place > count:
        raise _wrong(f"expected a window from 1 to {count}, got {place}" if count else "the file has no window")
    name = text(source, "VOILUTFunction").upper()
    function = WindowFunction[name] if name in WindowFunction.__members__ else WindowFunction.LINEAR
    window = Window(centers[place - 1], widths[place - 1], function)
    if not window.is_valid:
        raise _wrong(f"expected a window that the standard defines, the file's {window} is none")
    return window


def _numbers(source: Dataset, keyword: str) -> list[float]:
    value: object = source.get(keyword)
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    try:
        return [float(str(each)) for each in values if each not in (None, "")]
    except ValueError:
        raise InvalidInput(
            f"expected numbers as {keyword}, got something else", reason="BAD_ATTRIBUTE", field=keyword
        ) from None


def _wrong(message: str) -> InvalidInput:
    return InvalidInput(message, field="window")
