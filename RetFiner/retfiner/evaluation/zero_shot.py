"""Zero-shot classification: an image belongs to the class whose description it is closest to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retfiner.common.classification.evaluation import evaluate as evaluate_classes
from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256
from retfiner.common.results import Run, RunKey, software_versions, write_run
from retfiner.common.seeds import derive_seed
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.embedding import embed_images, embed_texts
from retfiner.evaluation.folders import LabelledImages, read_labelled
from retfiner.evaluation.models import Evaluated
from retfiner.evaluation.prompts import (
    Prompts,
    check_classes,
    find_prompts,
    fingerprint_prompts,
    read_prompts,
)
from retfiner.text.tokenizer import report_lengths
from retfiner.vision.images import ImageAddress

VERSION = "zero_shot"
"""First folder of the results."""


def evaluate_zero_shot(config: EvaluateConfig, evaluated: Evaluated) -> dict[str, Any]:
    """Classify, score, and write the run where ``report.py`` finds it.

    Returns:
        All numbers in plain data.

    Raises:
        InputError: If the data, the descriptions or the model cannot be used.
    """
    if not evaluated.loaded.model.is_contrastive:
        evaluated.require("itc", "zero-shot classification")
    data = read_labelled(config.data, config.split)
    path = find_prompts(data.data_set, config.prompts)
    prompts = read_prompts(path)
    check_classes(prompts, data.classes, path)
    probabilities = classify(config, evaluated, data, prompts)
    metrics = evaluate_classes(
        probabilities,
        np.array(data.labels),
        data.classes,
        generator=np.random.default_rng(derive_seed(config.seed, "bootstrap")),
        patients=data.patients,
        resamples=config.bootstrap,
    )
    folder = _write(config, evaluated, data, prompts, probabilities, metrics)
    longest = evaluated.loaded.max_text_tokens
    every = [text for texts in prompts.values() for text in texts]
    lengths = report_lengths(evaluated.loaded.tokenizer, every)
    cut = [text for text, n in zip(every, lengths, strict=True) if n > longest]
    notes = [*metrics["notes"]]
    if cut:
        notes.append(f"{len(cut)} descriptions are cut at {longest} WordPieces, such as: {cut[0]}")
    return {
        "data_set": data.data_set,
        "split": data.split,
        "images": len(data.paths),
        "patients": None if data.patients is None else len(set(data.patients)),
        "prompts": str(path),
        "metrics": {**metrics, "chance": chance(data.labels, len(data.classes))},
        "folder": str(folder),
        "notes": notes,
    }


def classify(
    config: EvaluateConfig, evaluated: Evaluated, data: LabelledImages, prompts: Prompts
) -> np.ndarray:
    """Compare images with the descriptions of each class.

    Args:
        config: Batch size and workers.
        evaluated: A model refined with ITC.
        data: N labelled images.
        prompts: Descriptions of each of the C classes.

    Returns:
        (N, C) probabilities: the softmax of cosines over the learned temperature.

    Raises:
        InputError: If an image cannot be read.
    """
    addresses = [ImageAddress(path) for path in data.paths]
    images, bad = embed_images(evaluated, addresses, config.batch_size, config.num_workers)
    if bad:
        position, reason = next(iter(bad.items()))
        raise InputError(
            f"{len(bad)} images cannot be read, the first {data.paths[position]}", got=reason
        )
    classes = torch.stack([embed_class(evaluated, prompts[name]) for name in data.classes])
    temperature = evaluated.loaded.model.temperature.item()
    scores = images.double() @ classes.double().T / temperature
    return scores.softmax(1).numpy()


def embed_class(evaluated: Evaluated, descriptions: Sequence[str]) -> Tensor:
    """Turn the descriptions of a class into one unit vector: their mean, scaled to length one.

    Args:
        evaluated: The model.
        descriptions: What one sees on a B-scan of the class.

    Returns:
        (E,) unit vector.
    """
    return F.normalize(embed_texts(evaluated, descriptions).mean(0), dim=0)


def chance(labels: Sequence[int], n_classes: int) -> dict[str, float | None]:
    """Say what guessing scores, every class with the same probability.

    Args:
        labels: N labels.
        n_classes: Number of classes.

    Returns:
        Expected values by metric; average precision is the prevalence, averaged by support. None
        where guessing has no such number.
    """
    shares = np.bincount(labels, minlength=n_classes) / len(labels)
    guess = 1 / n_classes
    return {
        "loss": math.log(n_classes),
        "balanced_accuracy": guess,
        "auroc": 0.5,
        "average_precision": float((shares**2).sum()),
        "f1": float((shares * 2 * shares * guess / (shares + guess)).sum()),
        "mcc": 0.0,
        "ece": None,
    }


def _write(
    config: EvaluateConfig,
    evaluated: Evaluated,
    data: LabelledImages,
    prompts: Prompts,
    probabilities: np.ndarray,
    metrics: dict[str, Any],
) -> Path:
    checkpoint = config.model / "best-model.ckpt" if config.model.is_dir() else config.model
    run = Run(
        key=RunKey(
            VERSION, config.name or checkpoint.resolve().parent.name, data.data_set, config.seed
        ),
        settings={
            "task": VERSION,
            "split": data.split,
            "precision": evaluated.precision,
            "bootstrap": config.bootstrap,
            "data_images_sha256": data.sha256(),
            "data_prompts_sha256": fingerprint_prompts(prompts),
            "weights_sha256": file_sha256(checkpoint),
        },
        metrics=metrics,
        classes=data.classes,
        probabilities=probabilities,
        labels=np.array(data.labels),
        names=data.names,
        patients=data.patients,
        context={"prompts": prompts, "data": str(config.data), "device": str(evaluated.device)},
        versions=software_versions(),
    )
    return write_run(config.results, run)
