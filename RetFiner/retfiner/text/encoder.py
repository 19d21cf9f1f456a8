"""BERT with a cross-attention layer in every block, read in two ways: alone, or over an image.

The parameters are those of transformers' ``BertLMHeadModel``, so that any BERT checkpoint fits. The
forward passes are our own for one reason: an image's keys and values are projected once a step and
shared by every pass that looks at it, in whichever order that pass wants the images.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, BertConfig, BertLMHeadModel

from retfiner.common.errors import InputError, shorten
from retfiner.text.folder import no_bert
from retfiner.text.layer import CrossAttentionLayer, KeysValues
from retfiner.text.packing import Packing
from retfiner.text.reading import Reading, attendable, lay_out
from retfiner.text.recompute import Switch

_MOST = {
    "vocab_size": 4_000_000,
    "hidden_size": 16_384,
    "num_hidden_layers": 128,
    "num_attention_heads": 256,
    "intermediate_size": 65_536,
    "max_position_embeddings": 131_072,
    "type_vocab_size": 64,
}
"""The largest sizes of a configuration that are believed."""

FROM_REPORTS = "retfiner_from_reports"
"""Entry of a text encoder's ``config.json``: it has read nothing but the reports of a table."""


class CrossAttentionBert(BertLMHeadModel):
    """A BERT that reads text alone or over image tokens (ALBEF's fusion in every layer).

    Attributes:
        checkpoint_layers: Keep only each layer's input for the backward pass, to save memory.
        recompute: Whether else to make again, in the backward pass, what costs little.
    """

    checkpoint_layers = False

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.recompute = Switch()
        for layer in self.layers:
            layer.__class__ = CrossAttentionLayer  # the same weights, read in our way

    @property
    def layers(self) -> list[CrossAttentionLayer]:
        """The layers in their order."""
        return list(self.bert.encoder.layer)

    def encode_text(
        self, input_ids: Tensor, attention_mask: Tensor, packing: Packing | None = None
    ) -> Tensor:
        """Read text alone, as :meth:`fuse` does without the cross-attention layers."""
        return self.read(input_ids, attendable(attention_mask, causal=False), None, packing)

    def project_image(self, image_tokens: Tensor, mask: Tensor | None = None) -> list[KeysValues]:
        """Project (B, T, H) image tokens to every cross-attention layer's keys and values.

        ``mask``, (B, T), is true where there is a token; by default everywhere.
        """
        seen = None if mask is None else mask[:, None, None]
        return [KeysValues(*layer.project_image(image_tokens)[:2], seen) for layer in self.layers]

    def fuse(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        image: list[KeysValues],
        image_index: Tensor | None = None,
        causal: bool = False,
        packing: Packing | None = None,
    ) -> Tensor:
        """Read (N, L) tokens over images: (N, L, H) hidden states of the last layer.

        Args:
            input_ids: (N, L) token ids.
            attention_mask: (N, L), 1 for a token and 0 for padding.
            image: What :meth:`project_image` made of B images.
            image_index: (N,) which image each text is read over, whose keys and values are copied;
                by default text i over image i, without copies.
            causal: Whether a token sees only itself and the tokens before it (GM).
            packing: Where the words are; padding then costs nothing and comes back as zeros.
        """
        if image_index is not None:
            image = images_at(image, image_index)
        mask = attendable(attention_mask, causal)
        return self.read(input_ids, mask, [[layer] for layer in image], packing)

    def fuse_together(
        self,
        readings: Sequence[Reading],
        image: list[KeysValues] | None,
        drawn: Sequence[list[KeysValues]] = (),
    ) -> list[Tensor]:
        """Do what :meth:`fuse` does, for several readings in one pass.

        Args:
            readings: Texts, as many in each.
            image: What :meth:`project_image` made of the images, for readings that take them in
                their order.
            drawn: The same for each other reading: of the images that it wants.

        Returns:
            Of each reading its (B, L, H) hidden states of the last layer, L the longest reading's.
        """
        layout = lay_out(readings)
        groups = [*([image] if image is not None else []), *drawn]
        by_layer = [list(parts) for parts in zip(*groups, strict=True)]
        states = self.read(layout.input_ids, layout.mask, by_layer, layout.packing, layout.rows)
        return layout.separate(states)

    def predict_tokens(self, hidden_states: Tensor) -> Tensor:
        """Score every WordPiece: (..., H) hidden states to (..., vocabulary) logits."""
        return self.cls(hidden_states)

    def read(
        self,
        input_ids: Tensor,
        mask: Tensor,
        image: Sequence[Sequence[KeysValues]] | None,
        packing: Packing | None = None,
        rows: list[int] | None = None,
    ) -> Tensor:
        """Run the layers: what all passes share; without ``image``, no cross-attention.

        ``mask``, (N, 1, 1 or L, L), is true where a query may look at a key. For ``image`` and
        ``rows`` see :meth:`CrossAttentionLayer.read`; here ``image`` is by layer.
        """
        hidden = self.bert.embeddings(input_ids=input_ids)
        if packing is not None:
            hidden = packing.pack(hidden)
        again = self.checkpoint_layers and torch.is_grad_enabled()
        forget = self.recompute.applies(self.checkpoint_layers)
        for number, layer in enumerate(self.layers):
            seen = None if image is None else image[number]
            parts = (hidden, mask, seen, packing, rows, None, forget)
            hidden = (
                checkpoint(layer.read, *parts, use_reentrant=False) if again else layer.read(*parts)
            )
        return hidden if packing is None else packing.unpack(hidden)


