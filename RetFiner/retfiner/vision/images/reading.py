"""From an address to gray values: the one place that knows which reader reads which file."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from retfiner.common.errors import InputError
from retfiner.vision.images import e2e, topcon, vol
from retfiner.vision.images.address import ImageAddress
from retfiner.vision.images.arrays import ArchiveFile, ArrayFile
from retfiner.vision.images.dicom import DicomFile, begins_as_dicom
from retfiner.vision.images.fundus import crop_to_disc
from retfiner.vision.images.image_file import GrayImage, ImageFile, translated, unusable
from retfiner.vision.images.png import SIGNATURE
from retfiner.vision.images.raster import RasterFile
from retfiner.vision.images.read_as import FUNDUS
from retfiner.vision.images.tar import TarImage
from retfiner.vision.images.zeiss import ImgFile

RASTER_STARTS = (SIGNATURE, b"\xff\xd8\xff", b"II*\0", b"II+\0", b"MM\0*", b"MM\0+", b"BM", b"GIF8",
                 b"RIFF", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP")  # fmt: skip
"""PNG, JPEG, TIFF, bitmap and what else the name of an image may hide: Pillow goes by content."""

SHARED_STARTS = (b"BM", b"RIFF", b"PK\x03\x04")
"""Beginnings that text, videos and documents have as well: such files are images by name alone."""

HEAD = 160
"""Bytes at a file's beginning in which every kind of image shows itself."""


@dataclass(frozen=True)
class Reader:
    """How files of a kind are opened, and what they begin with, if fixed."""

    open: Callable[..., ImageFile]
    starts: tuple[bytes, ...] = ()


RASTER = Reader(RasterFile, RASTER_STARTS)
DICOM = Reader(DicomFile)

