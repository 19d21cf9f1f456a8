"""MetaImage volumes: a text header, ``.mhd``, and a file of bare values beside it."""

from __future__ import annotations

from pathlib import Path

from linprobe.prepare.pixels import as_gray
from linprobe.prepare.spec import GrayImage
from retfiner.common.errors import InputError

MAX_SIDE = 65536
"""No side of a scan has as many values."""

MAX_VALUE = 1024
"""No value of a header has as many characters."""

ELEMENT_TYPES = tuple(
    f"MET_{name}" for name in ["UCHAR", "CHAR", "USHORT", "SHORT", "UINT", "INT", "FLOAT", "DOUBLE"]
)

_AGAIN = "download it again; header and values belong into the same folder"


def count_slices(header: Path) -> int:
    """Tell how many B-scans a volume has, and make sure that its values are there.

    Returns:
        The last of its three sizes (width, height, B-scans).

    Raises:
        InputError: If the header is damaged or the file of values is missing.
    """
    fields = _read_header(header)
    sizes = fields.get("DimSize", "").split()
    if len(sizes) != 3 or not all(_is_size(size) for size in sizes):
        raise InputError(
            f"{header} does not describe a volume",
            got=f"DimSize = {fields.get('DimSize', 'nothing')[:80]}",
            expected="DimSize = <width> <height> <B-scans>",
            remedy=_AGAIN,
        )
    _check_kind(header, fields)
    name = fields.get("ElementDataFile", "")
    if name != Path(name).name or "%" in name:
        raise InputError(
            f"{header} takes its values from another folder, or from several files",
            got=f"ElementDataFile = {name[:200]}",
            expected="the name of a file beside it",
            remedy=_AGAIN,
        )
    if fields.get("CompressedData", "False").lower() != "false":
        raise InputError(f"{header} names compressed values", expected="bare values", remedy=_AGAIN)
    values = header.parent / name
    if not values.is_file():
        raise InputError(
            f"The values of {header} are missing",
            got=f"no file {values.name}" if fields.get("ElementDataFile") else "no ElementDataFile",
            expected="the file that the header names, beside it",
            remedy=_AGAIN,
        )
    return int(sizes[2])


def _check_kind(header: Path, fields: dict[str, str]) -> None:
    """Refuse what a published header never says: some of it ends SimpleITK's whole process."""
    axes, kind = fields.get("NDims", "3"), fields.get("ElementType", "")
    channels = fields.get("ElementNumberOfChannels", "1")
    longest = max((len(value) for value in fields.values()), default=0)
    if axes != "3" or kind not in ELEMENT_TYPES or channels != "1" or longest > MAX_VALUE:
        raise InputError(
            f"{header} describes no volume of gray values",
            got=f"NDims = {axes[:20]}, ElementType = {kind[:40]}, {channels[:20]} channels",
            expected=f"three axes, one channel, one of {', '.join(ELEMENT_TYPES)}",
            remedy=_AGAIN,
        )


def _read_header(header: Path) -> dict[str, str]:
    try:
        lines = header.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{header} cannot be read", got=error, remedy=_AGAIN) from error
    pairs = [line.partition("=") for line in lines if "=" in line]
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    if len(fields) < len(pairs):  # SimpleITK may take the first where we take the last
        raise InputError(f"{header} says something twice", remedy=_AGAIN)
    return fields


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text[:10]) < MAX_SIDE and len(text) < 10


def read_slice(header: Path, index: int) -> GrayImage:
    """Read one B-scan of a volume; the rest of it stays on the disk.

    Returns:
        (H, W), 8 bit.

    Raises:
        InputError: If the volume cannot be read or its values are no gray values.
    """
    import SimpleITK as sitk  # noqa: N813 - the field's habit

    count_slices(header)  # what a header may say is checked before SimpleITK acts on it
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(header))
    try:
        reader.ReadImageInformation()
        width, height, count = reader.GetSize()
        if index >= count:
            raise InputError(f"{header} has no B-scan {index}", got=f"{count} B-scans")
        reader.SetExtractIndex([0, 0, index])
        reader.SetExtractSize([width, height, 0])
        values = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        got = str(error).strip().splitlines()[-1]
        raise InputError(f"{header} is no intact volume", got=got, remedy=_AGAIN) from error
    return as_gray(values, f"{header}, B-scan {index}")
