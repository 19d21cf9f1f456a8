"""Image files of every kind, written byte by byte or by the libraries that define them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
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

from retfiner.common.errors import InputError
from retfiner.vision.images import ImageAddress, read_image, why_unusable

NO_DATA_VOL = np.float32(3.4028235e38)


def bscans(count: int = 3, height: int = 24, width: int = 40, top: int = 255) -> np.ndarray:
    """Give smooth layered B-scans, all different, without symmetry: integers from 0 to ``top``."""
    k, y, x = np.mgrid[:count, :height, :width]
    wave = np.sin(y / 3 + x / 11 + k) + y / height + 0.5 * x / width
    scaled = (wave - wave.min()) / (wave.max() - wave.min()) * top
    return np.round(scaled).astype(np.uint8 if top < 256 else np.uint16)


def assert_read(image: Path | str, expected: np.ndarray, atol: float = 1e-6) -> None:
    """Read an image, which the check before training must let pass."""
    assert why_unusable(image) is None, image
    np.testing.assert_allclose(read_image(image), expected, rtol=0, atol=atol, err_msg=str(image))


def assert_refused(image: Path | str, *words: str) -> None:
    """Refuse an image in the same words when it is read and when it is checked before training."""
    try:
        read_image(image)
    except InputError as error:
        said = error.in_one_line
    else:
        raise AssertionError(f"{image} was read")
    assert str(ImageAddress.parse(image).path) in said
    assert all(word in said for word in words), said
    assert why_unusable(image) == said


def write_vol(
    path: Path,
    reflectivity: np.ndarray,
    bscan_header: int = 512,
    said: int | None = None,
    patient: str = "",
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
    header[140 : 140 + len(patient)] = patient.encode()
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


def write_e2e(
    path: Path,
    series: dict[int, np.ndarray],
    shuffled: bool = False,
    chunks: Sequence[tuple[int, int, bytes]] = (),
) -> Path:
    """Write OCT series, (N, H, W) uint16 by number, each with an infrared image beside it.

    ``chunks`` are others: series, type, content.
    """
    entries = [(number, -1, 0, kind, content) for number, kind, content in chunks]
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
    before = (
        b""
        if b"@CAPTURE_INFO_02" in b"".join(chunks)
        else topcon_chunk("@CAPTURE_INFO_02", bytes(20))
    )
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


def packed_12(values: np.ndarray) -> bytes:
    """Pack values of 12 bits, two in three bytes, the first one's upper bits first."""
    first, second = values.reshape(-1, 2).astype(np.uint32).T
    joined = first << 12 | second
    return np.stack([joined >> 16, joined >> 8 & 255, joined & 255], -1).astype(np.uint8).tobytes()


def write_tiff(
    path: Path, *pages: tuple[np.ndarray, dict[int, int | str]], order: str = "<"
) -> Path:
    """Write an uncompressed TIFF of gray pages, each its (H, W) values and tags by number.

    ``order`` is ``<`` or ``>``, as of ``struct``. Values are packed where tag 258 is 12.
    """
    out = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    for number, (values, more) in enumerate(pages):
        data = values.astype(values.dtype.newbyteorder(order)).tobytes()
        data = packed_12(values) if more.get(258) == 12 else data
        kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
        tags = {256: values.shape[1], 257: values.shape[0], 258: 8 * values.dtype.itemsize}
        tags |= {259: 1, 262: 1, 273: 0, 277: 1, 278: values.shape[0], 279: len(data), 339: kind}
        tags |= more
        tags[273] = len(out) + 2 + 12 * len(tags) + 4
        directory = struct.pack(f"{order}H", len(tags))
        for tag, value in sorted(tags.items()):
            if isinstance(value, str):  # text, behind the values
                text = value.encode() + b"\0"
                place = tags[273] + len(data)
                directory += struct.pack(f"{order}2H2I", tag, 2, len(text), place)
                data += text
            else:
                directory += struct.pack(f"{order}2H2I", tag, 4, 1, value)
        data += bytes(len(data) % 2)
        behind = tags[273] + len(data) if number + 1 < len(pages) else 0
        out += directory + struct.pack(f"{order}I", behind) + data
    path.write_bytes(out)
    return path


def png_chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def write_png(path: Path, values: np.ndarray, significant: int) -> Path:
    """Write (H, W) uint16, and in the chunk sBIT how many bits are significant."""
    height, width = values.shape
    head = png_chunk(b"IHDR", struct.pack(">2I5B", width, height, 16, 0, 0, 0, 0))
    head += png_chunk(b"sBIT", bytes([significant]))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    end = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + end)
    return path
