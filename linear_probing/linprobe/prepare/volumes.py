"""One B-scan as 8-bit gray values, from an image file or a volume of MATLAB, NumPy or MetaImage.

Volumes that can only be unpacked as a whole (MATLAB, NumPy archives) are kept one at a time a
process, so that writing all B-scans of one unpacks it once. All errors name the file.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linprobe.prepare.spec import GrayImage, Slices
from retfiner.common.errors import InputError

Shape = tuple[int, ...]

_BROKEN = (ArithmeticError, EOFError, LookupError, MemoryError, OSError, TypeError, ValueError,
           RuntimeError, zipfile.BadZipFile, zlib.error)  # fmt: skip
_AGAIN = "download it again"
_FUNDUS = re.compile(r"(?<![a-z])(fundus|c?slo|ir|infrared|en[- _]?face)(?![a-z])", re.IGNORECASE)
"""What an image beside B-scans is called that is none."""


def read_gray(path: Path) -> GrayImage:
    """Read an image file: (H, W), 8 bit; 16 bits are scaled to 8, colour becomes luma.

    Raises:
        InputError: If it cannot be read, or holds several images.
    """
    from retfiner.vision import ImageAddress, read_image  # delayed: it needs torch

    return np.rint(read_image(ImageAddress(path)) * np.float32(255)).astype(np.uint8)


def slices_of_images(folder: Path, paths: Sequence[PurePosixPath]) -> Slices:
    """Take image files, in their order, for the B-scans of a volume."""
    return [(str(path), partial(read_gray, folder / path)) for path in paths]


def without_fundus(folder: Path, paths: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """Leave out the images beside the B-scans of a volume: fundus photographs and overviews.

    They are called so, or are of another size than the two thirds or more that are of one.
    """
    sizes = {path: _size_of(folder / path) for path in paths if not _FUNDUS.search(path.stem)}
    counts = Counter(size for size in sizes.values() if size is not None)
    usual, n = max(counts.items(), key=lambda item: item[1], default=(None, 0))
    if 3 * n < 2 * counts.total():
        return list(sizes)
    return [path for path, size in sizes.items() if size in (None, usual)]


def _size_of(path: Path) -> tuple[int, int] | None:
    """Read width and height off an image's header; None where that fails: reading will say why."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (*_BROKEN, SyntaxError, Image.DecompressionBombError):
        return None


def as_gray(values: NDArray[Any], where: str) -> GrayImage:
    """Take (H, W) values, which errors call ``where``, as 8-bit gray values.

    Bytes, or other numbers that are whole and from 0 to 255; floats in [0, 1] are scaled by 255.

    Raises:
        InputError: If they are anything else.
    """
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    got = f"{values.dtype} of shape {values.shape}, or values that are no numbers"
    if values.dtype.kind in "iuf" and values.size and np.isfinite(values).all():
        low, high = values.min(), values.max()
        if low >= 0 and high <= 255 and (values == np.rint(values)).all():
            return values.astype(np.uint8)
        if low >= 0 and high <= 1:
            return np.rint(values * 255).astype(np.uint8)
        got = f"{values.dtype} from {low} to {high}"
    raise InputError(
        f"{where}: values that are no 8-bit gray values",
        got=got,
        expected="bytes, whole numbers from 0 to 255, or floats in [0, 1]",
        remedy="convert the volume: how it is to be scaled cannot be guessed",
    )


# ---- MATLAB and NumPy archives


def mat_shape(path: Path, variable: str) -> Shape:
    """Tell the shape of a variable in a MATLAB file from its header.

    Raises:
        InputError: If the file is of version 7.3 or damaged, or has no such variable.
    """
    from scipy.io import whosmat

    found = {name: shape for name, shape, _ in _opened(path, partial(whosmat, str(path)))}
    if variable not in found:
        got = ", ".join(sorted(found)) or "other variables"
        raise InputError(f"{path} has no {variable}", got=got, expected=variable, remedy=_AGAIN)
    return tuple(found[variable])


def npz_shapes(path: Path) -> dict[str, Shape]:
    """Tell the shapes of the arrays of a NumPy archive, by name, from their headers.

    Arrays of Python objects are left out, and never unpickled.

    Raises:
        InputError: If the archive is damaged.
    """
    from retfiner.vision.images.arrays import read_archive_headers  # delayed: it needs torch

    headers = read_archive_headers(path)
    return {name: array.shape for name, array in headers.items() if not array.dtype.hasobject}


