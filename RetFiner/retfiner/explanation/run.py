"""What ``explain.py`` does: read a model and a pair, write a picture and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from retfiner.common.errors import InputError
from retfiner.common.faults import explained_faults
from retfiner.common.files import write_text
from retfiner.common.progress import LOADING, progress
from retfiner.data.table_file import read_early
from retfiner.explanation.config import ExplainConfig
from retfiner.text.folder import require_tokenizer
from retfiner.vision.images import ImageAddress, read_image
from retfiner.vision.sniff import checkpoint_of

if TYPE_CHECKING:
    from retfiner.explanation.explain import ExamExplanation, Explanation


@explained_faults(memory="a machine or GPU with more memory, or --device cpu")
def run(config: ExplainConfig) -> list[Path]:
    """Explain a pair, write what is asked for, and return the files.

    Raises:
        InputError: If the model, the image or the row cannot be used.
    """
    _require_subject(config)
    checkpoint_of(config.model)
    if config.text_encoder is not None:
        require_tokenizer(config.text_encoder)
    # These need torch, which a wrong path does not wait for.
    with progress(LOADING):
        from retfiner.common.devices import resolve_device
        from retfiner.explanation.figure import write_figure
        from retfiner.explanation.page import build_page
        from retfiner.export.loading import read_model

    loaded = read_model(config.model, resolve_device(config.device), config.text_encoder)
    name, explanation = _explain(config, loaded)
    written = [config.output / f"{name}.png"]
    is_legible = write_figure(written[0], explanation, config.maps == "weighted")
    if config.html:
        written.append(config.output / f"{name}.html")
        write_text(written[1], build_page(explanation))
    print(f"Match:          {explanation.match:.3f}, by the model; not calibrated")
    print(f"Layer:          {explanation.layer}")
    _print_words(explanation, config.maps == "weighted")
    if explanation.unread:
        print(f"Beyond the cut: {' '.join(word.text for word in explanation.unread)}")
    for path in written:
        print(f"Written to:     {path}")
    if not is_legible:
        print("Note:           no installed font has all letters of the report, which the picture")
        print("                shows as boxes; --html writes a page that shows them")
    return written


def _require_subject(config: ExplainConfig) -> None:
    """Check what can be checked without the model: that file, columns and row are there."""
    if config.image is not None:
        address = ImageAddress.parse(config.image)
        if not address.path.exists():
            read_image(address)  # which says so
        return
    assert config.data is not None
    given = (config.image_column, config.report_column, config.patient_column, config.group_column)
    table = read_early(config.data, [name for name in given if name not in (None, "none")])
    if table is None:
        return
    if config.row not in table.rows or config.row in table.broken:
        raise InputError(
            f"{config.data} has no such row",
            got=table.broken.get(config.row, f"--row {config.row}") if config.row else None,
            expected=f"a row from {table.rows[0]} to {table.rows[-1]}" if table.rows else "rows",
        )


def _explain(config: ExplainConfig, loaded: Any) -> tuple[str, Explanation | ExamExplanation]:
    """Explain what is named, and give it a name for files."""
    from retfiner.explanation.explain import explain, explain_exam
    from retfiner.explanation.subject import named_by_hand, named_by_row
    from retfiner.vision.images.in_memory import to_grayscale

    if config.image is not None:
        subject, report = named_by_hand(loaded, config.image), str(config.report)
    else:
        subject, report = named_by_row(loaded, config)
    if isinstance(subject, ImageAddress):
        row = None if config.image is not None else f"row_{config.row}"  # IM01 is in every folder
        parts = (row, subject.path.stem, subject.member, subject.index)
        name = "_".join(str(part) for part in parts if part not in (None, ""))
        return name, explain(loaded, read_image(subject), report, config.layer)
    name = f"exam_row_{config.row}" if config.image is None else Path(config.image).stem
    pictures = [to_grayscale(image) for image in subject.images]
    marks = subject.marks
    return name, explain_exam(loaded, pictures, subject.names, marks, report, config.layer)


def _print_words(explanation: Explanation | ExamExplanation, weighted: bool) -> None:
    """Say of an exam which image each word looks at most."""
    from retfiner.explanation.explain import ExamExplanation

    if not isinstance(explanation, ExamExplanation):
        return
    print(f"Images:         {len(explanation.images)}; each word, where it looks most:")
    for word, shares in zip(explanation.words, explanation.shares(weighted), strict=True):
        best = int(shares.argmax())
        print(f"  {word.text:<20}  {explanation.names[best]}: {shares[best]:.0%} of its map")
