"""Image files that claim giant sizes, wait for ever, or would have another program run."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from linprobe.datasets import read_data_set
from retfiner.common.errors import InputError
from retfiner.data.manifest import read_manifest
from retfiner.vision import read_image
from retfiner.vision.images import READERS, iter_images, why_unusable
from tests.helpers.bounded import assert_refused, bounded
from tests.helpers.image_files import (
    bscans,
    dicom,
    topcon_chunk,
    topcon_compressed,
    write_dicom,
    write_e2e,
    write_topcon,
    write_vol,
)
from tests.helpers.refinement import write_csv, write_image

OTHERS = sorted(set(READERS) - {".png"})


# ---- what is no file


@pytest.mark.parametrize(
    "suffix",
    [".png", "", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in OTHERS)],
)
def test_pipes_devices_and_folders_are_not_waited_for(tmp_path, suffix):
    pipe, zero, folder = (tmp_path / f"{name}{suffix}" for name in ("pipe", "zero", "folder"))
    os.mkfifo(pipe)
    zero.symlink_to("/dev/zero")
    folder.mkdir()
    for path in (pipe, zero, folder):
        assert bounded(lambda path=path: why_unusable(path)).kind == "returned"
        assert why_unusable(path) is not None
        assert_refused(lambda path=path: read_image(path))


@pytest.mark.parametrize(
    "name", ["a\0b.png", "a\0b", "x" * 3000 + ".png", "\udcff.png", "/dev/null"]
)
def test_names_that_no_image_has(name):
    assert bounded(lambda: why_unusable(name)).kind == "returned"
    assert why_unusable(name) is not None
    assert_refused(lambda: read_image(name))


def test_a_table_may_name_anything_and_only_images_are_read(tmp_path):
    """Absolute paths and ``..`` are fine; what they lead to must be an image."""
    os.mkfifo(tmp_path / "pipe.png")
    write_image(tmp_path / "elsewhere" / "good.png", 1)
    (tmp_path / "table").mkdir()
    names = [
        "../elsewhere/good.png",
        str(tmp_path / "elsewhere" / "good.png"),
        "../pipe.png",
        "/dev/zero",
        "/dev/stdin",
        "/etc/passwd",
        "../../../../../etc/passwd",
        "/proc/self/environ",
        "a\0b.png",
        "http://127.0.0.1:9/a.png",
        "file:///etc/passwd",
        "|touch marker.png",
        "$(touch marker).png",
    ]
    rows = [[name, "a cyst", f"p{k}"] for k, name in enumerate(names)]
    table = write_csv(tmp_path / "table" / "pairs.csv", rows)
    outcome = bounded(lambda: read_manifest(table, on_bad_row="skip").rows)
    assert (outcome.kind, outcome.text) == ("returned", "[2, 3]")
    assert "root:" not in assert_refused(lambda: read_manifest(table)).text  # no content is shown
    assert not list(tmp_path.rglob("*marker*"))


def test_a_pipe_in_a_data_set_is_no_trap(tmp_path):
    root = tmp_path / "set"
    for split in ("train", "val", "test"):
        for k, label in enumerate(("A", "B")):
            write_image(root / split / label / "a.png", k)
    os.mkfifo(root / "train" / "A" / "b.png")
    os.mkfifo(root / "train" / "A" / "c")
    outcome = bounded(lambda: len(read_data_set(root).splits["train"]))
    assert (outcome.kind, outcome.text) == ("returned", "2")


# ---- another program


def test_postscript_is_not_handed_to_ghostscript(tmp_path, monkeypatch):
    """Pillow goes by content, and gives EPS to the program ``gs``."""
    tools, marker = tmp_path / "tools", tmp_path / "marker"
    tools.mkdir()
    for name in ("gs", "gswin64c", "gswin32c", "gswin32", "djpeg", "sh"):
        if name != "sh":
            (tools / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
            (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    for suffix in (".png", ".jpg", ".tif", ".bmp"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        assert_refused(lambda path=path: read_image(path))
        assert why_unusable(path) is not None
    jpeg2000 = topcon_chunk(
        "@IMG_JPEG", struct.pack("<B6I", 2, 0, 0, 10, 10, 1, 0) + struct.pack("<I", 91) + content
    )
    assert_refused(lambda: read_image(write_topcon(tmp_path / "a.fda", jpeg2000)))
    assert not marker.exists()


OTHER_FORMATS = {
    "wmf": b"\xd7\xcd\xc6\x9a\x00\x00",
    "fits": b"SIMPLE  =                    T",
    "ppm": b"P6 60000 60000 255\n",
    "xpm": b"/* XPM */\n",
    "psd": b"8BPS\0\1" + bytes(6) + b"\0\1\x7f\xff\xff\xff\x7f\xff\xff\xff\0\x08\0\1",
    "ico": b"\0\0\1\0\1\0",
    "sgi": b"\x01\xda\0\1\0\1\xff\xff\xff\xff\0\1",
    "tga": bytes([0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 8, 0]),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHER_FORMATS)
def test_formats_that_nobody_meant_are_not_tried(tmp_path, kind):
    path = tmp_path / "a.png"
    path.write_bytes(OTHER_FORMATS[kind] + bytes(200))
    assert_refused(lambda: read_image(path))


# ---- bombs


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width, height, depth=8, colour=0, extra=b""):
    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    values = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + values + png_chunk(b"IEND", b"")
    )


def tiff(entries, extra=b"", next_page=0):
    content = struct.pack("<H", len(entries))
    for tag, kind, count, value in sorted(entries):
        content += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", 8) + content + struct.pack("<I", next_page) + extra


def plain_tiff(width, height, **changes):
    tags = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
        273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, width * height % 2**32),
    }  # fmt: skip
    tags |= {int(tag): value for tag, value in changes.items()}
    return tiff([(tag, *value) for tag, value in tags.items()])


def bmp(width, height, bits=8):
    header = struct.pack("<2sIHHI", b"BM", 2**31, 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, 0, 0)


def jpeg(width, height):
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "JPEG")
    content = bytearray(buffer.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def jpeg2000(width, height, components=1, tile=None):
    """A codestream's header, and nothing behind it."""
    tile_width, tile_height = tile or (width, height)
    size = struct.pack(">H8IH", 0, width, height, 0, 0, tile_width, tile_height, 0, 0, components)
    size += b"\x07\x01\x01" * components
    return (
        b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size
        + b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x05\x04\x04\x00\x01"
        + b"\xff\x5c\x00\x13\x40" + bytes(16) + b"\xff\xd9"
    )  # fmt: skip


