"""Whether a file can be a checkpoint at all, by its first bytes and without torch.

``images/sniff.py`` does the like for images.
"""

import re
from pathlib import Path

from retfiner.common.errors import InputError

_PICKLES = (b"PK\x03\x04", b"\x80")
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")
_PART = re.compile(r"-\d{5}-of-(?!00001)\d{5}\b")
_JOIN = "join the parts: load each, put all keys into one dictionary, and save that"
_OTHERS = {
    ".onnx": "a model in ONNX",
    ".h5": "a file of Keras or HDF5",
    ".keras": "a model of Keras",
    ".pb": "a model of TensorFlow",
    ".tflite": "a model of TensorFlow",
    ".msgpack": "weights of Flax",
    ".npz": "weights of JAX",
    ".gguf": "weights of llama.cpp",
    ".json": "a list or settings, no weights",
}
"""Suffix -> what other frameworks write into such files."""


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


def is_safetensors(start: bytes) -> bool:
    """Say whether a file begins as safetensors do: the length of a JSON dictionary, and it."""
    return start[5:9] == b"\0\0\0{"


def require_checkpoint_file(path: Path) -> None:
    """Refuse early, and in plain words, what is no checkpoint at all.

    Raises:
        InputError: If it is missing, empty, a part, or something else by its name or first bytes.
    """
    if not path.is_file():
        raise InputError(
            f"There is no checkpoint at {path}",
            got="a folder" if path.is_dir() else "nothing",
            remedy=_in_folder(path)
            or "correct the path; pretrained_weights/get.py lists what can be downloaded",
        )
    with path.open("rb") as file:
        start = file.read(512)
    found = not_downloaded(start)
    remedy = "download the file again, in a browser if its host asks for a login"
    is_named_safetensors = path.suffix.lower() == ".safetensors"
    if not start:
        found = "an empty file"
    elif _PART.search(path.name):
        found, remedy = "one of several parts of a checkpoint", _JOIN
    elif path.suffix.lower() in _OTHERS:
        found = _OTHERS[path.suffix.lower()]
        remedy = "give the weights as PyTorch has them"
    elif start.startswith(_PACKED):
        found, remedy = "a packed file", "unpack it"
    elif is_named_safetensors and not is_safetensors(start) and start.startswith(_PICKLES):
        found = "what torch.save writes, under a name of safetensors"
        remedy = f"rename it: {path.stem}.pth"
    elif not (found or is_named_safetensors or is_safetensors(start) or start.startswith(_PICKLES)):
        found = f"a file that begins with {start[:12]!r}"
    if found is not None:
        raise InputError(
            f"{path} is no checkpoint",
            got=found,
            expected="a .safetensors file or one written by torch.save",
            remedy=remedy,
        )


def _in_folder(folder: Path) -> str | None:
    """Say what to do with a folder that others write a checkpoint as."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return f"give the file in it: {folder / name}"
    if any(folder.glob("*.index.json")):
        return _JOIN
    if any(folder.glob("*.distcp")):
        return f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} one.pth"
    if any(folder.glob("*/*model_states.pt")):
        return "give a *_model_states.pt in it; with ZeRO 3, run the zero_to_fp32.py beside it"
    return None
