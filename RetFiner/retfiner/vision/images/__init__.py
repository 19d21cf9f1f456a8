"""Reading images: from a file, or a place in one, to gray values in [0, 1].

Each module reads a family of formats and says what its values mean; ``reading.py`` lists them.
Heavy packages are imported when a file needs them.
"""

from retfiner.vision.images.address import ImageAddress
from retfiner.vision.images.image_file import ImageFile, Note, VolumeError
from retfiner.vision.images.read_as import AS_SAID, ReadAs
from retfiner.vision.images.reading import (
    READERS,
    count_images,
    is_image_file,
    iter_images,
    list_image_files,
    open_images,
    read_image,
)
from retfiner.vision.images.sniff import why_unusable

__all__ = [
    "AS_SAID",
    "READERS",
    "ImageAddress",
    "ImageFile",
    "Note",
    "ReadAs",
    "VolumeError",
    "count_images",
    "is_image_file",
    "iter_images",
    "list_image_files",
    "open_images",
    "read_image",
    "why_unusable",
]
