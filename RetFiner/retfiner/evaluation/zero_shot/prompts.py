"""Classes described in words: YAML files of expert descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from retfiner.common.commands import REPOSITORY
from retfiner.common.errors import InputError, shorten
from retfiner.common.plain_yaml import require_plain

FOLDER = REPOSITORY / "RetFiner" / "prompts"
_FORM = "class: [description, description, ...]"

Prompts = dict[str, list[str]]
"""Descriptions of each class."""


def find_prompts(data_set: str, given: Path | None) -> Path:
    """Find the descriptions of a data set's classes, or those the user named.

    Raises:
        InputError: If there are none.
    """
    path = given if given is not None else FOLDER / f"{data_set}.yaml"
    if path.is_file():
        return path
    raise InputError(
        f"there are no descriptions of the classes: {path}",
        got="no such file",
        expected=f"one of {shorten(sorted(p.stem for p in FOLDER.glob('*.yaml')), 20)}",
        remedy=f"--prompts file.yaml, {_FORM}",
    )


def read_prompts(path: Path) -> Prompts:
    """Read descriptions, a list for each class; keys and values are taken as they are written.

    The file is parsed and nothing in it is constructed: no tag runs code, and a class that is
    called NO is not the boolean that YAML makes of it.

    Raises:
        InputError: If it is no such file, or names a class twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        require_plain(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read", got=" ".join(str(error).split())) from error
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path} holds no descriptions", expected=_FORM)
    prompts: Prompts = {}
    for key, value in root.value:
        texts = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if not all(isinstance(node, yaml.ScalarNode) for node in (key, *texts)):
            raise InputError(f"{path} is not of the form it should be", expected=_FORM)
        described = [" ".join(node.value.split()) for node in texts]
        if key.value in prompts:
            raise InputError(f"{path} names the class {key.value} twice")
        if not described or not all(described):
            raise InputError(f"{path} leaves the class {key.value} without a description")
        prompts[key.value] = described
    return prompts


def check_classes(prompts: Mapping[str, Sequence[str]], classes: Sequence[str], path: Path) -> None:
    """Refuse descriptions that are not those of the classes.

    Raises:
        InputError: If a class has no description, or a description no class; both are named.
    """
    missing = [name for name in classes if name not in prompts]
    unknown = [name for name in prompts if name not in classes]
    if missing or unknown:
        raise InputError(
            f"{path} does not describe the classes of the data",
            got=f"no description of: {shorten(missing) or 'none'}; "
            f"no images of: {shorten(unknown) or 'none'}",
            expected=", ".join(classes),
            remedy="--prompts with a description of every class and no other",
        )
