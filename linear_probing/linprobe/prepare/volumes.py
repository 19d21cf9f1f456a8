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

_BROKEN = (
    ArithmeticError, EOFError, LookupError, MemoryError, OSError, TypeError, ValueError,
    RuntimeError,  # zipfile: a password, or a kind of compression it does not know
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_AGAIN = "download it again"
MAX_VOLUME_BYTES = 2**32
"""Most bytes of a volume that can only be read as a whole."""
MAX_RATIO, MAX_SMALL_VOLUME = 100, 2**28
"""A volume of more bytes than the latter that was packed tighter than the former is a bomb."""
_MAT_BYTES = {"logical": 1, "single": 4, "double": 8} | {
    f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)
}
"""Bytes of a value, by what MATLAB calls its kind."""
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

    from retfiner.vision.images.raster import FORMATS

    try:
        with Image.open(path, formats=FORMATS) as image:
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

    found = {name: about for name, *about in _opened(path, partial(whosmat, str(path)))}
    if variable not in found:
        raise _no_member(path, variable, sorted(found))
    shape, kind = found[variable]
    # Cells and structs may lie in one another without end; how much values take, we can reckon.
    size = math.prod(shape) * _MAT_BYTES.get(kind, 0)
    most = min(MAX_VOLUME_BYTES, max(MAX_SMALL_VOLUME, MAX_RATIO * path.stat().st_size))
    if kind not in _MAT_BYTES or size > most or min(shape, default=0) < 1:
        raise InputError(
            f"{path}: {variable} is no volume",
            got=f"{kind} of shape {tuple(shape)}",
            expected=f"numbers, at most {most:,} bytes of them",
            remedy=_AGAIN,
        )
    return tuple(shape)


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
    volume = _volume(path, name, _opened(path, lambda: path.stat().st_mtime_ns))
    if volume.ndim != 3 or index >= volume.shape[axis]:
        raise InputError(
            f"{path} has no B-scan {index}",
            got=f"an array of shape {volume.shape}",
            expected=f"three axes, and more than {index} along axis {axis}",
            remedy=_AGAIN,
        )
    return as_gray(volume.take(index, axis=axis), f"{path}, {name}, B-scan {index}")


def slices_of_volume(folder: Path, path: PurePosixPath, name: str, axis: int, n: int) -> Slices:
    """List the ``n`` B-scans of a volume for :func:`read_slice`, unread."""
    return [(f"{path}#{k}", partial(read_slice, folder / path, name, axis, k)) for k in range(n)]


def read_npz_words(path: Path, members: Sequence[str]) -> dict[str, str]:
    """Read the single numbers and texts among members of a NumPy archive: 1.0 as "1".

    Raises:
        InputError: If the file cannot be read.
    """
    shapes = npz_shapes(path)
    single = [name for name in members if math.prod(shapes.get(name, (0,))) == 1]
    values = {name: _read_npz(path, name).reshape(-1)[0] for name in single}
    return {
        name: f"{float(value):g}" if value.dtype.kind in "biuf" else str(value)
        for name, value in values.items()
    }


@lru_cache(maxsize=1)
def _volume(path: Path, name: str, _modified: int) -> NDArray[Any]:
    if path.suffix.lower() != ".mat":
        return _read_npz(path, name)
    from scipy.io import loadmat

    mat_shape(path, name)
    return np.asarray(_opened(path, lambda: loadmat(path, variable_names=[name])[name]))


def _read_npz(path: Path, member: str) -> NDArray[Any]:
    from retfiner.vision.images.arrays import read_archive_headers, require_memory

    headers = read_archive_headers(path)
    if member not in headers:
        raise _no_member(path, member, list(headers))
    require_memory(path, *headers[member])

    def load() -> NDArray[Any]:
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[member])

    return np.asarray(_opened(path, load))


def _opened(path: Path, read: Callable[[], Any]) -> Any:
    """Read a file, and name it in whatever goes wrong."""
    from scipy.io.matlab import MatReadError

    try:
        return read()
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


def _no_member(path: Path, member: str, there: list[str]) -> InputError:
    got = ", ".join(there) or "other variables"
    remedy = "give the files as downloaded"
    return InputError(f"{path} has no {member}", got=got, expected=member, remedy=remedy)


