"""What ``explain.py`` does: read a model and a pair, write a picture and a page."""

from __future__ import annotations

from pathlib import Path

from retfiner.common.errors import InputError
from retfiner.common.files import write_text
from retfiner.common.progress import LOADING, progress
from retfiner.data.pair_table import locate_image
from retfiner.data.report_text import read_report
from retfiner.data.table_file import read_table
from retfiner.explanation.config import ExplainConfig
from retfiner.text.folder import require_tokenizer
from retfiner.vision.images import ImageAddress, read_image
from retfiner.vision.sniff import checkpoint_of


def run(config: ExplainConfig) -> list[Path]:
    """Explain a pair, write what is asked for, and return the files.

    Raises:
        InputError: If the model, the image or the row cannot be used.
    """
    address, report = _pair(config)
    image = read_image(address)
    checkpoint_of(config.model)
    if config.text_encoder is not None:
        require_tokenizer(config.text_encoder)
    # These need torch, which a wrong path does not wait for.
    with progress(LOADING):
        from retfiner.common.devices import resolve_device
        from retfiner.explanation.explain import explain
        from retfiner.explanation.figure import write_figure
        from retfiner.explanation.page import build_page
        from retfiner.export.loading import read_model

    loaded = read_model(config.model, resolve_device(config.device), config.text_encoder)
    explanation = explain(loaded, image, report, config.layer)
    parts = (address.path.stem, address.member, address.index)
    name = "_".join(str(part) for part in parts if part not in (None, ""))
    written = [config.output / f"{name}.png"]
    write_figure(written[0], explanation, config.maps == "weighted")
    if config.html:
        written.append(config.output / f"{name}.html")
        write_text(written[1], build_page(explanation))
    print(f"Match:          {explanation.match:.3f}, by the model; not calibrated")
    print(f"Layer:          {explanation.layer}")
    if explanation.unread:
        print(f"Beyond the cut: {' '.join(word.text for word in explanation.unread)}")
    for path in written:
        print(f"Written to:     {path}")
    return written


def _pair(config: ExplainConfig) -> tuple[ImageAddress, str]:
    if config.image is not None and config.report is not None:
        return ImageAddress.parse(config.image), config.report
    assert config.data is not None
    table = read_table(config.data, [config.image_column, config.report_column], ["slice"])
    if config.row not in table.rows or config.row in table.broken:
        raise InputError(
            f"{config.data} has no such row",
            got=table.broken.get(config.row, f"--row {config.row}") if config.row else None,
            expected=f"a row from {table.rows[0]} to {table.rows[-1]}" if table.rows else "rows",
        )
    cells = {name: column[table.rows.index(config.row)] for name, column in table.cells.items()}
    root = config.data.parent if config.image_root is None else config.image_root
    image_cell, slice_cell = cells[config.image_column].strip(), cells.get("slice", "")
    image, unclear = locate_image(root, image_cell, slice_cell)
    if unclear:
        raise InputError(f"row {config.row} of {config.data} cannot be used", got=unclear)
    return image, read_report(cells[config.report_column]).text
