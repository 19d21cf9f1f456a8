"""Reading one B-scan as 8-bit gray values, from an image file or from a volume.

Volumes that can only be unpacked as a whole (MATLAB, NumPy archives) are kept one at a time a
process, so that writing all B-scans of one unpacks it once.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linprobe.prepare.spec import GrayImage
from retfiner.common.errors import InputError

Shape = tuple[int, ...]

_BROKEN_NPZ = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,  # zipfile: a password, or a kind of compression it does not know
)
_BROKEN_MAT = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    RecursionError,
    zlib.error,
)
_AGAIN = "download it again"

MAX_VOLUME_BYTES = 2**32
"""Most bytes of a volume that can only be read as a whole."""

MAX_RATIO, MAX_SMALL_VOLUME = 100, 2**28
"""A volume of more bytes than the latter that was packed tighter than the former is a bomb."""

_MAT_BYTES = {"logical": 1, "single": 4, "double": 8} | {
    f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)
}
"""Bytes of a value, by what MATLAB calls its kind."""


def read_gray(path: Path) -> GrayImage:
    """Read an image file; 16 bits are scaled to 8, colour becomes luma.

    Returns:
        (H, W), 8 bit.

    Raises:
        InputError: If it cannot be read, or holds several images.
    """
    from retfiner.vision import ImageAddress, read_image  # delayed: it needs torch

    values = read_image(ImageAddress(path))
    return np.rint(values * np.float32(255)).astype(np.uint8)


def as_gray(values: NDArray[Any], where: str) -> GrayImage:
    """Take values as 8-bit gray values, and refuse those that are not clearly such.

    Args:
        values: (H, W): bytes, or other numbers that are whole and from 0 to 255, or floats in
            [0, 1], which are scaled by 255.
        where: Where they come from, for the message.

    Raises:
        InputError: If they are anything else.
    """
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype.kind in "iuf" and values.size and np.isfinite(values).all():
        low, high = values.min(), values.max()
        if low >= 0 and high <= 255 and (values == np.rint(values)).all():
            return values.astype(np.uint8)
        if low >= 0 and high <= 1:
            return np.rint(values * 255).astype(np.uint8)
        got = f"{values.dtype} from {low} to {high}"
    else:
        got = f"{values.dtype} of shape {values.shape}, or values that are no numbers"
    raise InputError(
        f"{where}: values that are no 8-bit gray values",
        got=got,
        expected="bytes, whole numbers from 0 to 255, or floats in [0, 1]",
        remedy="convert the volume: how it is to be scaled cannot be guessed",
    )


def mat_shape(path: Path, variable: str) -> Shape:
    """Tell the shape of a variable in a MATLAB file from its header.

    Raises:
        InputError: If the file is of version 7.3 or damaged, or has no such variable.
    """
    from scipy.io import whosmat

    found = {name: (shape, kind) for name, shape, kind in _from_mat(path, whosmat, str(path))}
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


def read_mat_slice(path: Path, variable: str, index: int) -> GrayImage:
    """Read one B-scan of a volume in a MATLAB file.

    Args:
        path: The file.
        variable: Name of a variable of shape (H, W, N).
        index: Which of the N, from 0.

    Returns:
        (H, W), 8 bit.

    Raises:
        InputError: If the file cannot be read or the values are no gray values.
    """
    volume = _mat_volume(path, variable, _stamp(path))
    return as_gray(_slice_of(volume, 2, index, path), f"{path}, {variable}, B-scan {index}")


@lru_cache(maxsize=1)
def _mat_volume(path: Path, variable: str, _stamped: tuple[int, int]) -> NDArray[Any]:
    from scipy.io import loadmat

    mat_shape(path, variable)
    content = _from_mat(path, loadmat, str(path), variable_names=[variable])
    volume: NDArray[Any] = content[variable]
    return volume


def _from_mat(path: Path, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    from scipy.io.matlab import MatReadError

    try:
        return function(*args, **options)
    except NotImplementedError as error:  # what scipy says of HDF5
        raise InputError(
            f"{path} is a MATLAB file of version 7.3, which is not read here",
            expected="version 5 to 7, as published",
            remedy="save it in MATLAB with save(..., '-v7'), or download it again",
        ) from error
    except (MatReadError, *_BROKEN_MAT) as error:
        raise _damaged(path, "MATLAB file", error) from error


def npz_shapes(path: Path) -> dict[str, Shape]:
    """Tell the shapes of the arrays of a NumPy archive from their headers.

    Returns:
        Shape by name; arrays of Python objects are left out, and never unpickled.

    Raises:
        InputError: If the archive is damaged.
    """
    from retfiner.vision.images.arrays import read_archive_headers  # delayed: it needs torch

    headers = read_archive_headers(path)
    return {name: array.shape for name, array in headers.items() if not array.dtype.hasobject}


def read_npz_slice(path: Path, member: str, axis: int, index: int) -> GrayImage:
    """Read one B-scan of a volume in a NumPy archive.

    Returns:
        (H, W), 8 bit.

    Raises:
        InputError: If the file cannot be read or the values are no gray values.
    """
    volume = _npz_array(path, member, _stamp(path))
    return as_gray(_slice_of(volume, axis, index, path), f"{path}, {member}, B-scan {index}")


def read_npz_value(path: Path, member: str) -> float:
    """Read a single number of a NumPy archive.

    Raises:
        InputError: If the file cannot be read or holds no such number.
    """
    values = _npz_array.__wrapped__(path, member, (0, 0))
    if values.size != 1 or values.dtype.kind not in "biuf":
        raise InputError(f"{path}: {member} is no single number", got=f"shape {values.shape}")
    return float(values.reshape(-1)[0])


@lru_cache(maxsize=1)
def _npz_array(path: Path, member: str, _stamped: tuple[int, int]) -> NDArray[Any]:
    from retfiner.vision.images.arrays import read_archive_headers, require_memory

    headers = read_archive_headers(path)
    if member in headers:
        require_memory(path, *headers[member])
    try:
        with np.load(path, allow_pickle=False) as archive:
            if member not in archive.files:
                raise _no_member(path, member, archive.files)
            values: NDArray[Any] = archive[member]
            return values
    except InputError:
        raise
    except _BROKEN_NPZ as error:
        raise _damaged(path, "NumPy archive", error) from error


def _slice_of(volume: NDArray[Any], axis: int, index: int, path: Path) -> NDArray[Any]:
    if volume.ndim != 3 or index >= volume.shape[axis]:
        raise InputError(
            f"{path} has no B-scan {index}",
            got=f"an array of shape {volume.shape}",
            expected=f"three axes, and more than {index} along axis {axis}",
            remedy=_AGAIN,
        )
    return volume.take(index, axis=axis)


def _stamp(path: Path) -> tuple[int, int]:
    """Give what changes when a file does, so that a kept volume is not taken for a newer one."""
    try:
        about = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read", got=error) from error
    return about.st_mtime_ns, about.st_size


def _no_member(path: Path, member: str, there: list[str]) -> InputError:
    return InputError(
        f"{path} has no {member}",
        got=", ".join(there) or "other variables",
        expected=member,
        remedy="give the files as downloaded",
    )


def _damaged(path: Path, kind: str, error: Exception) -> InputError:
    got = str(error) or type(error).__name__
    return InputError(f"{path} is no intact {kind}", got=got, remedy=_AGAIN)