def images_at(image: list[KeysValues], index: Tensor) -> list[KeysValues]:
    """Copy keys and values of the images that texts are to be read over."""
    # index_select, since on a CPU k[index] adds up the gradients of an image that is drawn several
    # times in whichever order threads come: the same seed gave other numbers. On CUDA index_select
    # does so too, unless algorithms are asked to be deterministic.
    return [
        KeysValues(
            layer.keys.index_select(0, index),
            layer.values.index_select(0, index),
            None if layer.mask is None else layer.mask.index_select(0, index),
            (layer.keys, layer.values, index),
        )
        for layer in image
    ]


def read_bert_config(source: str) -> BertConfig:
    """Read a BERT's configuration, of the hub or a folder, and switch its cross-attention on.

    Raises:
        InputError: If there is no configuration, or it is not a BERT's.
    """
    try:
        # Said explicitly: left open, transformers may ask on the terminal whether to run code.
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # transformers and the readers beneath it raise any kind
        raise no_bert(source, (str(error) or type(error).__name__).splitlines()[0]) from error
    if config.model_type != "bert":
        raise InputError(
            f"the model in {source} is not a BERT",
            got=f"model_type {config.model_type!r}",
            expected="model_type 'bert' (any size, language and vocabulary)",
        )
    _check_sizes(config, source)
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(
            f"the BERT in {source} is quantised",
            expected="weights of 32 or 16 bits",
            remedy="use the model it was quantised from",
        )
    config.is_decoder = True  # what transformers asks for before it builds cross-attention
    config.add_cross_attention = True
    return config


def _check_sizes(config: BertConfig, source: str) -> None:
    """Refuse sizes that no BERT has, before memory is taken for them."""
    for name, most in _MOST.items():
        size = getattr(config, name, None)
        if type(size) is not int or not 1 <= size <= most:
            raise InputError(
                f"config.json of {source} describes no BERT",
                got=f"{name} {str(size)[:40]}",
                expected=f"a whole number from 1 to {most:,}",
            )


def load_text_encoder(folder: Path | str) -> CrossAttentionBert:
    """Load a BERT whose cross-attention was added by ``build_text_encoder.py``.

    Raises:
        InputError: If the folder holds no BERT, or weights are missing or left over.
    """
    encoder, missing, unexpected = load_bert(str(folder))
    if missing or unexpected:
        raise InputError(
            f"the text encoder in {folder} is not complete",
            got=f"missing: {shorten(missing) or 'none'}; "
            f"left over: {shorten(unexpected) or 'none'}",
            expected="every weight of a BERT with cross-attention and a prediction head",
            remedy="python build_text_encoder.py --source "
            f"{folder} --output <new folder>, then --text_encoder <new folder>",
        )
    return encoder


def load_bert(source: str) -> tuple[CrossAttentionBert, list[str], list[str]]:
    """Load any BERT, of the hub or a folder, into the architecture with cross-attention.

    Returns:
        The encoder, the names of weights it had to make up, and of weights it had no place for.
    """
    config = read_bert_config(source)
    try:
        encoder, report = CrossAttentionBert.from_pretrained(
            source,
            config=config,
            output_loading_info=True,
            dtype=torch.float32,
            # Whatever config.json asks for: it may name a kernel, which is code to be downloaded.
            attn_implementation="eager",
            use_kernels=False,
            trust_remote_code=False,
        )
    except Exception as error:  # transformers and the readers beneath it raise any kind
        raise InputError(
            f"the weights of the text encoder in {source} cannot be read",
            got=(str(error) or type(error).__name__).splitlines()[0],
            expected="model.safetensors or pytorch_model.bin of a BERT",
        ) from error
    if report["mismatched_keys"]:
        raise InputError(
            f"weights in {source} do not fit its own config.json",
            got=shorten([str(item) for item in report["mismatched_keys"]]),
        )
    return encoder, sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