def read_slice(path: Path, name: str, axis: int, index: int) -> GrayImage:
    """Read one B-scan, (H, W), of the volume ``name`` in a ``.mat`` file or ``.npz`` archive.

    ``axis`` is the one of its three that counts B-scans, from 0.

    Raises:
        InputError: If the file cannot be read or the values are no gray values.
    """
    scan = _opened(path, lambda: read_array(path, name, path.stat().st_mtime_ns).take(index, axis))
    return as_gray(scan, f"{path}, {name}, B-scan {index}")


def slices_of_volume(folder: Path, path: PurePosixPath, name: str, axis: int, n: int) -> Slices:
    """List the ``n`` B-scans of a volume for :func:`read_slice`, unread."""
    return [(f"{path}#{k}", partial(read_slice, folder / path, name, axis, k)) for k in range(n)]


@lru_cache(maxsize=1)
def read_array(path: Path, name: str, _modified: int = 0) -> NDArray[Any]:
    """Read an array of a ``.mat`` file or ``.npz`` archive as it is; nothing is unpickled.

    Raises:
        InputError: If the file cannot be read or has no such array.
    """

    def load() -> NDArray[Any]:
        if path.suffix.lower() == ".mat":
            from scipy.io import loadmat

            return np.asarray(loadmat(path, variable_names=[name])[name])
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[name])

    return np.asarray(_opened(path, load))


def _opened(path: Path, read: Callable[[], Any]) -> Any:
    """Read a file, and name it in whatever goes wrong."""
    from scipy.io.matlab import MatReadError

    try:
        return read()
    except InputError:
        raise
    except NotImplementedError as error:  # what scipy says of HDF5
        raise InputError(
            f"{path} is a MATLAB file of version 7.3, which is not read here",
            expected="version 5 to 7, as published",
            remedy="save it in MATLAB with save(..., '-v7'), or download it again",
        ) from error
    except (MatReadError, *_BROKEN) as error:
        kind = "MATLAB file" if path.suffix.lower() == ".mat" else "NumPy archive"
        got = str(error) or type(error).__name__
        raise InputError(f"{path} is no intact {kind}", got=got, remedy=_AGAIN) from error


# ---- MetaImage: a text header, .mhd, and a file of bare bytes beside it


def slices_of_mhd(folder: Path, header: PurePosixPath) -> Slices:
    """List the B-scans of a MetaImage volume, unread."""
    (count, _, _), _ = _read_header(folder / header)
    return [(f"{header}#{k}", partial(read_mhd_slice, folder / header, k)) for k in range(count)]


def read_mhd_slice(header: Path, index: int) -> GrayImage:
    """Read one B-scan, (H, W), of a MetaImage volume; the rest of it stays on the disk.

    Raises:
        InputError: If the volume cannot be read.
    """
    shape, values = _read_header(header)
    needed, size = math.prod(shape), values.stat().st_size
    if size != needed:
        raise InputError(
            f"{header} is not intact",
            got=f"{size:,} bytes in {values.name}",
            expected=f"{needed:,} bytes, as the header says",
            remedy=_AGAIN,
        )
    return np.array(np.memmap(values, np.uint8, "r", shape=shape)[index])


def _read_header(header: Path) -> tuple[Shape, Path]:
    """Read shape (N, H, W) and place of the values of a volume that is not compressed."""
    try:
        lines = header.read_text(encoding="utf-8").splitlines()
        pairs = (line.partition("=") for line in lines)
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        width, height, count = map(int, fields["DimSize"].split())
        if fields["ElementType"] != "MET_UCHAR":
            raise ValueError(f"ElementType {fields['ElementType']}")
        name = fields["ElementDataFile"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{header} does not describe a volume",
            got=error,
            expected="DimSize = <width> <height> <B-scans>, MET_UCHAR and ElementDataFile",
            remedy=_AGAIN,
        ) from error
    values = header.parent / name
    if name != Path(name).name or not values.is_file():
        raise InputError(f"The values of {header} are missing", got=f"no file {name} beside it",
                         remedy=_AGAIN)  # fmt: skip
    return (count, height, width), values
