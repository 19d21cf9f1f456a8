"""DICOM images and multi-frame B-scan volumes, through pydicom.

Values go the standard's way (PS3.3 C.11): decoded, rescaled by slope and intercept or the modality
table, then through the file's own VOI window or table. Where there is none, the range that the
stored bits can express is [0, 1]: never the image's own. MONOCHROME1 is inverted; colour becomes
luma. In enhanced multi-frame files, each frame's own slope and window are used.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfiner.common.errors import InputError
from retfiner.vision.images.image_file import (
    GrayImage,
    ImageFile,
    require_size,
    to_luma,
    translated,
    unit_floats,
    unusable,
)

MARK_AT, MARK = 128, b"DICM"

DECODERS = {
    "1.2.840.10008.1.2.4.50": "pillow",
    "1.2.840.10008.1.2.4.51": "pillow",
    "1.2.840.10008.1.2.4.57": "python-gdcm",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg pylibjpeg-openjpeg",
}
"""Compressed transfer syntax -> what to install to decode it; none of them under the GPL."""

_PER_FRAME = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}
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


def has_mark(path: Path) -> bool:
    """Say whether a file carries DICOM's mark, whatever its name."""
    try:
        if not path.is_file():  # opening a named pipe would wait for ever
            return False
        with path.open("rb") as file:
            return file.read(MARK_AT + len(MARK))[MARK_AT:] == MARK
    except (OSError, ValueError):  # the latter: a name that no file can have
        return False


class DicomFile(ImageFile):
    """A DICOM file; only the frame that is wanted is decoded.

    Raises:
        InputError: If it is no DICOM image, or no installed package decodes its transfer syntax.
    """

    intact = "an intact DICOM image"

    def __init__(self, path: Path) -> None:
        from pydicom import dcmread
        from pydicom.filereader import read_file_meta_info
        from pydicom.pixels.utils import get_nr_frames

        with translated(path, "an intact DICOM file"):
            # Read before the file itself: a deflated one would be unpacked at once.
            _require_decoder(path, read_file_meta_info(path).TransferSyntaxUID)
            self._header = dcmread(path, stop_before_pixels=True)
            if "Rows" not in self._header:
                raise unusable(path, "a DICOM file without an image", "an image")
            count = get_nr_frames(self._header, warn=False)
            require_size(path, count, self._header.Rows, self._header.Columns)
            _require_length(path, self._header)
        super().__init__(path, count)

    def _decode(self, index: int) -> GrayImage:
        from pydicom.pixels import apply_color_lut, pixel_array

        values = pixel_array(self.path, index=index)
        photometric = str(self._header.PhotometricInterpretation)
        if photometric == "PALETTE COLOR":
            values = apply_color_lut(values, self._header)
            return to_luma(_fraction(values, 0, np.iinfo(values.dtype).max))
        if values.ndim == 3:
            return to_luma(_fraction(values, 0, 2**self._header.BitsStored - 1))
        if np.issubdtype(values.dtype, np.floating):  # Float Pixel Data has no bits to scale by
            return unit_floats(values, self.path)
        gray = _windowed(values, _frame_settings(self._header, index))
        return np.float32(1) - gray if photometric == "MONOCHROME1" else gray


def _require_decoder(path: Path, syntax: Any) -> None:
    from pydicom.pixels import get_decoder

    try:
        # Deflated files, reports as a rule, can claim any size; there is no bound to unpacking.
        is_available = get_decoder(syntax).is_available and not syntax.is_deflated
    except NotImplementedError:
        is_available = False  # video, for example
    if is_available:
        return
    package = DECODERS.get(syntax)
    raise InputError(
        f"The image {path} is compressed in a way that no installed package decodes",
        got=f"transfer syntax {syntax.name} ({syntax})",
        expected="uncompressed values, or RLE, JPEG, JPEG-LS or JPEG 2000",
        remedy=f"pip install {package}" if package else "write it anew, uncompressed",
    )


def _require_length(path: Path, header: Any) -> None:
    """Notice a cut file by its size, where values are stored as they are."""
    from pydicom.pixels.utils import get_expected_length

    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        return
    needed, size = get_expected_length(header), path.stat().st_size
    if size < needed:
        raise unusable(path, f"{size:,} bytes: the file is cut", f"{needed:,} bytes of pixels")


def _frame_settings(header: Any, index: int) -> Any:
    """Gather what scales a frame: its own settings, else those of all frames, else the file's."""
    from pydicom.dataset import Dataset

    settings = Dataset()
    settings.file_meta = header.file_meta  # tells the byte order of tables
    for name in _PER_FILE:
        if name in header:
            settings[name] = header[name]
    groups = list(header.get("SharedFunctionalGroupsSequence") or [])
    groups += list(header.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    for group in groups:
        for sequence, names in _PER_FRAME.items():
            for item in list(group.get(sequence) or [])[:1]:
                for name in names:
                    if name in item:
                        settings[name] = item[name]
    return settings


def _windowed(values: NDArray[Any], settings: Any) -> GrayImage:
    """Rescale stored values and show them through the file's window, as (H, W) in [0, 1]."""
    from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

    darkest, brightest = _range(settings)
    values = apply_modality_lut(values, settings)
    if settings.get("VOILUTSequence"):
        bits = settings.VOILUTSequence[0].LUTDescriptor[2]
        return _fraction(apply_voi(values, settings), 0, 2**bits - 1)
    if settings.get("WindowCenter") is not None and settings.get("WindowWidth") is not None:
        # pydicom spreads the window over the range of the stored bits, in this order.
        return _fraction(apply_windowing(values, settings), darkest, brightest)
    return _fraction(values, min(darkest, brightest), max(darkest, brightest))


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


def _fraction(values: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Map [low, high] to [0, 1]."""
    if high == low:
        raise ValueError(f"an intensity range from {low} to {high}")
    is_short = values.dtype.itemsize <= 2  # float32 holds such integers exactly
    exact = values.astype(np.float32) if is_short else values.astype(np.float64)
    return ((exact - low) / (high - low)).clip(0, 1).astype(np.float32, copy=False)
