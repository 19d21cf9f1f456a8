"""Images a second of each file format that training, probing and preparation can read.

    python benchmarks/read_images.py

Writes B-scans of 496 x 512 pixels, layered and speckled like real ones, in every format into a
temporary folder, and reads them: single images one after the other, volumes in order and in a mixed
order, as training does. The figure is the median of several rounds, from a warm disk cache. Beside
it stand the time of a first read, which loads packages and opens the volume, and the size on disk.

Measured on one thread of a shared two-core CPU, images a second in order: PNG 280 (16 bit 219),
JPEG 657, TIFF 993, NPY 1,897, NPZ 502, DICOM 478; of volumes, TIFF 1,844, DICOM 878 (RLE 220, JPEG
259, JPEG-LS 99, JPEG 2000 23), .vol 865, .e2e 1,026, .img 2,167, .fda 24 (JPEG 2000 as well), .fds
5,389. A mixed order costs little anywhere but in TIFF stacks, whose pages are a chain.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.common.files import write_text
from retfiner.vision import ImageAddress, count_images, iter_images, read_image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.helpers import image_files

HEIGHT, WIDTH = 496, 512
Writer = Callable[[Path, np.ndarray], object]


@dataclass(frozen=True)
class ReadingConfig:
    """Settings of the benchmark."""

    bscans: int = flag("B-scans of each volume, and single images of each format", 25)
    rounds: int = flag("times that all are read; the median counts", 3)
    output: Path | None = flag("JSON file to write", None)


@dataclass(frozen=True)
class Row:
    """What was measured of a format.

    Attributes:
        format: Its name.
        in_order: Images a second, one after the other.
        mixed: Images a second in a mixed order, by address; None for single images.
        first_ms: Milliseconds of the first read.
        bytes_an_image: Size on disk.
    """

    format: str
    in_order: float
    mixed: float | None
    first_ms: float
    bytes_an_image: int


def draw_volume(count: int) -> np.ndarray:
    """Draw (N, H, W) uint8: layers under multiplicative speckle, dark above and below."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    depth = (y - 0.4 - 0.1 * (x - 0.5) ** 2)[None]
    layers = np.exp(-((depth / 0.12) ** 2)) * (0.6 + 0.4 * np.sin(90 * depth))
    speckle = rng.gamma(4, 0.25, (count, HEIGHT, WIDTH))
    return (255 * ((0.08 + 0.8 * layers) * speckle).clip(0, 1)).astype(np.uint8)


def as_e2e(volume: np.ndarray) -> np.ndarray:
    """Give the 16 bits that stand for the reflectivity of each gray value."""
    table = image_files.e2e_value(np.arange(63 << 10))
    wanted = (np.arange(256) / 255) ** 4
    return np.searchsorted(table, wanted).clip(0, (63 << 10) - 1).astype(np.uint16)[volume]


def single_writers() -> dict[str, tuple[str, Writer]]:
    """Return the formats of single images: suffix, and what writes (H, W) uint8."""

    def wide(path: Path, gray: np.ndarray) -> None:
        Image.fromarray(gray.astype(np.uint16) * 257).save(path)

    def plain(path: Path, gray: np.ndarray) -> None:
        Image.fromarray(gray).save(path)

    return {
        "PNG, 8 bit": (".png", plain),
        "PNG, 16 bit": (".png", wide),
        "JPEG": (".jpg", plain),
        "TIFF, 8 bit": (".tif", plain),
        "TIFF, 16 bit": (".tif", wide),
        "BMP": (".bmp", plain),
        "NPY": (".npy", np.save),
        "NPZ, compressed": (".npz", np.savez_compressed),
        "DICOM": (".dcm", lambda path, gray: write_dicom(path, gray, "")),
    }


