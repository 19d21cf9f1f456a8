"""Image files of every kind, written byte by byte or by the libraries that define them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    OphthalmicTomographyImageStorage,
    generate_uid,
)

NO_DATA_VOL = np.float32(3.4028235e38)


def bscans(count: int = 3, height: int = 24, width: int = 40, top: int = 255) -> np.ndarray:
    """Give smooth layered B-scans, all different, without symmetry: integers from 0 to ``top``."""
    k, y, x = np.mgrid[:count, :height, :width]
    wave = np.sin(y / 3 + x / 11 + k) + y / height + 0.5 * x / width
    scaled = (wave - wave.min()) / (wave.max() - wave.min()) * top
    return np.round(scaled).astype(np.uint8 if top < 256 else np.uint16)


def write_vol(
    path: Path, reflectivity: np.ndarray, bscan_header: int = 512, said: int | None = None
) -> Path:
    """Write (N, H, W) floats by the layout of Heidelberg's raw export, version HSF-OCT-103.

    ``said`` is the size of a B-scan's header by the file's header, where that is wrong.
    """
    count, height, width = reflectivity.shape
    slo_width, slo_height = 20, 18
    header = bytearray(2048)
    header[:12] = b"HSF-OCT-103\0"
    struct.pack_into("<3i3d", header, 12, width, count, height, 0.0115, 0.12, 0.0039)
    struct.pack_into("<2i2di", header, 48, slo_width, slo_height, 0.0115, 0.0115, 30)
    struct.pack_into(
        "<d4sQ2i", header, 76, 0.5, b"OD\0\0", 130_000_000_000_000_000, 3, said or bscan_header
    )
    content = bytes(header) + bytes(range(slo_width)) * slo_height
    for index, bscan in enumerate(reflectivity):
        about = bytearray(bscan_header)
        about[:12] = b"HSF-BS-103\0\0"
        y = 0.12 * index
        struct.pack_into("<i4d2i", about, 12, bscan_header, 0.0, y, 5.0, y, 0, 256)
        content += bytes(about) + bscan.astype("<f4").tobytes()
    path.write_bytes(content)
    return path


def e2e_value(bits: np.ndarray) -> np.ndarray:
    """Say what the 16 bits of an .e2e stand for: exponent of 6 bits, mantissa of 10, no sign."""
    return (1 + (bits & 1023) / 1024) * 2.0 ** ((bits >> 10).astype(int) - 63)


def write_e2e(path: Path, series: dict[int, np.ndarray], shuffled: bool = False) -> Path:
    """Write OCT series, (N, H, W) uint16 by number, each with an infrared image beside it."""
    entries = []  # (series, slice id, ind, type, payload)
    for number, volume in series.items():
        infrared = np.full((6, 5), 128, np.uint8)
        about = struct.pack("<5I", infrared.size, 33620481, infrared.size, *infrared.shape)
        entries.append((number, -1, 0, 1073741824, about + infrared.tobytes()))
        for index, bscan in enumerate(volume):
            about = struct.pack("<5I", bscan.nbytes, 35652097, bscan.size, *bscan.shape)
            content = about + bscan.astype("<u2").tobytes()
            entries.append((number, 2 * index, 1, 1073741824, content))
    if shuffled:
        entries = entries[::-1]
    header_end = 36 + 52
    directory = struct.pack("<12sI20x4I", b"MDbDir", 100, len(entries), 0, 0, 0)
    position = header_end + 52 + 44 * len(entries)
    folders, data = b"", b""
    for number, scan, ind, kind, payload in entries:
        ids = (1, 1, number, scan, ind, 0, kind, 0)
        folders += struct.pack("<7Ii2H2I", header_end, position, len(payload), 0, *ids)
        data += struct.pack("<12s5I3Ii2H2I", b"MDbData", 0, 0, position, len(payload), 0, *ids)
        data += payload
        position += 60 + len(payload)
    main = struct.pack("<12sI20x4I", b"MDbMDir", 100, len(entries), header_end, 0, 0)
    version = struct.pack("<12sI20x", b"CMDb", 100)
    path.write_bytes(version + main + directory + folders + data)
    return path


def as_deep(volume: np.ndarray) -> np.ndarray:
    """Make a volume as deep as every cube of Cirrus."""
    return np.resize(volume, (len(volume), 1024, volume.shape[2]))


def write_img(path: Path, volume: np.ndarray) -> Path:
    """Write (N, 1024, W) uint8 as Cirrus does: the last B-scan's lower right corner comes first."""
    path.write_bytes(volume[::-1, ::-1, ::-1].tobytes())
    return path


