"""What a TIFF says of itself beyond what Pillow makes of it: depth, sign, and which pages to read.

Pillow hands over 16-bit values as stored. Whether white is 0, whether they are signed, and how many
bits they use are tags, which are looked at here.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, TiffImagePlugin

from retfiner.vision.images.image_file import Note, unusable

LITTLE, BIG = b"II", b"MM"

SUBFILE, OLD_SUBFILE, BITS, PHOTOMETRIC, DESCRIPTION, MAX_VALUE, SAMPLE_FORMAT = (
    254, 255, 258, 262, 270, 281, 339,
)  # fmt: skip
REDUCED, MASK = 1, 4
WHITE_IS_ZERO, SIGNED, FLOAT = 0, 2, 3

_SIGNIFICANT = re.compile(r'SignificantBits="(\d+)"')  # of OME's description

_UNKNOWN_TO_PILLOW = {
    (BIG, WHITE_IS_ZERO, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (LITTLE, WHITE_IS_ZERO, (2,), 1, (16,), ()): ("I", "I;16S"),
    (BIG, WHITE_IS_ZERO, (2,), 1, (16,), ()): ("I", "I;16BS"),
    (LITTLE, WHITE_IS_ZERO, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (BIG, WHITE_IS_ZERO, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (BIG, 1, (1,), 1, (12,), ()): ("I;16", "I;12"),
}
"""Layouts that Pillow decodes and does not list: its own, of the other byte order or white at 0."""

for _layout, _modes in _UNKNOWN_TO_PILLOW.items():
    TiffImagePlugin.OPEN_INFO.setdefault(_layout, _modes)


class Stated(NamedTuple):
    """What a page says of its gray values: bits of a value and how many of them are used."""

    bits: int
    used: int
    signed: bool
    white_is_zero: bool


def stated(image: Image.Image) -> Stated:
    """Read the tags of the page that an image stands at."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits = int(_first(tags.get(BITS), 1))
    used = bits
    said = _SIGNIFICANT.search(str(tags.get(DESCRIPTION, "")))
    highest = int(_first(tags.get(MAX_VALUE), 0))
    if said is not None and 8 <= int(said[1]) < bits:
        used = int(said[1])
    elif 8 < highest.bit_length() < bits and highest & (highest + 1) == 0:  # 4095, for example
        used = highest.bit_length()
    return Stated(
        bits,
        used,
        signed=_first(tags.get(SAMPLE_FORMAT), 1) == SIGNED,
        white_is_zero=_first(tags.get(PHOTOMETRIC), 1) == WHITE_IS_ZERO,
    )


def bscan_pages(image: Image.Image, path: Path) -> tuple[list[int], list[Note]]:
    """List the pages that are B-scans, without previews and masks, and say what was left out.

    A preview is a page that says so, or a smaller one of the same proportions.

    Raises:
        InputError: If pages of several sizes are left.
    """
    sizes = {}
    count = getattr(image, "n_frames", 1)
    for number in range(count):
        image.seek(number)
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        is_other = _first(tags.get(SUBFILE), 0) & (REDUCED | MASK)
        if not is_other and _first(tags.get(OLD_SUBFILE), 1) != 2:
            sizes[number] = image.size
    sizes = sizes or {0: image.size}
    full = max(sizes.values(), key=lambda size: size[0] * size[1])
    pages = [number for number, size in sizes.items() if size == full]
    others = [size for size in sizes.values() if size != full]
    if not all(_is_reduced(size, full) for size in others):
        found = ", ".join(f"{height} x {width}" for width, height in dict.fromkeys(sizes.values()))
        raise unusable(
            path,
            f"pages of several sizes: {found} pixels",
            "B-scans of one size",
            "save the B-scans alone, without fundus image or report",
        )
    left_out = count - len(pages)
    note = Note("TIFF with previews or masks, which are left out", f"{left_out} of {count} pages")
    return pages, [note] if left_out else []


def _is_reduced(size: tuple[int, int], full: tuple[int, int]) -> bool:
    """Say whether a page can be a smaller copy of another: of its proportions, up to rounding."""
    (width, height), (full_width, full_height) = size, full
    exact = width * full_height / full_width
    return width < full_width and abs(height - exact) <= 1 + full_height / full_width


def require_whole(image: Image.Image, path: Path) -> None:
    """Refuse a file that ends before the values of the page that an image stands at.

    Raises:
        InputError: If it does.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    end = path.stat().st_size
    for begins, sizes in ((273, 279), (324, 325)):  # strips, tiles
        places = tags.get(begins, ()), tags.get(sizes, ())
        needed = max((b + s for b, s in zip(*places, strict=False)), default=0)
        if needed > end:
            raise unusable(path, f"{end:,} bytes: the file is cut", f"{needed:,} bytes")


def _first(value: Any, otherwise: Any) -> Any:
    if isinstance(value, tuple):
        value = value[0] if value else None
    return otherwise if value is None else value


def unknown_layout(path: Path) -> str | None:
    """Say how a TIFF that Pillow does not open has its values; None where the file is another."""
    try:
        with path.open("rb") as file:
            directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            end = file.seek(0, 2)
            if directory.next >= end:
                return f"{end:,} bytes: the file is cut before its list of contents"
            file.seek(directory.next)
            directory.load(file)
            if not directory:
                return None
        bits, kind = directory.get(BITS, (1,)), _first(directory.get(SAMPLE_FORMAT), 1)
    except Exception:  # Pillow raises many kinds
        return None
    kinds = {SIGNED: "signed integers", FLOAT: "floats"}
    several = f"{len(bits)} values a pixel, " if len(bits) > 1 else ""
    return f"a TIFF of {several}{_first(bits, 1)} bits ({kinds.get(kind, 'integers')})"
