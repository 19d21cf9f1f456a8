"""A data set of the user's own: ``--dataset path/to/file.py:Class``."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch.utils.data import Dataset

from retfiner.common.errors import InputError
from retfiner.data.reference import split_reference


def load_dataset_class(reference: str) -> type:
    """Load a class from a file.

    Raises:
        InputError: If the reference has another form, or file or class do not exist.
    """
    path, class_name = split_reference(reference)
    name = f"retfiner_dataset_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their own module up
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise InputError(
            f"{path} cannot be imported",
            got=f"{type(error).__name__}: {error}",
            remedy=f"python {path} shows where",
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise InputError(
            f"{path} has no class {class_name}", got=f"classes {', '.join(classes) or 'none'}"
        )
    return found


class UserDataset(Dataset[Any]):
    """The user's data set, built with as many of the offered arguments as its class takes.

    It is pickled as its reference and rebuilt from the file: a spawned worker cannot import a class
    that was loaded from a path.

    Raises:
        InputError: If the class asks for an argument that is not offered, or is no data set.
    """

    def __init__(self, reference: str, **offered: Any) -> None:
        self.reference = reference
        self.offered = offered
        self.pairs = _build(reference, offered)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        return self.pairs[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(UserDataset, self.reference, **self.offered), ()


def _build(reference: str, offered: dict[str, Any]) -> Any:
    dataset_class = load_dataset_class(reference)
    parameters = inspect.signature(dataset_class).parameters
    unknown = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        if name not in offered
    ]
    if unknown:
        raise InputError(
            f"{reference} asks for arguments that are not known",
            got=", ".join(unknown),
            expected=f"any of {', '.join(offered)}",
            remedy="give the others a default",
        )
    dataset = dataset_class(
        **{key: value for key, value in offered.items() if _accepts(parameters, key)}
    )
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(f"{reference} is not a data set", expected="__len__ and __getitem__")
    return dataset


def takes(reference: str, argument: str) -> bool:
    """Say whether the user's class names an argument; with ``split`` it makes its own parts."""
    return argument in inspect.signature(load_dataset_class(reference)).parameters


def accepts(reference: str, argument: str) -> bool:
    """Say whether the user's class is given an argument that it is offered, ``**`` included."""
    return _accepts(inspect.signature(load_dataset_class(reference)).parameters, argument)


def _accepts(parameters: Mapping[str, inspect.Parameter], argument: str) -> bool:
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return takes_any or argument in parameters
