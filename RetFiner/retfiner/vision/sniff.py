"""Whether a file can be a checkpoint at all, by its first bytes and without torch.

``images/sniff.py`` does the like for images.
"""

from pathlib import Path

from retfiner.common.errors import InputError


def checkpoint_of(path: Path) -> Path:
    """Return a checkpoint, or that of a run's folder, after :func:`require_checkpoint_file`."""
    path = path / "best-model.ckpt" if path.is_dir() else path
    require_checkpoint_file(path)
    return path


def not_downloaded(start: bytes) -> str | None:
    """Say what a file that begins so is in place of a download; None if it is no such thing."""
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page (often a login or quota page saved in place of the download)"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; the file itself was never fetched"
    return None


def require_checkpoint_file(path: Path) -> None:
    """Refuse early, and in plain words, what is no checkpoint at all.

    Raises:
        InputError: If it is missing, empty, or something else by its first bytes.
    """
    if not path.is_file():
        raise InputError(
            f"There is no checkpoint at {path}",
            got="a folder" if path.is_dir() else "nothing",
            remedy="correct the path; pretrained_weights/get.py lists what can be downloaded",
        )
    with path.open("rb") as file:
        start = file.read(512)
    other = not_downloaded(start)
    if not start:
        found = "an empty file"
    elif other is not None:
        found = other
    elif path.suffix.lower() != ".safetensors" and not start.startswith((b"PK\x03\x04", b"\x80")):
        found = f"a file that begins with {start[:12]!r}"
    else:
        return
    raise InputError(
        f"{path} is no checkpoint",
        got=found,
        expected="a .safetensors file or one written by torch.save",
        remedy="download the file again, in a browser if its host asks for a login",
    )
