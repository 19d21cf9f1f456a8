"""A tree of probing results as probe.py writes it, with predictions drawn rather than trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from retfiner.common.classification.evaluation import evaluate
from retfiner.common.results import Run, RunKey, software_versions, write_run

CLASSES = {
    "Duke_iAMD": ["AMD", "Control"],
    "OCTDL": ["AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID"],
    "OCTID": ["AMRD", "CSR", "DR", "MH", "NORMAL"],
    "Noor_Eye_Hospital": ["AMD", "DME", "NORMAL"],
}


def make_run(
    version: str,
    model: str,
    data_set: str,
    seed: int,
    *,
    strength: float,
    n: int = 80,
    features: bool = False,
    **settings: Any,
) -> Run:
    """Draw a run whose right class stands out by ``strength``; images are the same for all."""
    classes = CLASSES[data_set]
    labels = np.random.default_rng(len(data_set)).integers(len(classes), size=n)
    rng = np.random.default_rng([seed, len(data_set), *model.encode(), *version.encode()])
    logits = rng.normal(size=(n, len(classes)))
    logits[np.arange(n), labels] += strength
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    map_features = None
    if features:
        centres = np.random.default_rng(0).normal(size=(len(classes), 16)) * strength
        map_features = (centres[labels] + rng.normal(size=(n, 16))).astype(np.float16)
    patients = [f"{k // 2:03d}" for k in range(n)]
    return Run(
        key=RunKey(version, model, data_set, seed),
        settings={
            "probe": "linear",
            "learning_rate": 1e-3,
            "train_fraction": 1.0,
            "weights_sha256": f"{version}-{model}",
            "data_sha256": data_set,
            **settings,
        },
        metrics=evaluate(
            probabilities, labels, classes, generator=rng, patients=patients, resamples=30
        ),
        classes=classes,
        probabilities=probabilities,
        labels=labels,
        names=[f"{data_set}_{k}.png" for k in range(n)],
        patients=patients,
        features=map_features,
        versions=software_versions(),
    )


def write_tree(
    root: Path,
    models: Iterable[str] = ("RETFound",),
    data_sets: Iterable[str] = ("Duke_iAMD", "OCTID"),
    seeds: Iterable[int] = (0, 1, 2),
    fractions: Iterable[float] = (1.0,),
    **options: Any,
) -> None:
    """Write base and refined runs of each model, data set, seed and share of training images."""
    for fraction in fractions:
        for version, gain in (("baseline", 0.0), ("refined", 0.7)):
            for model in models:
                for data_set in data_sets:
                    for seed in seeds:
                        run = make_run(
                            version,
                            model,
                            data_set,
                            seed,
                            strength=1.2 + gain + 0.3 * float(np.log10(fraction)),
                            features=seed == 0,
                            train_fraction=fraction,
                            **options,
                        )
                        write_run(root, run)
