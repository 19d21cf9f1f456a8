"""A tree of probing results as probe.py writes it, with predictions drawn rather than trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retfiner.common.predictions import fingerprint, make_table, write_run

CLASSES = {
    "Duke_iAMD": ["AMD", "Control"],
    "OCTDL": ["AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID"],
    "OCTID": ["AMRD", "CSR", "DR", "MH", "NORMAL"],
    "Noor_Eye_Hospital": ["AMD", "DME", "NORMAL"],
}


def make_predictions(
    model: str, data_set: str, seed: int, *, strength: float, n: int = 80, **columns: Any
) -> pd.DataFrame:
    """Draw predictions whose right class stands out by ``strength``; images are the same for all.

    ``columns`` replace what stands in others; a weights' name takes the place of its hash.
    """
    classes = CLASSES.get(data_set, ["AMD", "DME", "NORMAL"])
    labels = np.random.default_rng(len(data_set)).integers(len(classes), size=n)
    labels[: len(classes)] = np.arange(len(classes))
    logits = np.random.default_rng([len(data_set), *model.encode()]).normal(size=(n, len(classes)))
    logits += 0.3 * np.random.default_rng([seed, *model.encode()]).normal(size=logits.shape)
    logits[np.arange(n), labels] += strength
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    values = {
        "weights": fingerprint({"model": model})[:16],
        "data_version": data_set,
        "probe": "linear",
        "seed": seed,
        "fraction": 1.0,
        "train_images": 100,
        "train_patients": 50,
        "patient": [str(k // 2) for k in range(n)],
        "image": [f"{data_set}_{k:03d}.png" for k in range(n)],
    }
    values = {"model": model, "data_set": data_set, **values, **columns}
    return make_table(probabilities, labels, classes, **values)


def write_predictions(
    root: Path, table: pd.DataFrame, notes: Iterable[str] = (), **extra: Any
) -> Path:
    """Write predictions as a run whose settings are ``extra`` and what a run always has."""
    first = table.iloc[0]
    settings = {
        "probe": first["probe"],
        "backbone": "RETFound",
        "learning_rate": 1e-3,
        "train_fraction": float(first["fraction"]),
        "weights_sha256": first["weights"] + "0" * 48,
        "data_sha256": first["data_version"],
        **extra,
    }
    protocol = {k: v for k, v in settings.items() if not k.startswith(("weights", "data", "train"))}
    table = table.assign(protocol=fingerprint(protocol)[:16])
    context = {"device": "cpu", "notes_on_weights": [f"{first['model']} is small."]}
    about = {"settings": settings, "context": context, "notes": list(notes)}
    return write_run(root, table, about, None)


def write_tree(
    root: Path,
    models: Iterable[str] = ("RETFound",),
    data_sets: Iterable[str] = ("Duke_iAMD", "OCTID"),
    seeds: Iterable[int] = (0, 1, 2),
    fractions: Iterable[float] = (1.0,),
    n: int = 80,
    **options: Any,
) -> None:
    """Write base and refined runs of each model, data set, seed and share of training images."""
    for fraction in fractions:
        for version, gain in (("baseline", 0.0), ("refined", 0.7)):
            for model in models:
                for data_set in data_sets:
                    for seed in seeds:
                        table = make_predictions(
                            f"{version}/{model}",
                            data_set,
                            seed,
                            strength=1.2 + gain + 0.3 * float(np.log10(fraction)),
                            n=n,
                            fraction=fraction,
                            train_images=int(100 * fraction),
                            train_patients=int(40 * fraction),
                        )
                        write_predictions(root, table, **options)