def gif(width, height):
    screen = struct.pack("<HH", width, height)
    frame = b"," + struct.pack("<4HB", 0, 0, width, height, 0) + b"\x08\x01\x00\x00;"
    return b"GIF89a" + screen + b"\x80\0\0" + bytes(6) + frame


RASTER_BOMBS = {
    "png.png": png(60_000, 60_000),
    "png of 2^31.png": png(2**31 - 1, 2**31 - 1),
    "png just too large.png": png(20_000, 9_000),
    "png 16 bit.png": png(50_000, 50_000, 16, 6),
    "png text bomb.png": png(
        8, 8, extra=b"".join(
            png_chunk(b"zTXt", b"k%d\0\0" % k + zlib.compress(bytes(60 << 20), 9)) for k in range(4)
        ),
    ),
    "png profile bomb.png": png(
        8, 8, extra=png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(200 << 20), 9))
    ),
    "tiff.tif": plain_tiff(100_000, 100_000),
    "tiff of 2^32.tif": plain_tiff(2**32 - 1, 2**32 - 1),
    "tiff with 10^9 strips.tif": plain_tiff(8, 8, **{"273": (4, 10**9, 8), "279": (4, 10**9, 8)}),
    "tiff of 65535 samples.tif": plain_tiff(1000, 1000, **{"277": (3, 1, 65535)}),
    "tiff that leads to itself.tif": tiff([(256, 4, 1, 8)], next_page=8),
    "bmp.bmp": bmp(60_000, 60_000),
    "bmp negative.bmp": bmp(60_000, -60_000),
    "bmp of 2^31.bmp": bmp(2**31 - 1, 2**31 - 1, 32),
    "jpeg.jpg": jpeg(65_000, 65_000),
    "jpeg2000.png": jpeg2000(60_000, 60_000),
    "jpeg2000 of 16384 components.png": jpeg2000(1000, 1000, 16384),
    "jpeg2000 in tiles of one pixel.png": jpeg2000(10_000, 10_000, 1, (1, 1)),
    "jpeg2000 of 2^32.png": jpeg2000(2**32 - 1, 2**32 - 1),
    "gif.png": gif(65_000, 65_000),
}  # fmt: skip


