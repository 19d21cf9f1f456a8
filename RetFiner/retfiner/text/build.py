"""Text encoders with cross-attention: from any BERT, or small ones from reports alone."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import BertConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from retfiner.common.errors import InputError, shorten
from retfiner.common.faults import explained_faults
from retfiner.common.progress import progress
from retfiner.text.config import TextEncoderConfig
from retfiner.text.encoder import FROM_REPORTS, CrossAttentionBert, load_bert
from retfiner.text.pretrain import pretrain_text
from retfiner.text.tokenizer import load_tokenizer, train_tokenizer

UNUSED_PARTS = ("pooler.", "seq_relationship.")
"""Parts of a BERT that refinement has no use for: next-sentence prediction and its pooler."""


@explained_faults()
def build_text_encoder(
    config: TextEncoderConfig, read_reports: Callable[[Path, str], list[str]]
) -> None:
    """Build a text encoder and write it, with its tokenizer, as a Hugging Face folder.

    ``read_reports`` reads those of a table by its path and its column.

    Raises:
        InputError: If the source is no BERT, or the output exists already.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what is missing or left over, we check and say
    config.require_paths()
    torch.manual_seed(config.seed)  # transformers makes weights up with the global generator
    if config.from_reports is not None:
        reports = read_reports(config.from_reports, config.report_column)
        tokenizer: PreTrainedTokenizerBase
        with progress("learning WordPieces", len(reports), "report"):
            tokenizer = train_tokenizer(reports, config.vocab_size)
        encoder = CrossAttentionBert(small_bert(len(tokenizer), config.width, config.layers))
        print(f"A new BERT, {config.layers} layers, {config.width} wide;")
        print(f"{len(tokenizer)} WordPieces learned from {len(reports)} reports.")
        if config.epochs:
            losses = pretrain_text(encoder, tokenizer, reports, config.epochs, config.seed)
            print(f"Reading loss {losses[0]:.3f} -> {losses[-1]:.3f} in {config.epochs} epochs")
    else:
        with progress(f"reading {config.source}, a folder or a model on the hub"):
            encoder, made_up, left_over = load_bert(config.source)
        check_weights(config.source, made_up, left_over)
        tokenizer = load_tokenizer(config.source)
        print(f"{config.source}: every pretrained weight kept, {len(made_up)} made up,")
        print(f"of them {sum('crossattention' in name for name in made_up)} of cross-attention.")
    if len(tokenizer) > encoder.config.vocab_size:
        raise InputError(
            "the tokenizer knows more WordPieces than the model",
            got=f"{len(tokenizer)} and {encoder.config.vocab_size}",
            remedy="use the tokenizer that the model was trained with",
        )
    _write(encoder, tokenizer, config.output)
    print(f"Text encoder:   {config.output}")


def small_bert(vocab_size: int, width: int, layers: int) -> BertConfig:
    """Return the configuration of a small BERT with cross-attention, its heads 64 wide."""
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,  # too small to learn reports by heart
        attention_probs_dropout_prob=0.0,
        # BERT's own 0.02 is made for 768 channels. In a narrow BERT it leaves [CLS] blind: all
        # reports come out alike (cosine 0.9999), and the contrast has nothing to begin with.
        initializer_range=width**-0.5,
        is_decoder=True,
        add_cross_attention=True,
        **{FROM_REPORTS: True},
    )


def check_weights(source: str, made_up: list[str], left_over: list[str]) -> None:
    """Make sure that only cross-attention, and at most the prediction head, had to be made up.

    Raises:
        InputError: If anything else is missing or left over.
    """
    missing = [
        name for name in made_up if "crossattention" not in name and not name.startswith("cls.")
    ]
    unplaced = [name for name in left_over if not any(part in name for part in UNUSED_PARTS)]
    if missing or unplaced:
        raise InputError(
            f"the weights of {source} do not fit a BERT",
            got=f"missing: {shorten(missing) or 'none'}; left over: {shorten(unplaced) or 'none'}",
            expected="every weight of a BERT; only cross-attention and prediction head may be new",
        )


def _write(encoder: CrossAttentionBert, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Write the folder beside its place and move it there when it is whole."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as parent:
        folder = Path(parent) / "folder"
        encoder.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if output.exists():
            output.rmdir()  # empty, as checked
        shutil.move(folder, output)