def volume_writers() -> dict[str, tuple[str, Writer]]:
    """Return the formats of volumes: file name, and what writes (N, H, W) uint8."""

    def stack(path: Path, volume: np.ndarray) -> None:
        pages = [Image.fromarray(gray) for gray in volume]
        pages[0].save(path, save_all=True, append_images=pages[1:])

    def zeiss(path: Path, volume: np.ndarray) -> None:
        below = ((0, 0), (0, 1024 - HEIGHT), (0, 0))  # every such file is 1,024 pixels deep
        image_files.write_img(path, np.pad(volume, below))

    def topcon(make: Callable[[np.ndarray], bytes]) -> Writer:
        return lambda path, volume: image_files.write_topcon(path, make(volume))

    def dicom(encoding: str) -> Writer:
        return lambda path, volume: write_dicom(path, volume, encoding)

    return {
        "TIFF stack": ("v.tif", stack),
        "NPY stack": ("v.npy", np.save),
        "NPZ stack, compressed": ("v.npz", np.savez_compressed),
        "DICOM": ("v.dcm", dicom("")),
        "DICOM, RLE": ("rle.dcm", dicom("rle")),
        "DICOM, JPEG": ("jpeg.dcm", dicom("jpeg")),
        "DICOM, JPEG-LS": ("ls.dcm", dicom("ls")),
        "DICOM, JPEG 2000": ("j2k.dcm", dicom("j2k")),
        "Heidelberg .vol": (
            "v.vol",
            lambda path, v: image_files.write_vol(path, (v / 255).astype(np.float32) ** 4),
        ),
        "Heidelberg .e2e": ("v.e2e", lambda path, v: image_files.write_e2e(path, {1: as_e2e(v)})),
        "Zeiss .img": ("cube_{width}x{count}.img", zeiss),
        "Topcon .fda": ("v.fda", topcon(image_files.topcon_compressed)),
        "Topcon .fds": (
            "v.fds",
            topcon(lambda v: image_files.topcon_raw(v.astype(np.uint16) * 257)),
        ),
    }


def write_dicom(path: Path, pixels: np.ndarray, encoding: str) -> None:
    from pydicom.uid import JPEGLSLossless, RLELossless

    image = image_files.dicom(pixels)
    if encoding in ("j2k", "jpeg"):
        image_files.compressed_by_pillow(image, pixels, lossless=encoding == "j2k")
    elif encoding:
        syntax = {"rle": RLELossless, "ls": JPEGLSLossless}[encoding]
        image.compress(syntax, generate_instance_uid=False)
    image_files.write_dicom(path, image)


def images_a_second(read_all: Callable[[], int], rounds: int) -> float:
    figures = []
    for _ in range(rounds):
        start = time.perf_counter()
        count = read_all()
        figures.append(count / (time.perf_counter() - start))
    return statistics.median(figures)


def milliseconds(address: ImageAddress) -> float:
    start = time.perf_counter()
    read_image(address)
    return 1000 * (time.perf_counter() - start)


def measure_singles(root: Path, volume: np.ndarray, rounds: int) -> list[Row]:
    rows = []
    for name, (suffix, write) in single_writers().items():
        folder = root / name
        folder.mkdir()
        paths = [folder / f"{index}{suffix}" for index in range(len(volume))]
        for path, gray in zip(paths, volume, strict=True):
            write(path, gray)
        first = milliseconds(ImageAddress(paths[0]))

        def read_all(paths: list[Path] = paths) -> int:
            return sum(read_image(path).ndim > 0 for path in paths)

        size = sum(path.stat().st_size for path in paths) // len(paths)
        rows.append(Row(name, images_a_second(read_all, rounds), None, first, size))
    return rows


def measure_volumes(root: Path, volume: np.ndarray, rounds: int) -> list[Row]:
    rows = []
    order = np.random.default_rng(1).permutation(len(volume)).tolist()
    for name, (file_name, write) in volume_writers().items():
        path = root / file_name.format(width=WIDTH, count=len(volume))
        write(path, volume)
        first = milliseconds(ImageAddress(path, 0))
        assert count_images(path) == len(volume)

        def in_order(path: Path = path) -> int:
            return sum(image.ndim > 0 for image in iter_images(path))

        def mixed(path: Path = path) -> int:
            return sum(read_image(ImageAddress(path, index)).ndim > 0 for index in order)

        figures = images_a_second(in_order, rounds), images_a_second(mixed, rounds)
        rows.append(Row(name, *figures, first, path.stat().st_size // len(volume)))
    return rows


def print_table(rows: list[Row]) -> None:
    print(f"{'format':<24}{'in order':>10}{'mixed':>10}{'first read':>13}{'on disk':>11}")
    for row in rows:
        mixed = "" if row.mixed is None else f"{row.mixed:,.0f}/s"
        print(
            f"{row.format:<24}{row.in_order:>8,.0f}/s{mixed:>10}{row.first_ms:>10,.1f} ms"
            f"{row.bytes_an_image / 1024:>8,.0f} KiB"
        )


def main() -> None:
    """Run the benchmark and print what came out."""
    config = parse(ReadingConfig, "Images a second of each file format.")
    volume = draw_volume(config.bscans)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print(f"{len(volume)} single images of {HEIGHT} x {WIDTH} pixels a format")
        singles = measure_singles(root, volume, config.rounds)
        print_table(singles)
        print(f"\nvolumes of {len(volume)} B-scans")
        volumes = measure_volumes(root, volume, config.rounds)
        print_table(volumes)
    if config.output is not None:
        result = {"singles": singles, "volumes": volumes}
        plain = {key: [asdict(row) for row in rows] for key, rows in result.items()}
        write_text(config.output, json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    run_entry_point(main)
