"""The zero-shot task: from a folder of labelled images to a run that ``report.py`` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256
from retfiner.common.metrics import chance
from retfiner.common.predictions import fingerprint, make_table, numbered, write_run
from retfiner.common.seeds import derive_seed
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.embedding import ImageStream
from retfiner.evaluation.zero_shot.image_folder import ImageFolder, read_image_folder
from retfiner.evaluation.zero_shot.prompts import (
    Prompts,
    check_classes,
    find_prompts,
    read_prompts,
)
from retfiner.evaluation.zero_shot.scores import evaluate as evaluate_classes
from retfiner.export.loading import LoadedModel, checkpoint_of
from retfiner.text.tokenizer import report_lengths
from retfiner.vision.images import ImageAddress

PROBE = "zero_shot"
"""What the table of predictions calls it, and the first word of the model's name there."""


def evaluate_zero_shot(config: EvaluateConfig, loaded: LoadedModel) -> dict[str, Any]:
    """Classify, score, and write the run where ``report.py`` finds it.

    Raises:
        InputError: If the data, the descriptions or the model cannot be used.
    """
    if not loaded.model.is_contrastive:
        loaded.require("itc", "zero-shot classification")
    data = read_image_folder(config.data, config.split)
    path = find_prompts(data.data_set, config.prompts)
    prompts = read_prompts(path)
    check_classes(prompts, data.classes, path)
    stream = ImageStream(loaded, config.batch_size, config.num_workers)
    probabilities = classify(stream, data, prompts)
    metrics = evaluate_classes(
        probabilities,
        np.array(data.labels),
        data.classes,
        generator=np.random.default_rng(derive_seed(config.seed, "bootstrap")),
        patients=data.patients,
        resamples=config.bootstrap,
    )
    notes = [*metrics["notes"], *_note_cut_descriptions(loaded, prompts)]
    if loaded.model.pooling is not None:
        notes.append(
            "The model was refined on exams; a folder says of no image which exam it is of: each is"
            " classified by itself."
        )
    return {
        "data_set": data.data_set,
        "split": data.split,
        "images": len(data.paths),
        "patients": None if data.patients is None else len(set(data.patients)),
        "prompts": str(path),
        "metrics": {**metrics, "chance": chance(data.labels, len(data.classes))},
        "folder": str(_write(config, loaded, data, prompts, probabilities, notes)),
        "notes": notes,
    }


def classify(stream: ImageStream, data: ImageFolder, prompts: Prompts) -> np.ndarray:
    """Compare N images with the descriptions of each of C classes, by a model refined with ITC.

    A class is the mean of its descriptions' unit vectors, scaled to length one.

    Returns:
        (N, C) probabilities: the softmax of cosines over the learned temperature.

    Raises:
        InputError: If an image cannot be read.
    """
    addresses = [ImageAddress(path) for path in data.paths]
    loaded, vectors = stream.loaded, []
    unreadable: dict[int, str] = {}
    for batch in stream.batches(addresses, "embedding images"):
        unreadable |= batch.unreadable
        if batch.positions:
            vectors.append(loaded.embed_images(batch.images))
    if unreadable:
        position, reason = next(iter(unreadable.items()))
        raise InputError(
            f"{len(unreadable)} images cannot be read, the first {data.paths[position]}", got=reason
        )
    means = [loaded.embed_texts(prompts[name]).mean(0) for name in data.classes]
    classes = F.normalize(torch.stack(means), dim=1)
    scores = torch.cat(vectors).double() @ classes.double().T / loaded.model.temperature.item()
    return scores.softmax(1).numpy()


def _note_cut_descriptions(loaded: LoadedModel, prompts: Prompts) -> list[str]:
    longest = loaded.max_text_tokens
    every = [text for texts in prompts.values() for text in texts]
    lengths = report_lengths(loaded.tokenizer, every)
    cut = [text for text, n in zip(every, lengths, strict=True) if n > longest]
    if not cut:
        return []
    return [f"{len(cut)} descriptions are cut at {longest} WordPieces, such as: {cut[0]}"]


def _write(
    config: EvaluateConfig,
    loaded: LoadedModel,
    data: ImageFolder,
    prompts: Prompts,
    probabilities: np.ndarray,
    notes: list[str],
) -> Path:
    checkpoint = checkpoint_of(config.model)
    weights = file_sha256(checkpoint)
    settings = {
        "task": PROBE,
        "split": data.split,
        "precision": loaded.precision,
        "data_images_sha256": data.sha256(),
        "data_prompts_sha256": fingerprint(prompts),
        "weights_sha256": weights,
    }
    table = make_table(
        probabilities,
        data.labels,
        data.classes,
        model=f"{PROBE}/{config.name or checkpoint.resolve().parent.name}",
        weights=weights[:16],
        data_set=data.data_set,
        probe=PROBE,
        seed=config.seed,
        train_images=0,
        train_patients=0,
        image=data.names,
        eye=[owner.eye for owner in data.owners],
        volume=numbered([owner.volume for owner in data.owners]),
        patient=numbered([owner.patient for owner in data.owners]),
    )
    context = {"prompts": prompts, "data": str(config.data), "device": str(loaded.device)}
    about = {"settings": settings, "context": context, "notes": notes}
    return write_run(config.results, table, about)
