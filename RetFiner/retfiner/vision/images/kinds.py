"""Which kind of image a file says it holds: nothing is taken for granted, and much is left open.

- Volumes of vendors hold B-scans, which is what is read of them.
- DICOM says it by its SOP class and modality, and of ophthalmic photography by the fourth value of
  its Image Type (DICOM PS3.3, C.8.17.2.1.4; ``IR`` and ``AF`` are written by devices), or, where
  there is none, by its colours. Photographs of the front of the eye say by their device what they
  are.
- A picture shows a fundus where it is coloured and :func:`shows_fundus` finds its disc; other
  pictures say nothing, and neither do arrays, and members of tar files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.vision.images.address import ImageAddress
from retfiner.vision.images.fundus import has_colours, shows_fundus
from retfiner.vision.images.image_file import translated
from retfiner.vision.images.raster import opened
from retfiner.vision.images.read_as import FUNDUS, OCT
from retfiner.vision.images.reading import DICOM, RASTER, reader_by_content, reader_of
from retfiner.vision.images.remote import url_of

if TYPE_CHECKING:
    from pydicom import Dataset

VENDORS = (".vol", ".e2e", ".img", ".fda", ".fds")
SMALL = 128
"""Pixels that the shorter side of a picture needs for its disc to be seen."""
_TAGS = ["SOPClassUID", "Modality", "ImageType", "SamplesPerPixel",
         "AcquisitionDeviceTypeCodeSequence"]  # fmt: skip
_OCT = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
_PHOTOGRAPHY = ("1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.77.1.5.2")
_BY_IMAGE_TYPE = {
    "COLOR": FUNDUS,
    "FA": "angiography",
    "ICG": "angiography",
    "IR": "infrared",
    "AF": "autofluorescence",
    "FAF": "autofluorescence",
}
_NO_FUNDUS = ("slit", "external")
"""Words for devices that take the front of the eye."""


def seen_kind(image: ImageAddress) -> str:
    """Say which kind of image a file holds, in words of the column modality; empty if it does not.

    Of a picture, no more is decoded than is needed, and nothing of one that is stored as gray.
    """
    path = image.path
    if image.is_in_tar or url_of(path) is not None:
        return ""
    reader = reader_by_content(path) or reader_of(path)
    if path.suffix.lower() in VENDORS and reader not in (DICOM, RASTER):
        return OCT
    try:
        if reader is DICOM:
            from pydicom import dcmread

            with translated(path):
                header = dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
                return kind_of_header(header)
        coloured = _colours(path) if reader is RASTER else None
    except (InputError, OSError):
        return ""  # whoever reads it says why it cannot be read
    return FUNDUS if coloured is not None and shows_fundus(coloured) else ""


def kind_of_header(header: Dataset) -> str:
    """Read the kind of image off a DICOM header; empty where it does not say it."""
    sop, modality = str(header.get("SOPClassUID") or ""), str(header.get("Modality") or "")
    if sop == _OCT or modality == "OPT":
        return OCT
    if sop not in _PHOTOGRAPHY and modality != "OP":
        return ""
    types = [str(word) for word in header.get("ImageType") or []]
    if len(types) > 3 and types[3]:
        kind = _BY_IMAGE_TYPE.get(types[3].upper(), "")
    else:
        kind = FUNDUS if header.get("SamplesPerPixel") == 3 else ""
    devices = header.get("AcquisitionDeviceTypeCodeSequence") or []
    device = " ".join(str(item.get("CodeMeaning") or "") for item in devices).casefold()
    return "" if any(word in device for word in _NO_FUNDUS) else kind


def _colours(path: Path) -> NDArray[np.uint8] | None:
    """Return a coloured picture in small, (H, W, 3); None for a gray one, or several."""
    with opened(path, path) as image:
        if image.mode not in ("P", "RGB", "RGBA", "CMYK", "YCbCr"):
            return None
        if getattr(image, "n_frames", 1) > 1:
            return None
        image.draft("RGB", (SMALL, SMALL))  # of a JPEG, no more than is needed is decoded
        picture: Image.Image = image.convert("RGB")
    few = np.asarray(picture.reduce(max(1, min(picture.size) // SMALL)))
    return few if has_colours(few) else None
