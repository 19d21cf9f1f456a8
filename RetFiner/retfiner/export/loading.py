"""From a checkpoint of a run back to the whole model, ready to be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BertConfig, PreTrainedTokenizerBase

from retfiner.common.errors import InputError, shorten
from retfiner.export.extract import refined_backbone
from retfiner.losses import ITMHead
from retfiner.model import RetFiner
from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.tokenizer import load_tokenizer, tokenizer_from_text
from retfiner.vision import RawCheckpoint, read_checkpoint
from retfiner.vision.checkpoint_file import checkpoint_of

PREFIX = "model."
_VISION = PREFIX + "vision_encoder."


class LoadedModel(NamedTuple):
    """A refined model and what is needed to feed it.

    Attributes:
        model: In evaluation mode, on the device that was asked for.
        tokenizer: The one it was refined with.
        max_text_tokens: Longest report in WordPieces, as in its refinement.
        description: What the run wrote about itself: settings, provenance, versions.
    """

    model: RetFiner
    tokenizer: PreTrainedTokenizerBase
    max_text_tokens: int
    description: Mapping[str, Any]


def read_model(
    path: Path | str,
    device: str | torch.device = "cpu",
    text_encoder: Path | str | None = None,
) -> LoadedModel:
    """Read a whole refined model; nothing in the file is executed.

    Args:
        path: ``best-model.ckpt`` or ``last.ckpt`` of a run, or the run's folder.
        device: Where the model shall work.
        text_encoder: Folder with the tokenizer, for checkpoints that do not carry theirs.

    Raises:
        InputError: If the file is no checkpoint of a run, or its parts do not fit together.
    """
    path = checkpoint_of(Path(path))
    raw = read_checkpoint(path)
    state, about = raw.content.get("state_dict"), raw.metadata
    if not isinstance(state, Mapping) or "text_config" not in about:
        raise InputError(
            f"{path} holds no whole model",
            got=shorten(sorted(str(key) for key in raw.content)),
            expected="best-model.ckpt as train.py writes it",
            remedy="an extracted backbone has no text encoder: give the run's folder",
        )
    tokenizer = _tokenizer(path, about, text_encoder)
    model = _assemble(path, raw, tokenizer.mask_token_id)
    longest = int(about["settings"]["max_text_tokens"])
    return LoadedModel(model.to(device).eval(), tokenizer, longest, about)


def _assemble(path: Path, raw: RawCheckpoint, mask_token_id: int) -> RetFiner:
    state: Mapping[str, Tensor] = raw.content["state_dict"]
    about = raw.metadata
    config = BertConfig.from_dict(dict(about["text_config"]))
    config.is_decoder = config.add_cross_attention = True
    head = state.get(f"{PREFIX}contra_head_v.linear.weight")
    settings = about["settings"]
    model = RetFiner(
        backbone=refined_backbone(raw, path),
        text=CrossAttentionBert(config),
        mask_token_id=mask_token_id,
        contrastive_dim=None if head is None else head.shape[0],
        itm_head=ITMHead(config.hidden_size) if "itm" in settings["losses"] else None,
        exponential_temp=settings["exponential_temp"],
        duplicate_reports=settings["duplicate_reports"],
    )
    rest = {
        key.removeprefix(PREFIX): value
        for key, value in state.items()
        if not key.startswith(_VISION)
    }
    fit = model.load_state_dict(rest, strict=False)
    missing = [key for key in fit.missing_keys if not key.startswith("vision_encoder.")]
    if missing or fit.unexpected_keys:
        raise InputError(
            f"the parts of {path} do not fit together",
            got=f"missing: {shorten(missing) or 'none'}; "
            f"left over: {shorten(fit.unexpected_keys) or 'none'}",
            expected="every weight of the model its description names",
        )
    return model


def _tokenizer(
    path: Path, about: Mapping[str, Any], text_encoder: Path | str | None
) -> PreTrainedTokenizerBase:
    if text_encoder is not None:
        return load_tokenizer(text_encoder)
    stored = about.get("tokenizer")
    if stored is None:
        raise InputError(
            f"{path} does not carry its tokenizer",
            remedy="--text_encoder <the folder it was refined with>",
        )
    return tokenizer_from_text(stored)
