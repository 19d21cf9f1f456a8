"""The model that refinement trains: ViT, BERT with cross-attention, what the losses share."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retfiner.common.errors import InputError
from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.layer import KeysValues
from retfiner.text.packing import Packing, packing_of
from retfiner.vision import Backbone

DuplicateReports = Literal["shared", "ignore"]

MIN_TEMPERATURE = 1e-3
"""The temperature is held above this, so that it stays positive whatever the optimiser does."""


class Joined(NamedTuple):
    """The reports of the batch that all processes of a run see together, in the order of ranks.

    Attributes:
        input_ids: (W, L) WordPiece ids of all W reports, padded to the longest; from here to
            ``report_ids`` as in :class:`Batch`.
        sizes: How many of the pairs each process has.
        rank: Which process this is.
        gather: Gathers this process's rows, (B, ...), with those of the others, (W, ...); gradients
            go back to where each row came from.
    """

    input_ids: Tensor
    attention_mask: Tensor
    lengths: tuple[int, ...]
    report_ids: Tensor
    sizes: tuple[int, ...]
    rank: int
    gather: Callable[[Tensor], Tensor]

    @property
    def first(self) -> int:
        """Place of this process's first pair among all."""
        return sum(self.sizes[: self.rank])

    @property
    def rows(self) -> slice:
        """Places of this process's pairs among all."""
        return slice(self.first, self.first + self.sizes[self.rank])


class Batch(NamedTuple):
    """A batch of image-report pairs.

    Attributes:
        images: (B, C, H, W), normalised as the backbone asks.
        input_ids: (B, L) WordPiece ids, padded to the longest report.
        attention_mask: (B, L), 1 for a token and 0 for padding.
        lengths: B counts of tokens, padding not included, on the CPU whatever the device is.
        report_ids: (B,) int64, equal for reports that are identical word for word.
        rows: (B,) int64, the number each pair is known by (its row in the CSV), for messages.
        joined: What other processes hold, where several train together; None for one alone.
    """

    images: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    lengths: tuple[int, ...]
    report_ids: Tensor
    rows: Tensor
    joined: Joined | None = None

    @property
    def total(self) -> int:
        """Number of pairs, those of other processes included."""
        return len(self.images) if self.joined is None else sum(self.joined.sizes)

    @property
    def weight(self) -> float:
        """Factor for a mean over this process's pairs: processes' mean is then that of all pairs.

        Data-parallel training averages gradients over processes, whose batches may differ in size.
        """
        if self.joined is None:
            return 1.0
        sizes = self.joined.sizes
        return sizes[self.joined.rank] * len(sizes) / sum(sizes)


class Encoded(NamedTuple):
    """What a step computes once and its losses share; None where no active loss needs it.

    Attributes:
        image_tokens: (B, T, H) image tokens in the text encoder's width, CLS first.
        image: The image tokens' keys and values for every cross-attention layer.
        image_embedding: (W, E) unit vectors of the images; W is B, or where several processes train
            together, the pairs of all of them, in the order of ranks.
        text_embedding: (W, E) unit vectors of the reports.
        similarity: (B, W) cosine of image i and report j, divided by the temperature.
        text_similarity: (B, W) the same of report i and image j.
        same_report: (B, W) true where report j counts as the report of image i.
        packing: Where the words of the batch's reports are; None where there is no padding.
    """

    image_tokens: Tensor
    image: list[KeysValues] | None
    image_embedding: Tensor | None
    text_embedding: Tensor | None
    similarity: Tensor | None
    text_similarity: Tensor | None
    same_report: Tensor
    packing: Packing | None


