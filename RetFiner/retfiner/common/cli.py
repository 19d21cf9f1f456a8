"""Command lines from dataclasses: one field, one flag, one line of ``--help``."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import typing
from argparse import Action
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml
from jsonargparse import (
    ActionYesNo,
    ArgumentParser,
    DefaultHelpFormatter,
    set_dumper,
    set_loader,
)

from retfiner.common.commands import shorter
from retfiner.common.numbers import ClosedUnitInterval, OpenUnitInterval
from retfiner.common.plain_yaml import load_plain_yaml

T = TypeVar("T")

PLAIN_YAML = "plain_yaml"
"""What jsonargparse knows our reader by: a settings file may come from elsewhere."""


set_loader(PLAIN_YAML, load_plain_yaml, exceptions=(yaml.YAMLError,))
set_dumper(PLAIN_YAML, lambda data: yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


WIDTH = 100
"""Most columns of ``--help``."""

_METAVARS: dict[type, str] = {
    ClosedUnitInterval: "0-1",
    OpenUnitInterval: "0-1",
    float: "X",
    int: "N",
    Path: "PATH",
    str: "NAME",
}
_OWN_FLAGS = {
    "--help": "show this and end",
    "--config": "YAML file with any of these flags; the command line wins",
    "--print_config": "print all settings as such a file and end",
}


def flag(
    help_text: str,
    default: Any = dataclasses.MISSING,
    *,
    metavar: str | None = None,
    positional: bool = False,
    repeatable: bool = False,
) -> Any:
    """Declare a dataclass field that is also a command-line flag.

    Args:
        help_text: The flag's line in ``--help``, with its unit. The default is added, unless the
            text says what it is: where None stands for something, for example.
        default: Its default; a list is copied for each instance. Without one, the flag is required.
        metavar: What stands for its value in ``--help``, where the type does not say it.
        positional: Whether the value stands without a flag; with a default, it may be left out.
        repeatable: Whether a list may also be given by several flags, which add up.
    """
    metadata = {
        "help": help_text,
        "metavar": metavar,
        "positional": positional,
        "repeatable": repeatable,
    }
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class _HelpFormatter(DefaultHelpFormatter):
    """Shows flags as they were declared, without the names of Python's types."""

    def __init__(self, prog: str, **options: Any) -> None:
        columns = shutil.get_terminal_size((WIDTH, 0)).columns
        super().__init__(prog, max_help_position=34, width=min(columns, WIDTH), **options)

    def _get_help_string(self, action: Action) -> str:
        own = [_OWN_FLAGS[word] for word in action.option_strings if word in _OWN_FLAGS]
        return own[0] if own else action.help or ""

    def _format_action_invocation(self, action: Action) -> str:
        return super()._format_action_invocation(action).replace(" \b", "")  # of --print_config

    def _format_args(self, action: Action, default_metavar: str) -> str:
        if action.nargs == "+":
            return f"{action.metavar} ..."
        return super()._format_args(action, default_metavar)


class _Parser(ArgumentParser):
    """Names a flag in its errors as the user does."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(re.sub(r'^Parser key "(\w+)"', r"--\1", message), ex)


def build_parser(config_class: type, description: str) -> ArgumentParser:
    """Build the parser of a dataclass whose fields were made by :func:`flag`.

    The flags that a dataclass inherits from another stand below the latter's docstring in
    ``--help``. A field of type ``list[X]`` takes one or more values after its flag (``--seed 0 1
    2``); one of type ``bool | None`` has a flag for yes and one for no (``--x``, ``--no_x``).
    Unknown flags and unknown keys of a ``--config`` file are errors.
    """
    parser = _Parser(
        description=description,
        allow_abbrev=False,
        default_env=False,
        parser_mode=PLAIN_YAML,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--config", action="config", metavar="PATH")
    hints = typing.get_type_hints(config_class)
    groups: dict[type, Any] = {config_class: parser}
    usage = ["%(prog)s"]
    for field in dataclasses.fields(config_class):
        owner = _declared_in(config_class, field.name)
        if owner not in groups:
            groups[owner] = parser.add_argument_group((inspect.getdoc(owner) or "").rstrip("."))
        options = _kind_of(hints[field.name], field) | {"help": _help_of(field)}
        default, positional = default_of(field), field.metadata["positional"]
        required = default is dataclasses.MISSING
        if not required:
            options["default"] = default
        if positional:
            options |= {} if required else {"nargs": "?"}
        else:
            options["required"] = required
        name = field.name if positional else f"--{field.name}"
        groups[owner].add_argument(name, **options)
        if required:
            usage += [options["metavar"]] if positional else [name, options["metavar"]]
        elif positional:
            usage += [f"[{options['metavar']}]"]
    parser.usage = " ".join([*usage, "[flags]"])
    return parser


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return a field's default, ``dataclasses.MISSING`` where there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def changed_settings(config: Any) -> set[str]:
    """Name the fields of a configuration that are not their defaults."""
    fields = dataclasses.fields(config)
    return {field.name for field in fields if getattr(config, field.name) != default_of(field)}


def _declared_in(config_class: type, name: str) -> type:
    """Return the class, of a dataclass and those it inherits from, that declares a field."""
    return next(
        base
        for base in reversed(config_class.__mro__)
        if name in vars(base).get("__dataclass_fields__", {})
    )


def _help_of(field: dataclasses.Field[Any]) -> str:
    """Return a flag's text with its default."""
    text, default = str(field.metadata["help"]), default_of(field)
    if default is dataclasses.MISSING:
        return f"{text} (required)"
    if "default" in text:
        return text
    if isinstance(default, Path) and default.is_absolute():
        default = shorter(default)
    elif isinstance(default, list):
        default = " ".join(map(str, default))
    elif isinstance(default, bool):
        default = "on" if default else "off"
    return f"{text} (default: {'none' if default in (None, '') else default})"


def _kind_of(hint: Any, field: dataclasses.Field[Any]) -> dict[str, Any]:
    """Say how words of the command line become values of a type, and what stands for them."""
    if hint is bool:
        return {"action": "store_true"}
    if hint == (bool | None):
        return {"action": ActionYesNo(yes_prefix="", no_prefix="no_")}
    shown = {"metavar": field.metadata["metavar"] or _metavar(hint)}
    inner = [option for option in typing.get_args(hint) if option is not type(None)]
    if type(None) in typing.get_args(hint) and len(inner) == 1:
        hint = inner[0]  # a default of None need not be typed, and errors are plainer
    if typing.get_origin(hint) is list:
        adding = {"action": "extend"} if field.metadata["repeatable"] else {}
        return {"type": typing.get_args(hint)[0], "nargs": "+", **adding, **shown}
    return {"type": hint, **shown}


def _metavar(hint: Any) -> str:
    """Name the kind of value that a type stands for."""
    inner = [option for option in typing.get_args(hint) if option is not type(None)]
    if typing.get_origin(hint) is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if inner:
        return "|".join(_metavar(option) for option in inner)
    return next(word for kind, word in _METAVARS.items() if issubclass(hint, kind))


def parse(config_class: type[T], description: str, arguments: Sequence[str] | None = None) -> T:
    """Parse a command line, by default that of the process, into a configuration.

    Raises:
        SystemExit: On ``--help`` (status 0) or a line that cannot be parsed (status 2).
    """
    values = build_parser(config_class, description).parse_args(arguments).as_dict()
    values.pop("config", None)
    return config_class(**{name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    """Turn jsonargparse's restricted numbers into Python's own, which every reader knows.

    A path's ``~`` becomes the home folder: in a settings file, no shell does it.
    """
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.expanduser()
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