def topcon_chunk(name: str, content: bytes) -> bytes:
    return bytes([len(name)]) + name.encode() + struct.pack("<I", len(content)) + content


def write_topcon(path: Path, *chunks: bytes) -> Path:
    kind = b"FOCT" + path.suffix[1:].upper().encode()
    before = topcon_chunk("@CAPTURE_INFO_02", bytes(20))
    path.write_bytes(kind + struct.pack("<2I", 2, 1000) + before + b"".join(chunks) + b"\0")
    return path


def topcon_raw(
    volume: np.ndarray,
    name: str = "@IMG_SCAN_03",
    bits: int = 16,
    said: int | None = None,
    positions: bool = False,
    after: bytes = b"",
) -> bytes:
    """Write raw values; ``positions`` makes the header 38 bytes long, as of aligned B-scans."""
    count, height, width = volume.shape
    header = struct.pack("<B4IB", 2, width, height, bits, count, 0)
    header += struct.pack("<4i", 0, 1, -2, 3) if positions else b""
    header += struct.pack("<I", volume.nbytes if said is None else said)
    return topcon_chunk(name, header + volume.tobytes() + after)


def topcon_compressed(volume: np.ndarray) -> bytes:
    """Compress B-scans as JPEG 2000 codestreams, without loss."""
    count, height, width = volume.shape
    content = struct.pack("<B6I", 2, 0, 0, width, height, count, 0)
    for bscan in volume:
        buffer = io.BytesIO()
        Image.fromarray(bscan).save(buffer, "JPEG2000", no_jp2=True, irreversible=False)
        content += struct.pack("<I", buffer.tell()) + buffer.getvalue()
    return topcon_chunk("@IMG_JPEG", content)


def dicom(pixels: np.ndarray, **elements: object) -> Dataset:
    """Make an uncompressed DICOM image of (H, W), (N, H, W), (H, W, 3) or (N, H, W, 3) integers."""
    colour = pixels.shape[-1] == 3
    sides = pixels.shape[:-1] if colour else pixels.shape
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = OphthalmicTomographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["a"])
    image = Dataset()
    image.file_meta = meta
    image.SOPClassUID = meta.MediaStorageSOPClassUID
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.Rows, image.Columns = sides[-2:]
    if len(sides) == 3:
        image.NumberOfFrames = sides[0]
    image.SamplesPerPixel = 3 if colour else 1
    if colour:
        image.PlanarConfiguration = 0
    image.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 8 * pixels.dtype.itemsize
    image.HighBit = image.BitsStored - 1
    image.PixelRepresentation = int(pixels.dtype.kind == "i")
    image.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(image, name, value)
    if "BitsStored" in elements:
        image.HighBit = image.BitsStored - 1
    return image


def write_dicom(path: Path, image: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, image, enforce_file_format=True)
    return path


def compressed_by_pillow(image: Dataset, frames: np.ndarray, lossless: bool = True) -> Dataset:
    """Replace the pixels of a DICOM image by JPEG 2000, or else JPEG, of Pillow.

    Args:
        image: The image.
        frames: Its (N, H, W) or (N, H, W, 3) pixels, 8 bit.
        lossless: JPEG 2000 without loss, or JPEG with it.
    """
    parts = []
    for frame in frames:
        buffer = io.BytesIO()
        if lossless:
            Image.fromarray(frame).save(buffer, "JPEG2000", no_jp2=True, irreversible=False)
        else:
            Image.fromarray(frame).save(buffer, "JPEG", quality=97)
        parts.append(buffer.getvalue())
    image.file_meta.TransferSyntaxUID = JPEG2000Lossless if lossless else JPEGBaseline8Bit
    image.PixelData = encapsulate(parts)
    image["PixelData"].is_undefined_length = True
    if frames.ndim == 4:
        image.PhotometricInterpretation = "YBR_RCT" if lossless else "YBR_FULL_422"
    return image