def test_a_tag_that_claims_gigabytes_is_passed_over(tmp_path):
    (tmp_path / "a.tif").write_bytes(plain_tiff(8, 8, **{"270": (2, 2**32 - 1, 8)}))
    outcome = bounded(lambda: read_image(tmp_path / "a.tif").shape)
    assert (outcome.kind, outcome.text) == ("returned", "(8, 8)")
    assert outcome.megabytes < 50


@pytest.mark.parametrize("name", RASTER_BOMBS)
def test_raster_bombs(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(RASTER_BOMBS[name])
    assert_refused(lambda: read_image(path))
    assert bounded(lambda: why_unusable(path)).kind == "returned"


@pytest.mark.slow
def test_a_chain_of_a_million_pages_ends_soon(tmp_path):
    """Each page of a TIFF names the next; a short file can hold very many."""
    page = struct.pack("<HHHII", 1, 256, 4, 1, 8)
    pages = [struct.pack("<I", 8)]
    for number in range(300_000):
        here = 8 + 18 * number
        pages.append(page + struct.pack("<I", here + 18))
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + b"".join(pages))
    assert_refused(lambda: read_image(path))


# ---- DICOM


def write_changed(path, **changes):
    """An image of 8 x 8 pixels whose header says something else."""
    image = dicom(np.zeros((8, 8), np.uint8))
    for name, value in changes.items():
        setattr(image, name, value)
    return write_dicom(path, image)


DICOM_CLAIMS = {
    "65535 x 65535": {"Rows": 65535, "Columns": 65535},
    "frames": {"NumberOfFrames": 2**31 - 1},
    "minus one frame": {"NumberOfFrames": -1},
    "samples": {"SamplesPerPixel": 65535},
    "bits": {"BitsAllocated": 65528, "BitsStored": 65528},
    "no bits": {"BitsAllocated": 0, "BitsStored": 0},
    "bits stored": {"BitsStored": 60000},
    "no rows": {"Rows": 0},
    "window": {"WindowCenter": [], "WindowWidth": []},
    "window of nothing": {"WindowCenter": 0, "WindowWidth": 0},
    "slope": {"RescaleSlope": "1e308", "RescaleIntercept": "-1e308"},
    "photometric": {"PhotometricInterpretation": "PALETTE COLOR"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DICOM_CLAIMS)
def test_dicom_whose_header_lies(tmp_path, name):
    path = write_changed(tmp_path / "a.dcm", **DICOM_CLAIMS[name])
    outcome = bounded(lambda: read_image(path).max())
    assert outcome.kind in ("InputError", "returned"), outcome
    assert outcome.megabytes < 300, outcome


def nested_dicom(path, depth):
    """Sequences in sequences, of undefined length, by hand."""
    write_changed(path)
    content = path.read_bytes()
    sequence = bytes.fromhex("0840 7022")[:0] + struct.pack(
        "<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF
    )
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    place = content.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OB")[:4])
    path.write_bytes(content[:place] + (sequence + item) * depth + content[place:])
    return path


def test_dicom_sequences_without_end(tmp_path):
    for depth in (100, 5_000, 100_000):
        path = nested_dicom(tmp_path / f"{depth}.dcm", depth)
        assert_refused(lambda path=path: read_image(path))


def test_dicom_compressed_bombs(tmp_path):
    image = dicom(np.zeros((8, 8), np.uint8))
    image.file_meta.TransferSyntaxUID = RLELossless
    from pydicom.encaps import encapsulate

    header = struct.pack("<16I", 1, 64, *([0] * 14))
    image.Rows = image.Columns = 13_000
    image.PixelData = encapsulate([header + b"\x81\x00" * 1000])
    image["PixelData"].is_undefined_length = True
    assert_refused(lambda: read_image(write_dicom(tmp_path / "rle.dcm", image)))
    from pydicom.uid import JPEG2000Lossless

    image.file_meta.TransferSyntaxUID = JPEG2000Lossless
    image.Rows = image.Columns = 8
    image.PixelData = encapsulate([jpeg2000(60_000, 60_000)])
    image["PixelData"].is_undefined_length = True
    assert_refused(lambda: read_image(write_dicom(tmp_path / "j2k.dcm", image)))


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.99])
def test_dicom_cut_short(tmp_path, keep):
    path = write_changed(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert_refused(lambda: read_image(path))


# ---- volumes


def vol(path, width, count, height, slo=(20, 18), header=512):
    write_vol(path, bscans().astype(np.float32) / 255)
    content = bytearray(path.read_bytes())
    struct.pack_into("<3i", content, 12, width, count, height)
    struct.pack_into("<2i", content, 48, *slo)
    struct.pack_into("<i", content, 100, header)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "claim",
    [
        (2**31 - 1, 2**31 - 1, 2**31 - 1),
        (-40, -3, 24),
        (40, 3, 24, (2**31 - 1, 2**31 - 1)),
        (40, 3, 24, (-20, -18)),
        (40, 3, 24, (20, 18), -512),
        (0, 0, 0),
    ],
)
def test_vol_whose_header_lies(tmp_path, claim):
    assert_refused(lambda: read_image(f"{vol(tmp_path / 'a.vol', *claim)}#0"))