class ContrastiveHead(nn.Module):
    """A bias-free projection to the space where images and reports are compared."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim, bias=False)

    def forward(self, cls_tokens: Tensor) -> Tensor:
        """Project (B, width) CLS tokens to (B, dim) unit vectors."""
        return F.normalize(self.linear(cls_tokens), dim=-1)


class RetFiner(nn.Module):
    """A vision encoder and a text encoder that are refined together.

    The attribute names ``vision_encoder``, ``multimodal_encoder``, ``contra_head_t``,
    ``contra_head_v``, ``itm_head`` and ``contra_temp`` are those of published checkpoints. The
    vision encoder keeps exactly its pretrained keys: the projection to the text encoder's width,
    where widths differ, is ``vision_proj`` and no part of the ViT.

    ``contrastive_dim`` is the width of the shared space, 512 as published; None builds no
    contrastive heads, for runs without ITC and ITM. ``temperature`` is the one to start from, 0.07
    as published; with ``exponential_temp``, its logarithm is learned. Where ``duplicate_reports``
    is ``shared``, identical reports are each other's match; with ``ignore`` (as published), only a
    pair's own report is. ``random_token_from`` and ``redraw_masks`` say how words are hidden, see
    :func:`retfiner.text.masking.mask_tokens`.

    Raises:
        InputError: If the temperature is below :data:`MIN_TEMPERATURE`.
    """

    def __init__(
        self,
        backbone: Backbone,
        text: CrossAttentionBert,
        mask_token_id: int,
        contrastive_dim: int | None = 512,
        itm_head: nn.Module | None = None,
        temperature: float = 0.07,
        exponential_temp: bool = False,
        duplicate_reports: DuplicateReports = "shared",
        random_token_from: int = 0,
        redraw_masks: bool = False,
    ) -> None:
        super().__init__()
        if temperature < MIN_TEMPERATURE:
            raise InputError(
                "the contrastive temperature is too small",
                got=temperature,
                expected=f"at least {MIN_TEMPERATURE:g}; the method was published with 0.07",
                remedy="--contra_temp 0.07",
            )
        width = text.config.hidden_size
        self.backbone = backbone
        self.vision_encoder = backbone.encoder
        self._fusion_tokens = backbone.fusion_tokens
        self.vision_proj = (
            nn.Identity() if backbone.width == width else nn.Linear(backbone.width, width)
        )
        self.multimodal_encoder = text
        self.mask_token_id = mask_token_id
        self.vocab_size = text.config.vocab_size
        self.exponential_temp = exponential_temp
        self.duplicate_reports = duplicate_reports
        self.random_token_from = random_token_from
        self.redraw_masks = redraw_masks
        if contrastive_dim is not None:
            self.contra_head_t = ContrastiveHead(width, contrastive_dim)
            self.contra_head_v = ContrastiveHead(width, contrastive_dim)
            # A float32 parameter of the module itself: it moves to the device, trains and is saved.
            start = math.log(temperature) if exponential_temp else temperature
            self.contra_temp = nn.Parameter(torch.tensor(start))
        if itm_head is not None:
            self.itm_head = itm_head

    @property
    def is_contrastive(self) -> bool:
        """Whether the model compares images and reports."""
        return hasattr(self, "contra_temp")

    @property
    def temperature(self) -> Tensor:
        """The temperature, a positive scalar."""
        return self.contra_temp.exp() if self.exponential_temp else self.contra_temp

    @torch.no_grad()
    def keep_temperature_positive(self) -> None:
        """Hold the temperature at or above its minimum; to be called after each optimiser step."""
        if self.is_contrastive:
            lowest = math.log(MIN_TEMPERATURE) if self.exponential_temp else MIN_TEMPERATURE
            self.contra_temp.clamp_(min=lowest)

    def compile_encoders(self) -> None:
        """Compile the forward passes of both encoders at their first call."""
        self._fusion_tokens = torch.compile(self.backbone.fusion_tokens)
        text = torch.compile(self.multimodal_encoder.read, dynamic=True)
        self.multimodal_encoder.read = text  # type: ignore[method-assign]

    def encode_images(self, images: Tensor) -> Tensor:
        """Turn (B, C, H, W) normalised images into (B, T, H) tokens of the text encoder's width."""
        return self.vision_proj(self._fusion_tokens(images))

    def embed_images(self, image_tokens: Tensor) -> Tensor:
        """Turn (B, T, H) image tokens into (B, E) unit vectors by their CLS token."""
        return self.contra_head_v(image_tokens[:, 0])

    def embed_texts(
        self, input_ids: Tensor, attention_mask: Tensor, packing: Packing | None = None
    ) -> Tensor:
        """Turn (B, L) token ids into (B, E) unit vectors by a text-only pass and its [CLS]."""
        states = self.multimodal_encoder.encode_text(input_ids, attention_mask, packing)
        return self.contra_head_t(states[:, 0])

    def encode(self, batch: Batch, similarity: bool = True, fusion: bool = True) -> Encoded:
        """Compute once what the losses of a step share.

        ``similarity`` is for losses that compare images and reports (ITC, ITM), ``fusion`` for
        those that read reports over images (ITM, MLM, GM).
        """
        return self.relate(batch, self.encode_images(batch.images), similarity, fusion)

    def relate(
        self, batch: Batch, image_tokens: Tensor, similarity: bool = True, fusion: bool = True
    ) -> Encoded:
        """Do what :meth:`encode` does, from (B, T, H) image tokens that are there already."""
        packing = packing_of(batch.lengths, batch.input_ids.shape[1], batch.input_ids.device)
        image_embedding = text_embedding = scores = text_scores = None
        if similarity:
            image_embedding = self.embed_images(image_tokens)
            text_embedding = self.embed_texts(batch.input_ids, batch.attention_mask, packing)
            own = (image_embedding, text_embedding)
            if batch.joined is not None:
                both = batch.joined.gather(torch.cat(own, 1))
                image_embedding, text_embedding = both.chunk(2, 1)
            scores = own[0] @ text_embedding.T / self.temperature
            text_scores = scores.T
            if batch.joined is not None:
                text_scores = own[1] @ image_embedding.T / self.temperature
        return Encoded(
            image_tokens=image_tokens,
            image=self.multimodal_encoder.project_image(image_tokens) if fusion else None,
            image_embedding=image_embedding,
            text_embedding=text_embedding,
            similarity=scores,
            text_similarity=text_scores,
            same_report=self._same_report(batch),
            packing=packing,
        )

    def fuse(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        encoded: Encoded,
        image_index: Tensor | None = None,
        causal: bool = False,
        packing: Packing | None = None,
    ) -> Tensor:
        """Read texts over the step's images; see :meth:`CrossAttentionBert.fuse`.

        Raises:
            ValueError: If ``encoded`` was made without ``fusion``.
        """
        if encoded.image is None:
            raise ValueError("encode() was called with fusion=False, so there is nothing to fuse")
        return self.multimodal_encoder.fuse(
            input_ids, attention_mask, encoded.image, image_index, causal, packing
        )

    def _same_report(self, batch: Batch) -> Tensor:
        joined = batch.joined
        report_ids = batch.report_ids if joined is None else joined.report_ids
        own = slice(None) if joined is None else joined.rows
        if self.duplicate_reports == "shared":
            return batch.report_ids[:, None] == report_ids[None, :]
        return torch.eye(len(report_ids), dtype=torch.bool, device=report_ids.device)[own]
