"""A contact sheet of all findings, to see at a glance what the phantoms look like."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from retfiner.common.files import whole_file
from retfiner.data.phantoms.cohort import stream
from retfiner.data.phantoms.optics import DEFAULT_SIZE, Size, check_size, draw
from retfiner.data.phantoms.scene import KINDS, Anatomy, Finding, Kind, Scan

SEVERITIES = 4


def contact_sheet(path: Path | str, seed: int = 0, size: Size = DEFAULT_SIZE) -> Path:
    """Draw every finding from mild to severe, one row each below a row of normal scans."""
    check_size(size)
    height, width = size
    rows: tuple[Kind | None, ...] = (None, *KINDS)
    sheet = Image.new("L", (width * SEVERITIES, height * len(rows)))
    pen = ImageDraw.Draw(sheet)
    subtypes = {"pigment_epithelial_detachment": "fibrovascular", "rnfl_thinning": "diffuse"}
    for row, kind in enumerate(rows):
        for column in range(SEVERITIES):
            severity = 0.15 + 0.85 * column / (SEVERITIES - 1)
            generator = stream(seed, row, column)
            findings: tuple[Finding, ...] = ()
            if kind is not None:
                own = int(generator.integers(2**31))
                findings = (Finding(kind, severity, 0.0, own, subtypes.get(kind, "")),)
            scan = Scan("sheet", "OD", 1, Anatomy.sample(generator), findings)
            drawing = draw(scan, generator, size)
            x, y = column * width, row * height
            sheet.paste(Image.fromarray(drawing.image), (x, y))
            for _, (row0, col0, row1, col1) in drawing.boxes:
                pen.rectangle((x + col0, y + row0, x + col1 - 1, y + row1 - 1), outline=110)
            title = f"{kind.replace('_', ' ')}, severity {severity:.2f}" if kind else "normal"
            pen.text((x + 6, y + 4), title, fill=200)
    with whole_file(path) as temporary:
        sheet.save(temporary, format="PNG")
    return Path(path)
