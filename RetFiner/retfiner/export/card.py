"""The model card that goes with a shared backbone (Mitchell et al., Model Cards, 2019).

It tells of the data in general terms only: counts and objectives, never a path, name or report.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from retfiner.common.errors import InputError
from retfiner.training.guard import Change
from retfiner.vision import Backbone
from retfiner.vision.timm_vit import PREFIX

HUB_LICENCES = {
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-ND 4.0": "cc-by-nc-nd-4.0",
    "MIT": "mit",
    "Apache 2.0": "apache-2.0",
}
"""What the hub calls a licence; others are ``other``, named in words."""

PRIVATE = frozenset(
    {
        "config", "dataset", "group_column", "image_column", "image_root", "model_weights",
        "not_in", "note", "num_workers", "output_dir", "patient_column", "report_column", "resume",
        "slice_column", "text_encoder", "train_csv", "val_csv", "worker_start",
    }
)  # fmt: skip
"""Settings that name files, folders or columns of the user's own."""


def model_card(
    backbone: Backbone,
    target: Path,
    format: str,
    description: Mapping[str, Any],
    results: Path | None = None,
) -> str:
    """Write a model card in Markdown, with the metadata block that hubs read.

    ``target`` is what the backbone was written to, ``description`` what the run wrote about itself
    (may be empty), ``results`` Markdown to show, ``table.md`` of ``report.py`` for example.

    Raises:
        InputError: If the results cannot be read.
    """
    environment = Environment(  # Markdown: what HTML would escape stays as it is
        loader=PackageLoader("retfiner.export"),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("card.md").render(
        spec=backbone.spec,
        title=backbone.title,
        is_published=backbone.has_published_size,
        hub_licence=HUB_LICENCES.get(backbone.spec.licence, "other"),
        size=backbone.image_size,
        architecture=_timm_id(backbone),
        mean=", ".join(f"{value:.3f}" for value in backbone.spec.mean),
        std=", ".join(f"{value:.3f}" for value in backbone.spec.std),
        file=target.name,
        format=format,
        pairs=_pairs(description),
        rows=_settings(backbone, description),
        change=measured_change(backbone),
        results=_results(results),
    )


def measured_change(backbone: Backbone) -> Change | None:
    """Return what refinement found of this encoder beside its base, None if it was not measured."""
    found = backbone.provenance.get("guard")
    return Change.read(found) if isinstance(found, dict) else None


def _timm_id(backbone: Backbone) -> str:
    name = backbone.spec.name
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) else "<architecture>"


def _pairs(description: Mapping[str, Any]) -> str:
    counts = [
        f"{description[key]:,} pairs {words}"
        for key, words in (("train_pairs", "to train on"), ("validation_pairs", "to validate on"))
        if isinstance(description.get(key), int)
    ]
    settings = description.get("settings", {})
    # Of a class of the user's own it is not known.
    by_patient = settings.get("patient_column", "none") != "none" and not settings.get("dataset")
    return ", ".join(counts) + ("; no patient in both" if counts and by_patient else "")


def _settings(backbone: Backbone, description: Mapping[str, Any]) -> dict[str, Any]:
    about = backbone.provenance
    rows = {
        "objectives": about.get("losses"),
        "base weights, sha256": about.get("base_weights_sha256"),
        "epochs done": about.get("epochs_done"),
        "optimiser steps": about.get("step"),
        **{k: v for k, v in description.get("settings", {}).items() if k not in PRIVATE},
    }
    return {setting: value for setting, value in rows.items() if value is not None}


def _results(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise InputError(
            f"the results in {path} cannot be read",
            got=str(error),
            expected="table.md as linear_probing/report.py writes it",
        ) from error
    if not text:
        raise InputError(f"the results in {path} are empty")
    return text