# ---- MetaImage: a text header, .mhd, and a file of bare values beside it

_ELEMENTS = {"MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_USHORT": "u2", "MET_SHORT": "i2",
             "MET_UINT": "u4", "MET_INT": "i4", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"}  # fmt: skip
_PLAIN = {"NDims": "3", "ElementNumberOfChannels": "1", "CompressedData": "false",
          "BinaryData": "true", "HeaderSize": "0"}  # fmt: skip
"""What a header may say and still describe bare values of one volume."""
_SIZE = re.compile(r"[1-9][0-9]{0,4}")
"""Of a side: no scan has 100,000 values along one."""


def mhd_shape(header: Path) -> Shape:
    """Tell how many B-scans a MetaImage volume has, their height and width: (N, H, W).

    Raises:
        InputError: If the header is damaged or the file of values is missing.
    """
    return _read_header(header)[0]


def slices_of_mhd(folder: Path, header: PurePosixPath) -> Slices:
    """List the B-scans of a MetaImage volume, unread."""
    count = mhd_shape(folder / header)[0]
    return [(f"{header}#{k}", partial(read_mhd_slice, folder / header, k)) for k in range(count)]


def read_mhd_slice(header: Path, index: int) -> GrayImage:
    """Read one B-scan, (H, W), of a MetaImage volume; the rest of it stays on the disk.

    Raises:
        InputError: If the volume cannot be read or its values are no gray values.
    """
    shape, kind, values = _read_header(header)
    needed, size = math.prod(shape) * kind.itemsize, values.stat().st_size
    if index >= shape[0] or size != needed:
        raise InputError(
            f"{header} has no B-scan {index}" if index >= shape[0] else f"{header} is not intact",
            got=f"{shape[0]} B-scans, {size:,} bytes in {values.name}",
            expected=f"{needed:,} bytes, as the header says",
            remedy=_AGAIN,
        )
    scan = np.memmap(values, kind, "r", shape=shape)[index]
    return as_gray(np.array(scan), f"{header}, B-scan {index}")


def _read_header(header: Path) -> tuple[Shape, np.dtype[Any], Path]:
    """Read shape, type and place of the values; anything unusual is refused, not guessed at."""

    def refuse(problem: str, got: str, expected: str) -> InputError:
        remedy = f"{_AGAIN}; header and values belong into the same folder"
        return InputError(f"{header} {problem}", got=got[:200], expected=expected, remedy=remedy)

    try:
        lines = header.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise refuse("cannot be read", str(error), "a text of lines key = value") from error
    pairs = [line.partition("=") for line in lines if "=" in line]
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    sizes = fields.get("DimSize", "").split()
    if len(fields) < len(pairs) or len(sizes) != 3 or not all(map(_SIZE.fullmatch, sizes)):
        got = f"DimSize = {fields.get('DimSize', 'nothing')}, {len(pairs)} lines"
        expected = "DimSize = <width> <height> <B-scans>, and nothing said twice"
        raise refuse("does not describe a volume", got, expected)
    odd = [f"{k} = {fields[k]}" for k, v in _PLAIN.items() if fields.get(k, v).lower() != v]
    kind = fields.get("ElementType", "")
    if odd or kind not in _ELEMENTS:
        expected = f"bare values of one channel, one of {', '.join(_ELEMENTS)}"
        raise refuse("describes no volume of gray values", f"{kind} {' '.join(odd)}", expected)
    name = fields.get("ElementDataFile", "")
    if name != Path(name).name or name in ("LIST", "LOCAL") or "%" in name:
        got = f"ElementDataFile = {name}"
        raise refuse("takes its values from elsewhere", got, "the name of a file beside it")
    values = header.parent / name
    if not values.is_file():
        got = f"no file {name}" if name else "no ElementDataFile"
        raise InputError(f"The values of {header} are missing", got=got, remedy=_AGAIN)
    orders = (fields.get(key, "") for key in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    order = ">" if any(said.lower() == "true" for said in orders) else "<"
    width, height, count = map(int, sizes)
    return (count, height, width), np.dtype(order + _ELEMENTS[kind]), values