@pytest.mark.slow
def test_e2e_that_claims_or_circles(tmp_path):
    write_e2e(tmp_path / "a.e2e", {1: bscans(top=4000)})
    sound = (tmp_path / "a.e2e").read_bytes()
    for place in range(36, len(sound) - 4, 4):
        if place > 600:
            break
        for value in (2**32 - 1, 2**31, 36, 0):
            path = tmp_path / f"{place}-{value}.e2e"
            path.write_bytes(sound[:place] + struct.pack("<I", value) + sound[place + 4 :])
            try:
                read_image(f"{path}#0")
            except InputError as error:
                assert str(path) in str(error)
            path.unlink()


def test_topcon_that_claims(tmp_path):
    write = lambda *chunks: write_topcon(tmp_path / "a.fda", *chunks)  # noqa: E731
    giant = struct.pack("<B6I", 2, 0, 0, 2**31, 2**31, 2**31, 0)
    assert_refused(lambda: read_image(write(topcon_chunk("@IMG_JPEG", giant))))
    raw = struct.pack("<B4IBI", 2, 2**31, 2**31, 16, 2**31, 0, 0)
    assert_refused(lambda: read_image(write(topcon_chunk("@IMG_SCAN_03", raw))))
    path = write(topcon_compressed(bscans()))
    for other in (jpeg2000(10_000, 10_000), jpeg2000(60_000, 60_000), jpeg2000(40, 24, 16384)):
        chunk = struct.pack("<B6I", 2, 0, 0, 40, 24, 1, 0) + struct.pack("<I", len(other)) + other
        assert_refused(lambda chunk=chunk: read_image(write(topcon_chunk("@IMG_JPEG", chunk))))
    many = path.read_bytes()[:15] + (b"\x01a" + struct.pack("<I", 0)) * 200_000 + b"\0"
    path.write_bytes(many)
    assert_refused(lambda: read_image(path))


@pytest.mark.slow
def test_sparse_files_of_terabytes_are_not_read(tmp_path):
    """A file can be as long as its header says without holding anything."""
    for name, begin in (("a_512x128.img", b""), ("a.npy", b"\x93NUMPY\1\0"), ("a.png", png(8, 8))):
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(begin)
            file.truncate(2**42)
        outcome = bounded(lambda path=path: next(iter(iter_images(path))).shape)
        assert outcome.kind in ("InputError", "returned"), outcome
        assert outcome.megabytes < 300, outcome
        assert stat.S_ISREG(Path(path).stat().st_mode)
        path.unlink()
