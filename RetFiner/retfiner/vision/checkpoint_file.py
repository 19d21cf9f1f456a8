"""Read a checkpoint file without running anything it contains."""

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from retfiner.common.errors import InputError, Stopped, shorten
from retfiner.vision.sniff import is_safetensors, require_checkpoint_file

MAX_SHARING = 4
"""How many times its file's bytes the tensors of a checkpoint may make, sharing some of them."""

OWN_KEY = "retfiner"
"""Under this key a file written by us says what it holds."""


@dataclass(frozen=True)
class RawCheckpoint:
    """A checkpoint as it lies in the file.

    Attributes:
        content: The file's top level: tensors by key, or a training run's bookkeeping.
        metadata: What we wrote about our own file (backbone, image size, heads, ...), else empty.
    """

    content: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path | str) -> RawCheckpoint:
    """Read safetensors or what ``torch.save`` wrote, whatever the file is called, onto the CPU.

    Only tensors, plain Python values and ``argparse.Namespace`` (which MAE-like training code
    stores) are unpickled; anything else in the file is refused, never executed.

    Raises:
        InputError: If the file is missing, empty, damaged, no checkpoint at all, or needs other
            classes to be unpickled.
    """
    path = Path(path)
    require_checkpoint_file(path)
    with path.open("rb") as file:
        start = file.read(16)
    if is_safetensors(start) or path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    content = _unpickle(path)
    _require_held(content, path)
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path} holds something else than a dictionary",
            got=type(content).__name__,
            expected="tensors by key, as in a state dict",
        )
    return RawCheckpoint(content, _own_metadata(content, path))


def _unpickle(path: Path) -> Any:
    archive = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        if file.read(2) == b"PK" and not archive:
            raise _damaged(path, "an archive without its end, as after an interrupted download")
    try:
        if archive:
            with zipfile.ZipFile(path) as packed:
                size = sum(info.file_size for info in packed.infolist())
                _require_torchs(packed.namelist(), path)
            if size > path.stat().st_size:  # torch packs nothing
                found = f"an archive of {size:,} bytes in a file of {path.stat().st_size:,}"
                raise _damaged(path, found)
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapping the file leaves optimizer states, most of a training checkpoint, on disk.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except (InputError, Stopped):
        raise
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"{path} cannot be read safely",
            got=refused[1] if refused else "a pickle that is damaged or does more than hold data",
            expected="tensors, plain Python values and argparse.Namespace only",
            remedy="if you trust its source, load it where its own code is installed and save the "
            "state dict alone: torch.save(model.state_dict(), ...)",
        ) from error
    except Exception as error:  # a damaged archive or pickle makes torch.load raise any kind
        raise _damaged(path, str(error).split("\n", maxsplit=1)[0]) from error


def _require_torchs(names: list[str], path: Path) -> None:
    """Refuse archives that ``torch.save`` did not write."""
    if any(name.endswith("/constants.pkl") for name in names):
        found, remedy = "a model in TorchScript", "save the state_dict() of torch.jit.load(...)"
    elif not any(name.endswith("data.pkl") for name in names):
        found, remedy = f"an archive of {shorten(names)}", "unpack it"
    else:
        return
    raise InputError(
        f"{path} is no checkpoint",
        got=found,
        expected="a .safetensors file or one written by torch.save",
        remedy=remedy,
    )


def _require_held(content: Any, path: Path) -> None:
    """Refuse tensors that are larger than what the file holds for them.

    A shape is but a few numbers: one that repeats or invents values takes no room in the file, and
    all memory as soon as it is copied.
    """
    claimed = 0
    for tensor in _tensors_of(content):
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise _damaged(path, f"a tensor that is {tensor.layout} on {tensor.device}")
        claimed += tensor.numel() * tensor.element_size()
    # Weights that are tied, or listed twice, share their values.
    if claimed > MAX_SHARING * max(path.stat().st_size, 1 << 20):
        raise _damaged(
            path, f"tensors of {claimed:,} bytes in a file of {path.stat().st_size:,} bytes"
        )


def _tensors_of(content: Any, depth: int = 3) -> Iterator[Tensor]:
    """Give the tensors of the levels where weights lie."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping) and depth:
        for value in content.values():
            yield from _tensors_of(value, depth - 1)


def _read_safetensors(path: Path) -> RawCheckpoint:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except Exception as error:
        raise _damaged(path, str(error).split("\n", maxsplit=1)[0]) from error
    if OWN_KEY not in metadata:
        return RawCheckpoint(content)
    try:
        own = json.loads(metadata[OWN_KEY])
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"metadata {OWN_KEY!r} that is no JSON") from error
    return RawCheckpoint(content, _checked(own, path))


def _own_metadata(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Find our metadata: an entry of its own or, in a flat state dict, torch's ``_metadata``."""
    beside = getattr(content, "_metadata", None)
    own = content.get(OWN_KEY)
    if own is None and isinstance(beside, Mapping):
        own = beside.get(OWN_KEY)
    return {} if own is None else _checked(own, path)


def _checked(own: Any, path: Path) -> Mapping[str, Any]:
    needed = {"backbone": str, "image_size": int, "num_heads": int, "provenance": Mapping}
    if not isinstance(own, Mapping) or any(
        not isinstance(own.get(key), kind) for key, kind in needed.items()
    ):
        raise _damaged(path, f"an entry {OWN_KEY!r} without {', '.join(needed)}")
    return own


def _damaged(path: Path, found: str) -> InputError:
    return InputError(
        f"{path} is damaged or no checkpoint",
        got=found,
        expected="a .safetensors file or one written by torch.save",
        remedy="download or write the file again and compare its size with the source's",
    )
