"""YAML as settings need it: scalars, lists and mappings, and nothing that could grow or run."""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_CHARACTERS = 2**20
MAX_DEPTH = 20


class _PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2's numbers: 1e-4 is a number, and a date is text."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if not pair[0].endswith((":timestamp", ":float"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"(?:[-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def require_plain(text: str) -> None:
    """Make sure that YAML has no tags and no references, and does not nest without end.

    A tag can name a class; a reference makes a few lines stand for gigabytes as soon as what was
    read is copied. No settings file needs either.

    Raises:
        yaml.YAMLError: If it is no YAML, or more than plain YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"{len(text):,} characters, more than settings take")
    depth = 0
    for event in yaml.parse(text, Loader=_PlainLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError("references (& and *) are not read")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise yaml.YAMLError(f"tags are not read: {tag}")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} lists or mappings in one another")


def load_plain_yaml(text: str) -> Any:
    """Read YAML that :func:`require_plain` finds plain.

    Raises:
        yaml.YAMLError: If it is no YAML, or more than plain YAML.
    """
    require_plain(text)
    try:
        value = yaml.load(text, Loader=_PlainLoader)  # a SafeLoader
    except (ValueError, TypeError, RecursionError) as error:  # 0b, for one: a number without digits
        raise yaml.YAMLError(str(error)) from error
    is_word = isinstance(value, dict) and value and not any(v is not None for v in value.values())
    # A flag's value such as "C:" or "{x}" is a word, not a mapping to nothing.
    return text if is_word and "\n" not in text.strip() else value
