"""What stands beside pixels goes, and no pixel changes."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from retfiner.data.check.metadata import without_remarks
from retfiner.vision import read_image

SECRET = "Erika Mustermann, born 1931"
GRAY = np.random.default_rng(0).integers(0, 256, (40, 56), np.uint8)


def exif(turned=1):
    found = Image.Exif()
    found[ExifTags.Base.ImageDescription] = SECRET
    found[ExifTags.Base.Orientation] = turned
    return found


def written(mode, format, **options):
    stream = io.BytesIO()
    values = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], -1) if mode != "L" else GRAY
    Image.fromarray(values).convert(mode).save(stream, format, **options)
    return stream.getvalue()


def png(turned=1, depth=8):
    text, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text("Patient", SECRET)
    text.add_itxt("Author", SECRET)
    values = GRAY if depth == 8 else GRAY.astype(np.uint16) * 200
    Image.fromarray(values).save(stream, "PNG", pnginfo=text, exif=exif(turned))
    return stream.getvalue() + SECRET.encode()


def several_pictures():
    """As cameras write them: a preview behind the picture, which names whom it shows as well."""
    stream, preview = io.BytesIO(), Image.fromarray(GRAY[::2, ::2])
    Image.fromarray(GRAY).save(
        stream, "MPO", save_all=True, append_images=[preview], exif=exif(), comment=SECRET
    )
    return stream.getvalue() + SECRET.encode()


PICTURES = {
    "png": png,
    "png of 16 bits": lambda: png(depth=16),
    "png on its side": lambda: png(6),
    "jpg": lambda: written("L", "JPEG", exif=exif(), comment=SECRET.encode()),
    "jpg on its side": lambda: written("RGB", "JPEG", exif=exif(8), comment=SECRET.encode()),
    "progressive jpg": lambda: written(
        "RGB", "JPEG", exif=exif(3), progressive=True, xmp=SECRET.encode()
    ),
    "jpg with restarts": lambda: written("L", "JPEG", exif=exif(), restart_marker_blocks=2),
    "jpg of a printer": lambda: written("CMYK", "JPEG", exif=exif(5)),
    "jpg with a preview": several_pictures,
}


@pytest.mark.parametrize("kind", PICTURES)
def test_names_go_and_pixels_stay(tmp_path, kind):
    content = PICTURES[kind]()
    bare = without_remarks(content)
    assert SECRET.encode() in content and SECRET.encode() not in bare
    before, after = (tmp_path / f"{name}.{kind[:3]}" for name in ("before", "after"))
    before.write_bytes(content)
    after.write_bytes(bare)
    np.testing.assert_array_equal(read_image(after), read_image(before))
    assert without_remarks(bare) == bare


@pytest.mark.parametrize("kind", PICTURES)
def test_what_is_cut_anywhere_is_cut_afterwards(kind):
    content = PICTURES[kind]()
    for end in range(2, len(content), 97):
        assert len(without_remarks(content[:end])) <= end + 64
    assert without_remarks(b"II*\0 no picture") == b"II*\0 no picture"