READERS: Mapping[str, Reader] = {
    **dict.fromkeys(
        (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2"), RASTER
    ),
    ".npy": Reader(ArrayFile, (b"\x93NUMPY",)),
    ".npz": Reader(ArchiveFile, (b"PK\x03\x04",)),
    ".dcm": DICOM,
    ".vol": Reader(vol.VolFile, vol.STARTS),
    ".e2e": Reader(e2e.E2EFile, e2e.STARTS),
    ".img": Reader(ImgFile),
    ".fda": Reader(topcon.TopconFile, topcon.STARTS),
    ".fds": Reader(topcon.TopconFile, topcon.STARTS),
}
"""File name suffix -> how such files are read; to read another format, add a line.

Where the suffix is none of these, or wrong, the content decides.
"""

PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zip", ".7z", ".rar")
OTHER_VOLUMES = (".nii", ".nrrd", ".mha", ".mhd", ".hdr", ".mat", ".h5", ".hdf5")
"""What is brought often and not read: files packed by themselves, and other formats of volumes."""

REMEMBERED = 4
"""Volumes each process keeps open, as far as opening them took work; never their pixels, but for
``.npz``, which can only be unpacked as a whole."""


class _Recent:
    """The volumes opened last, by path, modification time and size: a changed file is read anew."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[object, ...], ImageFile] = OrderedDict()
        self._lock = Lock()

    def get(self, address: ImageAddress, reader: Reader) -> ImageFile:
        about = address.path.stat()
        key = (
            str(address.path.absolute()),
            address.member,
            address.read_as,
            about.st_mtime_ns,
            about.st_size,
        )
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
        named = {} if address.member is None else {"member": address.member}
        with translated(address.path):
            opened = reader.open(address.path, read_as=address.read_as, **named)
        if opened.count > 1:
            with self._lock:
                self._files[key] = opened
                while len(self._files) > REMEMBERED:
                    self._files.popitem(last=False)
        return opened


_recent = _Recent()


def reader_of(path: Path) -> Reader | None:
    """Find a file's reader by its suffix, or else by its content; None if it is of no kind."""
    return READERS.get(path.suffix.lower()) or reader_by_content(path)


def reader_by_content(path: Path) -> Reader | None:
    """Find a file's reader by what it begins with, whatever its name."""
    try:
        if not path.is_file():  # opening a named pipe would wait for ever
            return None
        with path.open("rb") as file:
            start = file.read(HEAD)
    except (OSError, ValueError):  # the latter: a name that no file can have
        return None
    if begins_as_dicom(start):
        return DICOM
    begun = (r for r in READERS.values() if start.startswith(r.starts))
    return None if start.startswith(SHARED_STARTS) else next(begun, None)


def unknown_kind(path: Path) -> InputError:
    """Make the error for a file that no reader reads."""
    *before, last = ["", *path.suffixes]
    is_packed = last.lower() in PACKED
    kind = before[-1].lower() if is_packed else last.lower()
    remedy = "unpack it" if is_packed else "convert it to PNG, or a volume to .npy or a TIFF stack"
    if kind == ".tar" and not is_packed:
        remedy = f"name an image in it: {path.name}#scan.png; or unpack it"
    if kind in OTHER_VOLUMES:
        remedy = "save the volume as .npy, (B-scans, depth, A-scans), or as a TIFF stack"
    return InputError(
        f"{path} is no image of a known kind",
        got=f"{before[-1]}{last}" if is_packed else last or "no suffix",
        expected=", ".join(READERS),
        remedy=remedy,
    )


def is_image_file(path: Path) -> bool:
    """Say whether a path is a file that :func:`read_image` would try to read."""
    return path.is_file() and reader_of(path) is not None


def list_image_files(folder: Path) -> list[Path]:
    """List the image files in a folder and below, in order, without hidden ones and DICOMDIR."""
    return sorted(
        path
        for path in folder.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.name.upper() != "DICOMDIR"
        and is_image_file(path)
    )


def open_images(image: ImageAddress | Path | str) -> ImageFile:
    """Open an address's file, or take it from the few volumes this process has opened last.

    Raises:
        InputError: If it is missing, of another kind, or broken.
    """
    address = image if isinstance(image, ImageAddress) else ImageAddress.parse(image)
    path = address.path
    if address.is_in_tar:
        return TarImage(path, str(address.member), address.read_as)
    reader = reader_of(path)
    if reader is None:
        raise unknown_kind(path)
    try:
        if not path.is_file():
            raise InputError(f"There is no image at {path}", expected="a file")
        try:
            return _recent.get(address, reader)
        except InputError:
            other = reader_by_content(path)
            if other in (None, reader):
                raise
            return _recent.get(address, other)
    except OSError as error:  # gone, or no longer to be read, since it was looked for
        raise unusable(path, error.strerror or str(error), "a file that can be read") from error


def read_image(image: ImageAddress | Path | str) -> GrayImage:
    """Read a B-scan as gray values.

    Args:
        image: ``scan.png``, or ``scan.e2e#12`` for B-scan 12, from 0, of a volume. Raster images
            (PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000), arrays (NPY, NPZ), DICOM, and the volumes
            of Heidelberg (VOL, E2E), Zeiss (IMG) and Topcon (FDA, FDS): each reader's module says
            how it scales.

    Returns:
        (H, W) float32 in [0, 1], scaled by bit depth, never by the image's own range; of a fundus
        photograph that is named as one, ``scan.jpg#modality=fundus``, (S, S, 3).

    Raises:
        VolumeError: If the file holds several B-scans and no index is given.
        InputError: If the file is missing, of another kind or broken, or has no such B-scan.
    """
    address = image if isinstance(image, ImageAddress) else ImageAddress.parse(image)
    file = open_images(address)
    shown = file.read(file.place(address.index))
    return crop_to_disc(shown) if address.read_as.modality == FUNDUS else shown


def count_images(image: ImageAddress | Path | str) -> int:
    """Return how many images a file holds, which is opened for it."""
    return open_images(image).count


def iter_images(image: ImageAddress | Path | str) -> Iterator[GrayImage]:
    """Read all images of a file in order, one in memory at a time.

    An ``.npz`` archive is the exception: it can only be unpacked as a whole.

    Yields:
        (H, W) float32 in [0, 1].

    Raises:
        InputError: If the file or an image in it cannot be read.
    """
    yield from open_images(image)
