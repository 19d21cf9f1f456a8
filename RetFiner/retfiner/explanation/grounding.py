"""Phrase grounding: findings with known places, the words that name them, and their maps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from retfiner.common.errors import InputError
from retfiner.data.manifest import Manifest
from retfiner.data.phantoms.masks import Mask, masks_of_pairs
from retfiner.data.phantoms.scene import Kind
from retfiner.explanation.maps import token_maps
from retfiner.explanation.rollout import rollout
from retfiner.explanation.words import words_of
from retfiner.export.loading import LoadedModel
from retfiner.vision import read_image

Array = NDArray[np.float32]
Method = tuple[str, int | None]
"""Name of a kind of map, and its layer; None where all layers have their part in it."""

PHRASES: dict[Kind, str] = {
    "drusen": r"\bdrusen(oid)?\b",
    "geographic_atrophy": r"\bgeographic atrophy\b|\bGA\b|\batrophy\b",
    "intraretinal_fluid": r"\bintraretinal (fluid|cysts)\b|\bIRF\b|\bcystoid macular oedema\b",
    "subretinal_fluid": r"\bsubretinal fluid\b|\bSRF\b|\bneurosensory detachment\b",
    "pigment_epithelial_detachment": r"\bPED\b|\bpigment epithelial detachment\b",
    "subretinal_hyperreflective_material": r"\bSHRM\b|\bsubretinal hyperreflective material\b",
    "epiretinal_membrane": r"\bepiretinal (membrane|gliosis)\b|\bERM\b",
    "vitreomacular_traction": r"\bvitreomacular traction\b|\bVMT\b",
    "macular_hole": r"\b(macular )?hole\b|\bFTMH\b",
    "rnfl_thinning": r"\bRNFL (thinning|thinned)\b|\bnerve fibre\b",
}
"""How the phantoms' reports name each finding; what is absent is denied in other reports only."""

BATCH = 32


class GroundedPhrase(NamedTuple):
    """A scan with a report that names a finding, and the mask (H, W) of where that lies."""

    image: Path
    report: str
    finding: Kind
    mask: Mask


def phantom_phrases(folder: Path, chosen: Manifest) -> Iterator[GroundedPhrase]:
    """Yield the findings that the reports of chosen rows of the phantoms' ``pairs.csv`` name."""
    reports = {
        image.path.relative_to(folder).as_posix(): report
        for image, report in zip(chosen.images, chosen.reports, strict=True)
    }
    for name, masks in masks_of_pairs(folder, set(reports)):
        for finding, mask in masks.items():
            if re.search(PHRASES[finding], reports[name], flags=re.IGNORECASE):
                yield GroundedPhrase(folder / name, reports[name], finding, mask)


def phrase_maps(
    loaded: LoadedModel, phrases: Sequence[GroundedPhrase]
) -> tuple[list[GroundedPhrase], dict[Method, Array]]:
    """Compute every kind of map of the words that name the findings, by a model refined with ITM.

    Returns:
        The N phrases whose words were read, and (N, g, g) for each kind of map.

    Raises:
        InputError: If no phrase is left.
    """
    kept: list[GroundedPhrase] = []
    maps: dict[Method, list[Array]] = {}
    for first in range(0, len(phrases), BATCH):
        batch = phrases[first : first + BATCH]
        for phrase, found in zip(batch, _batch_maps(loaded, batch), strict=True):
            if found:
                kept.append(phrase)
                for method, values in found.items():
                    maps.setdefault(method, []).append(values)
    if not kept:
        raise InputError(
            "There is nothing to point at",
            got=f"{len(phrases)} findings with a place, none of them in a report's words",
            expected="phantoms with findings that their reports name",
        )
    return kept, {method: np.stack(values) for method, values in maps.items()}


def _batch_maps(
    loaded: LoadedModel, phrases: Sequence[GroundedPhrase]
) -> Iterator[dict[Method, Array]]:
    """Yield the maps of each phrase, nothing where its words were cut."""
    images = torch.stack([loaded.transform(read_image(phrase.image)) for phrase in phrases])
    images = images.to(loaded.device)
    text, _ = loaded.tokenize([phrase.report for phrase in phrases])
    maps = token_maps(loaded.model, images, *text)
    flow = rollout(loaded.model.backbone, images).float().cpu().numpy()
    for row, phrase in enumerate(phrases):
        pieces = _pieces(loaded, phrase)
        found: dict[Method, Array] = {}
        if pieces:
            for name, values in (("attention", maps.attention), ("weighted", maps.weighted)):
                layers = values[:, row, pieces].mean(1).float().cpu().numpy()
                layers = layers[:-1] if name == "weighted" else layers  # the last one is zero
                found |= {(name, layer): layers[layer] for layer in range(len(layers))}
            found["rollout", None] = flow[row]
        yield found


def _pieces(loaded: LoadedModel, phrase: GroundedPhrase) -> list[int]:
    """Find the WordPieces by which a report names a finding."""
    words = words_of(loaded.tokenizer, phrase.report, loaded.max_text_tokens)
    spans = [m.span() for m in re.finditer(PHRASES[phrase.finding], phrase.report, re.IGNORECASE)]
    return [
        piece
        for word in words
        if any(word.start < end and start < word.end for start, end in spans)
        for piece in word.pieces
    ]
