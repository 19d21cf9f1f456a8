"""What ``pretrained_weights/get.py`` does: list, download and check, or say where to click."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from retfiner.common.cli import flag
from retfiner.common.commands import command, shorter
from retfiner.common.errors import InputError
from retfiner.common.faults import explained_faults
from retfiner.common.files import file_sha256
from retfiner.vision.published.download import Source, download, on_hub
from retfiner.vision.published.find import DOWNLOADS, GET, downloaded, entry_named
from retfiner.vision.published.registry import WEIGHTS, PublishedWeights
from retfiner.vision.sniff import require_checkpoint_file

DESCRIPTION = "Download published weights; without a name, list them."


@dataclass(frozen=True)
class GetConfig:
    """Settings of ``get.py``."""

    name: str | None = flag(
        "the weights, as the list names them; by default the list is shown", None, positional=True
    )
    output: Path = flag("folder to download to", DOWNLOADS)


@explained_faults()
def get(name: str, output: Path) -> Path:
    """Download weights, or see that they are there, and check them.

    Raises:
        InputError: If they cannot be downloaded, are damaged, or need a browser.
    """
    entry = entry_named(name)
    print(f"{entry.name}: {entry.paper}")
    print(f"Licence:  {entry.licence}; terms at {entry.page}")
    there = downloaded(entry, [output])
    if there is not None:
        _check(entry, there)
        return there
    target = output / entry.files[0]
    if entry.url is not None:
        digest = download(Source(entry.url), target, entry.sha256)
    elif entry.hub is not None:
        source, of_hub = on_hub(entry.hub, target.name)
        digest = download(source, target, entry.sha256 or of_hub)
    else:
        raise InputError(
            f"{entry.name} can be downloaded in a browser only",
            expected=f"{entry.files[0]}, {_size_of(entry) or '?'} GB",
            remedy=f"open {entry.drive}, click on Download, and move the file into "
            f"{shorter(output)}; {command(GET, entry.name)} then looks at it",
        )
    known = "as known" if entry.sha256 else "for your record; none is published"
    print(f"Written:  {shorter(target)}\nSHA-256:  {digest} ({known})")
    return target


def _check(entry: PublishedWeights, path: Path) -> None:
    """See that a file that is there is the published one, as far as that can be told."""
    require_checkpoint_file(path)
    if entry.sha256 is None or path.name != entry.files[0]:
        print(f"There:    {shorter(path)} (no hash is published to check it by)")
        return
    digest = file_sha256(path)
    if digest != entry.sha256:
        raise InputError(
            f"{shorter(path)} is not the published {entry.name}",
            got=f"SHA-256 {digest}",
            expected=f"SHA-256 {entry.sha256}",
            remedy="remove or rename it, and run the same command again",
        )
    print(f"There:    {shorter(path)} (SHA-256 as known)")


def show(entries: Iterable[PublishedWeights] = WEIGHTS, output: Path = DOWNLOADS) -> None:
    """Print the list, with what is downloaded already."""
    from rich import box
    from rich.table import Table

    from retfiner.common.console import wide_console

    console = wide_console(140)
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("", "name", "GB", "input", "licence", "from"):
        table.add_column(title, overflow="fold", no_wrap=title == "name")
    for entry in entries:
        there = "*" if downloaded(entry, [output]) is not None else ""
        table.add_row(there, entry.name, _size_of(entry) or "?", entry.input, entry.licence,
                      f"{entry.page}{_note(entry)}")  # fmt: skip
    console.print(table)
    print(f"* is in {shorter(output)}.  ? is not published.")
    print(f"Next:    {command(GET, 'RETFound')}")


def _note(entry: PublishedWeights) -> str:
    if entry.drive is not None:
        return " (in a browser)"
    return " (login and consent)" if entry.gated else ""


def _size_of(entry: PublishedWeights) -> str:
    return "" if entry.gigabytes is None else f"{entry.gigabytes:.2f}"
