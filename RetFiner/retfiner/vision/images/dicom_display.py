"""From a DICOM image's stored values to gray values, the standard's way (PS3.3 C.11).

Values are rescaled by slope and intercept or the modality table, then shown through the file's own
VOI window or table. Where there is none, the range that the stored bits can express is [0, 1]:
never the image's own. In enhanced multi-frame files, each frame's own slope and window are used.
"""

import math
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfiner.vision.images.image_file import GrayImage, unusable

_PER_FRAME = {
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
}
"""What a frame may have of its own -> the sequence that holds it."""
_PER_FILE = (
    "PhotometricInterpretation",
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
)
_NEVER_ZERO = ("RescaleSlope", "WindowWidth")
_NUMBERS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")


def frame_settings(header: Any, index: int, path: Path) -> Any:
    """Gather what scales a frame: its own settings, else those of all frames, else the file's.

    A slope or a window of 0, common placeholders, count as none.

    Raises:
        InputError: If a number among them is none.
    """
    from pydicom.dataset import Dataset

    settings = Dataset()
    settings.file_meta = header.file_meta  # tells the byte order of tables
    for name in _PER_FILE:
        if name in header:
            settings[name] = copy(header[name])  # not to be tidied in the header
    groups = list(header.get("SharedFunctionalGroupsSequence") or [])
    groups += list(header.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    for group in groups:
        for name, sequence in _PER_FRAME.items():
            items = list(group.get(sequence) or [])
            if items and name in items[0]:
                settings[name] = copy(items[0][name])
    for name in _NUMBERS:
        _tidy_number(settings, name, path)
    for name in _NEVER_ZERO:
        if settings.get(name) == 0:
            delattr(settings, name)
    return settings


def placeholders(header: Any, settings: Any) -> list[str]:
    """Name the settings of a file that count as none."""
    return [name for name in _NEVER_ZERO if header.get(name) == 0 and name not in settings]


def _tidy_number(settings: Any, name: str, path: Path) -> None:
    """Keep the first of several numbers, with a point where it was written with a comma."""
    value = settings.get(name)
    if value is not None and not isinstance(value, str | int | float):  # several, or Decimal
        value = next(iter(value), None) if hasattr(value, "__iter__") else float(value)
    if value is None or value == "":
        if name in settings:
            delattr(settings, name)
        return
    text = str(value).strip()
    text = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    try:
        is_number = math.isfinite(float(text))
    except ValueError:
        is_number = False
    if not is_number:
        raise unusable(path, f"{name} {text[:20]!r}", "a number")
    setattr(settings, name, text if isinstance(value, str) and len(text) <= 16 else value)


def has_window(settings: Any) -> bool:
    """Say whether there is a window or table to show values through."""
    window = (settings.get("WindowCenter"), settings.get("WindowWidth"))
    return None not in window or bool(settings.get("VOILUTSequence"))


def windowed(values: NDArray[Any], settings: Any) -> GrayImage:
    """Rescale stored values and show them through the file's window, as (H, W) in [0, 1]."""
    from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

    darkest, brightest = _range(settings)
    values = apply_modality_lut(values, settings)
    if settings.get("VOILUTSequence"):
        bits = settings.VOILUTSequence[0].LUTDescriptor[2]
        return fraction(apply_voi(values, settings), 0, 2**bits - 1)
    if has_window(settings):
        # pydicom spreads the window over the range of the stored bits, in this order.
        return fraction(apply_windowing(values, settings), darkest, brightest)
    return fraction(values, min(darkest, brightest), max(darkest, brightest))


def _range(settings: Any) -> tuple[float, float]:
    """Return what the lowest and the highest value that can be stored mean, after rescaling."""
    if settings.get("ModalityLUTSequence"):
        return 0.0, float(2 ** settings.ModalityLUTSequence[0].LUTDescriptor[2] - 1)
    bits = settings.BitsStored
    low, high = (0, 2**bits - 1)
    if settings.PixelRepresentation:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if settings.get("RescaleSlope") is None or settings.get("RescaleIntercept") is None:
        return float(low), float(high)
    slope, intercept = float(settings.RescaleSlope), float(settings.RescaleIntercept)
    return low * slope + intercept, high * slope + intercept


def fraction(values: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Map [low, high] to [0, 1]."""
    if high == low:
        raise ValueError(f"an intensity range from {low} to {high}")
    is_short = values.dtype.itemsize <= 2  # float32 holds such integers exactly
    exact = values.astype(np.float32) if is_short else values.astype(np.float64)
    return ((exact - low) / (high - low)).clip(0, 1).astype(np.float32, copy=False)
