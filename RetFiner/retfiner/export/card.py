"""The model card that goes with a shared backbone (Mitchell et al., Model Cards, 2019).

It tells of the data in general terms only: counts and objectives, never a path, name or report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retfiner.common.errors import InputError
from retfiner.vision import Backbone

HUB_LICENCES = {"CC BY-NC 4.0": "cc-by-nc-4.0", "MIT": "mit", "Apache 2.0": "apache-2.0"}
"""What the hub calls a licence; others are ``other``, named in words."""

PRIVATE = frozenset(
    {
        "config", "dataset", "image_column", "image_root", "model_weights", "note", "num_workers",
        "output_dir", "patient_column", "report_column", "resume", "slice_column", "text_encoder",
        "train_csv", "val_csv", "worker_start",
    }
)  # fmt: skip
"""Settings that name files, folders or columns of the user's own."""

_USE = {
    "hf": """```python
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("<this folder>")
model = AutoModel.from_pretrained("<this folder>")
inputs = processor(images=bscan.convert("RGB"), return_tensors="pt")  # a PIL image
tokens = model(**inputs).last_hidden_state  # CLS first, after the final norm
```""",
    "onnx": """```python
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
tokens, features = session.run(None, {{"images": images}})  # (B, {chans}, {size}, {size}) float32
```

`features` are those of linear probing.""",
    "timm": """```python
import timm

model = timm.create_model("<architecture>", checkpoint_path="{file}", num_classes=0)
```""",
    "base": """The file has the layout of its base model's: the base model's own code loads it.""",
    "safetensors": """The file holds the encoder's own keys:
`retfiner.load_backbone("{file}")`.""",
}


def model_card(
    backbone: Backbone,
    target: Path,
    format: str,
    description: Mapping[str, Any],
    results: Path | None = None,
) -> str:
    """Write a model card in Markdown, with the metadata block that hubs read.

    Args:
        backbone: The refined backbone.
        target: The file or folder it was written to.
        format: How.
        description: What the run wrote about itself; may be empty.
        results: Markdown with results to show, ``table.md`` of ``report.py`` for example.

    Raises:
        InputError: If the results cannot be read.
    """
    spec = backbone.spec
    hub_licence = HUB_LICENCES.get(spec.licence, "other")
    use = _USE[format].format(file=target.name, chans=spec.in_chans, size=backbone.image_size)
    head = ["---", f"license: {hub_licence}"]
    if hub_licence == "other":
        head.append(f"license_name: {json.dumps(spec.licence)}")
    if format == "hf":
        head += ["library_name: transformers", "pipeline_tag: image-feature-extraction"]
    head += ["tags: [ophthalmology, oct, retina, retfiner]", "---", ""]
    parts = [
        f"# {spec.title}, refined on image-report pairs",
        f"A {spec.name} vision encoder that was refined with RetFiner on OCT B-scans and the "
        "reports that describe them. It turns a B-scan into features; it makes no diagnosis and "
        "is no medical device.",
        f"Input: {backbone.image_size} x {backbone.image_size} pixels, {spec.in_chans} channel"
        f"{'s' if spec.in_chans > 1 else ''}, intensities in [0, 1] normalised with mean "
        f"{_numbers(backbone.mean)} and standard deviation {_numbers(backbone.std)}.",
        "## Use",
        use,
        "## Data",
        _data(description),
        "## Refinement",
        _settings(backbone, description),
        "## Results",
        _results(results),
        "## Licence and citation",
        f"The base model's licence holds for these weights too: **{spec.licence}** "
        f"({spec.source}). Cite the base model, {spec.citation}, and RetFiner: Enhancing "
        "Foundation Models for Retinal OCT, MICCAI 2025.",
    ]
    return "\n".join(head) + "\n\n".join(parts) + "\n"


def _data(description: Mapping[str, Any]) -> str:
    counts = [
        f"{description[key]:,} pairs {words}"
        for key, words in (("train_pairs", "to train on"), ("validation_pairs", "to validate on"))
        if isinstance(description.get(key), int)
    ]
    by_patient = description.get("settings", {}).get("patient_column", "none") != "none"
    apart = "; no patient in both" if by_patient else ""
    told = f" ({', '.join(counts)}{apart})" if counts else ""
    return (
        f"OCT B-scans with free-text reports{told}. Images, reports and patients are not part of "
        "this model's files. Features may carry what the data carried: device, population, habits "
        "of reporting."
    )


def _settings(backbone: Backbone, description: Mapping[str, Any]) -> str:
    settings = description.get("settings", {})
    rows = {
        "objectives": backbone.provenance.get("losses"),
        "base weights, sha256": backbone.provenance.get("base_weights_sha256"),
        "epochs done": _plus_one(backbone.provenance.get("epoch")),
        "optimiser steps": backbone.provenance.get("step"),
    } | {key: value for key, value in settings.items() if key not in PRIVATE}
    lines = ["| setting | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items() if value is not None]
    return "\n".join(lines) if len(lines) > 2 else "The file does not say how it was refined."


def _plus_one(epoch: Any) -> int | None:
    return epoch + 1 if isinstance(epoch, int) else None


def _results(path: Path | None) -> str:
    if path is None:
        return (
            "None are given here. Probe it on your own patients before you rely on it: "
            "`linear_probing/probe.py`."
        )
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


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
