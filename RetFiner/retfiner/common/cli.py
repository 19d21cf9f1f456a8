"""Command lines from dataclasses: one field, one flag, one line of ``--help``."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ActionYesNo, ArgumentParser, set_dumper, set_loader

from retfiner.common.plain_yaml import load_plain_yaml

T = TypeVar("T")

PLAIN_YAML = "plain_yaml"
"""What jsonargparse knows our reader by: a settings file may come from elsewhere."""


def _as_yaml(data: Any) -> str:
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


set_loader(PLAIN_YAML, load_plain_yaml, exceptions=(yaml.YAMLError,))
set_dumper(PLAIN_YAML, _as_yaml)


def flag(
    help_text: str,
    default: Any = dataclasses.MISSING,
    *,
    positional: bool = False,
    repeatable: bool = False,
) -> Any:
    """Declare a dataclass field that is also a command-line flag.

    Args:
        help_text: The flag's line in ``--help``, with its unit.
        default: Its default; a list is copied for each instance. Without one, the flag is required.
        positional: Whether the value stands without a flag; with a default, it may be left out.
        repeatable: Whether a list may also be given by several flags, which add up.
    """
    metadata = {"help": help_text, "positional": positional, "repeatable": repeatable}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def build_parser(config_class: type, description: str) -> ArgumentParser:
    """Build the parser of a configuration dataclass.

    A field of type ``list[X]`` takes one or more values after its flag (``--seed 0 1 2``); one of
    type ``bool | None`` has a flag for yes and one for no (``--x``, ``--no_x``). Unknown flags and
    unknown keys of a ``--config`` file are errors.

    Args:
        config_class: A dataclass whose fields were made by :func:`flag`.
        description: What the script does, for ``--help``.
    """
    parser = ArgumentParser(
        description=description, allow_abbrev=False, default_env=False, parser_mode=PLAIN_YAML
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the flags below")
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        options = _kind_of(hints[field.name], field.metadata["repeatable"])
        options["help"] = field.metadata["help"]
        required = False
        if field.default is not dataclasses.MISSING:
            options["default"] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            options["default"] = field.default_factory()
        else:
            required = True
        if field.metadata["positional"]:
            optional: dict[str, Any] = {} if required else {"nargs": "?"}
            parser.add_argument(field.name, **options, **optional)
        else:
            parser.add_argument(f"--{field.name}", required=required, **options)
    return parser


def _kind_of(hint: Any, repeatable: bool) -> dict[str, Any]:
    """Say how words of the command line become values of a type."""
    item = _item_type(hint)
    if item is not None:
        adding = {"action": "extend"} if repeatable else {}
        return {"type": item, "nargs": "+", **adding}
    if hint is bool:
        return {"action": "store_true"}
    if hint == (bool | None):
        return {"action": ActionYesNo(yes_prefix="", no_prefix="no_")}
    return {"type": hint}


def _item_type(hint: Any) -> Any:
    """Return X for ``list[X]`` and ``list[X] | None``, else None."""
    for option in (hint, *typing.get_args(hint)):
        if typing.get_origin(option) is list:
            return typing.get_args(option)[0]
    return None


def parse(config_class: type[T], description: str, arguments: Sequence[str] | None = None) -> T:
    """Parse a command line into a configuration.

    Args:
        config_class: A dataclass whose fields were made by :func:`flag`.
        description: What the script does, for ``--help``.
        arguments: The words of the command line; by default those of the process.

    Returns:
        An instance of ``config_class``.

    Raises:
        SystemExit: On ``--help`` (status 0) or a line that cannot be parsed (status 2).
    """
    values = build_parser(config_class, description).parse_args(arguments).as_dict()
    values.pop("config", None)
    return config_class(**{name: _plain_number(value) for name, value in values.items()})


def _plain_number(value: Any) -> Any:
    """Turn jsonargparse's restricted numbers into Python's own, which every reader knows."""
    if isinstance(value, list):
        return [_plain_number(item) for item in value]
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def as_plain(value: Any) -> Any:
    """Turn a configuration, or any part of one, into what YAML and JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
