"""Downloads that go on where they stopped, are checked, and get their name only when whole.

What is there of a file lies beside its place as ``<name>.part``, with what tells whether the server
still holds the same bytes (RFC 9110, If-Range). The Hugging Face hub's own library is asked for a
file's address, hash and rights; it does not go on with the download of an earlier process.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from retfiner.common.errors import InputError
from retfiner.common.faults import is_disk_full
from retfiner.common.files import file_sha256, lock_file
from retfiner.common.progress import progress
from retfiner.vision.sniff import require_checkpoint_file

ATTEMPTS = 5
PAUSE = 2.0
"""Seconds to wait after a broken connection, longer each time."""
TIMEOUT = 60.0
BLOCK = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where a file comes from.

    Attributes:
        url: Its address.
        version: What tells this version of it from others, if that is known beforehand.
        token: Shown to this host alone, not to one that it sends us on to.
    """

    url: str
    version: str | None = None
    token: str | None = None


def download(source: Source, target: Path, sha256: str | None = None) -> str:
    """Download a checkpoint over HTTPS.

    Args:
        source: Where it comes from.
        target: Where to put it.
        sha256: Hash that its bytes must have, if one is known.

    Returns:
        SHA-256 of what was downloaded.

    Raises:
        InputError: If it cannot be had, has another hash, or is no checkpoint.
    """
    part = target.with_name(f"{target.name}.part")
    with _alone(part):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _fetch(source, part)
                break
            except (OSError, HTTPException) as error:
                if isinstance(error, OSError) and is_disk_full(error):
                    raise
                refused = isinstance(error, HTTPError) and error.code < 500 and error.code != 429
                if refused or attempt == ATTEMPTS:
                    raise _broken(source.url, error, part) from error
                time.sleep(PAUSE * attempt)
        digest = _put_in_place(part, target, sha256)
        _mark_of(part).unlink(missing_ok=True)
    return digest


def on_hub(repository: str, name: str) -> tuple[Source, str | None]:
    """Ask the Hugging Face hub about a file.

    Args:
        repository: ``owner/name``.
        name: Of the file in it.

    Returns:
        Where it comes from, and the SHA-256 that the hub states.

    Raises:
        InputError: If the hub cannot be asked, or asks for consent to terms.
    """
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    url = hf_hub_url(repository, name)
    page = url.partition("/resolve/")[0]
    try:
        about = get_hf_file_metadata(url)
    except (GatedRepoError, RepositoryNotFoundError) as error:  # strangers get the latter
        raise InputError(
            f"The Hugging Face hub gives {repository} to those alone who agreed to its terms",
            got=str(error).split("\n", maxsplit=1)[0],
            remedy=f"log in at {page} and agree; make a token at "
            f"{page.removesuffix('/' + repository)}/settings/tokens; then `hf auth login`, and "
            "this command again",
        ) from error
    except Exception as error:  # of whichever library the hub's own goes by
        raise _broken(page, error) from error
    sha256 = about.etag if re.fullmatch("[0-9a-f]{64}", about.etag or "") else None
    return Source(url, about.etag, get_token()), sha256


def _fetch(source: Source, part: Path) -> None:
    """Read a file to its end, from where it stopped if its server still has the same bytes."""
    done, mark = part.stat().st_size if part.exists() else 0, _mark_of(part)
    same = mark.read_text(encoding="utf-8") if done and mark.exists() else ""
    headers = {"User-Agent": "retfiner", "Accept-Encoding": "identity"}
    if same and source.version in (None, same):
        headers |= {"Range": f"bytes={done}-"}
        headers |= {"If-Range": same} if source.version is None else {}
    request = Request(source.url, headers=headers)
    if source.token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {source.token}")
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and _total(error.headers) == done:  # all was there already
            return
        if error.code == 416:
            part.unlink()
            raise ConnectionError("the file on the server is another one now") from error
        raise
    with response:
        goes_on = response.status == 206
        done = done if goes_on else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        _require_room(part.parent, int(length or 0))
        mark.write_text(source.version or _validator(response.headers), encoding="utf-8")
        title = f"downloading {part.stem}"
        with part.open("ab" if goes_on else "wb") as file, progress(title, total, "B") as bar:
            bar.update(done)
            while block := response.read1(BLOCK):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and part.stat().st_size != total:
        raise ConnectionError(f"the connection broke at {part.stat().st_size:,} of {total:,} bytes")


def _mark_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.source")


def _validator(headers: Message) -> str:
    """Give what tells whether a file is still the same; a weak tag does not."""
    tag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


def _total(headers: Message) -> int | None:
    found = re.search(r"/(\d+)$", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _put_in_place(part: Path, target: Path, sha256: str | None) -> str:
    """Check what was downloaded and give it its name, or remove it."""
    try:
        require_checkpoint_file(part)
        digest = file_sha256(part)
        if sha256 not in (None, digest):
            raise InputError(
                f"What was downloaded is not the {target.name} that is known",
                got=f"SHA-256 {digest}",
                expected=f"SHA-256 {sha256}",
                remedy="try again; if it stays so, its authors may have put another file there: "
                f"one that you download yourself into {target.parent} is used as it is",
            )
    except InputError:
        part.unlink()
        _mark_of(part).unlink(missing_ok=True)
        raise
    part.replace(target)
    return digest


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f"There is too little room in {folder}",
            got=f"{free / 1e9:.1f} GB",
            expected=f"{size / 1e9:.1f} GB",
            remedy="make room, or give a folder on another disk with --output",
        )


def _broken(url: str, error: Exception, part: Path | None = None) -> InputError:
    there = part.stat().st_size if part is not None and part.is_file() else 0
    kept = f"; {there:,} bytes are kept, and the same command goes on from there" if there else ""
    return InputError(
        f"The download of {url} failed",
        got=str(error).strip().split("\n", maxsplit=1)[0] or type(error).__name__,
        remedy=f"look at the connection and at the address in a browser{kept}",
    )


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Hold other processes off the same download."""
    part.parent.mkdir(parents=True, exist_ok=True)
    path = part.with_name(f"{part.name}.lock")
    said = f"Another process is downloading {part.stem}"
    lock = lock_file(path, 0, lambda: InputError(said, remedy="wait until it is done"))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
