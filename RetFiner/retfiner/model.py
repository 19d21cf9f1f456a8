"""The model that refinement trains: ViT, BERT with cross-attention, what the losses share."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from retfiner.common.devices import send, without_autocast
from retfiner.common.errors import InputError
from retfiner.text.encoder import CrossAttentionBert, images_at
from retfiner.text.layer import KeysValues
from retfiner.text.overlap import shared_words
from retfiner.text.packing import Packing, packing_of
from retfiner.text.reading import Reading
from retfiner.text.recompute import ForgetOutput
from retfiner.vision import Backbone
from retfiner.vision.exams import MARKS, AttentionPooling, MeanPooling, pooled

DuplicateReports = Literal["shared", "ignore", "similar"]
Contrast = Literal["softmax", "sigmoid"]
Pooling = Literal["attention", "mean"]

SHARPNESS = 8
"""Power of the reports' similarity that makes it a target; half the words in common are 0.004."""
TOO_SIMILAR = 0.9
"""Similarity of reports from which they are no negatives, where similar ones count."""
SIGMOID_BIAS = -10.0
"""Where the bias of a sigmoid contrast starts: nearly all pairs are wrong ones (SigLIP)."""

MIN_TEMPERATURE = 1e-3
"""The temperature is held above this, so that it stays positive whatever the optimiser does."""


class Groups(NamedTuple):
    """Which images are of one exam, and so of one pair.

    Attributes:
        sizes: How many images each of the B pairs has, on the CPU; their sum is N.
        marks: (N, MARKS) where each image is in its exam, see :mod:`retfiner.vision.exams`.
    """

    sizes: tuple[int, ...]
    marks: Tensor


class Joined(NamedTuple):
    """The reports of the batch that all processes of a run see together, in the order of ranks.

    Attributes:
        input_ids: (W, L) WordPiece ids of all W reports, padded to the longest; from here to
            ``image_ids`` as in :class:`Batch`.
        sizes: How many of the pairs each process has.
        rank: Which process this is.
        gather: Gathers this process's rows, (B, ...), with those of the others, (W, ...); gradients
            go back to where each row came from.
        group_sizes: How many images each of the W pairs has; None for one each.
    """

    input_ids: Tensor
    attention_mask: Tensor
    lengths: tuple[int, ...]
    report_ids: Tensor
    image_ids: Tensor
    sizes: tuple[int, ...]
    rank: int
    gather: Callable[[Tensor], Tensor]
    group_sizes: tuple[int, ...] | None = None

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
        images: (B, C, H, W), normalised as the backbone asks; of exams (N, C, H, W), one pair's
            images behind the other's.
        input_ids: (B, L) WordPiece ids, padded to the longest report.
        attention_mask: (B, L), 1 for a token and 0 for padding.
        lengths: B counts of tokens, padding not included, on the CPU whatever the device is.
        report_ids: (B,) int64, equal for reports of the same WordPieces.
        image_ids: (B,) int64, equal for pairs of the same image.
        rows: (B,) int64, the number each pair is known by (its row in the CSV), for messages.
        joined: What other processes hold, where several train together; None for one alone.
        groups: Which images are of one pair; None for one each.
    """

    images: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    lengths: tuple[int, ...]
    report_ids: Tensor
    image_ids: Tensor
    rows: Tensor
    joined: Joined | None = None
    groups: Groups | None = None

    @property
    def total(self) -> int:
        """Number of pairs, those of other processes included."""
        return len(self.lengths) if self.joined is None else sum(self.joined.sizes)

    @property
    def own(self) -> slice:
        """Places of this process's pairs among those of all processes."""
        return slice(0, len(self.lengths)) if self.joined is None else self.joined.rows

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many images the pairs have, those of other processes included."""
        if self.groups is None:
            return (1,) * self.total
        everyone = None if self.joined is None else self.joined.group_sizes
        return self.groups.sizes if everyone is None else everyone

    @property
    def weight(self) -> float:
        """Factor for a mean over this process's pairs: processes' mean is then that of all pairs.

        Data-parallel training averages gradients over processes, whose batches may differ in size.
        """
        if self.joined is None:
            return 1.0
        sizes = self.joined.sizes
        return sizes[self.joined.rank] * len(sizes) / sum(sizes)


class Relation(NamedTuple):
    """Which reports go with which images.

    That is not symmetric in i and j: an image may have several reports, of which another image has
    one alone.

    Attributes:
        matches: True where report j is no negative of image i: a pair of the batch holds both, or
            it is too similar to one of the image's reports to tell.
        affinity: How far report j is the right one for image i, from 0 to 1 (matches themselves,
            unless similar reports count).
    """

    matches: Tensor
    affinity: Tensor

    def rows(self, own: slice) -> "Relation":
        """Take those of some images."""
        return Relation(self.matches[own], self.affinity[own])

    @property
    def of_reports(self) -> "Relation":
        """The same for report i and image j."""
        return Relation(self.matches.T.contiguous(), self.affinity.T.contiguous())


class Encoded(NamedTuple):
    """What a step computes once and its losses share; None where no active loss needs it.

    Attributes:
        image_tokens: (B, T, H) image tokens in the text encoder's width, CLS first; of exams
            (B, K * T, H), image after image, K those of the largest exam of all processes.
        image: The image tokens' keys and values for every cross-attention layer; None also where
            batches are computed in chunks, each of which projects its own.
        image_embedding: (W, E) unit vectors of the images; W is B, or where several processes train
            together, the pairs of all of them, in the order of ranks.
        text_embedding: (W, E) unit vectors of the reports.
        similarity: (B, W) cosine of image i and report j, divided by the temperature.
        text_similarity: (B, W) the same of report i and image j.
        relation: How image i goes with report j, (B, W).
        text_relation: How report i goes with image j, (B, W).
        packing: Where the words of the batch's reports are, a part for each chunk of the batch;
            None where there is no padding.
        image_mask: (B, K * T), true where an exam has an image; None where all have as many.
    """

    image_tokens: Tensor
    image: list[KeysValues] | None
    image_embedding: Tensor | None
    text_embedding: Tensor | None
    similarity: Tensor | None
    text_similarity: Tensor | None
    relation: Relation
    text_relation: Relation
    packing: list[Packing | None]
    image_mask: Tensor | None = None


class ContrastiveHead(nn.Module):
    """A bias-free projection to the space where images and reports are compared."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim, bias=False)

    def forward(self, cls_tokens: Tensor) -> Tensor:
        """Project (B, width) CLS tokens to (B, dim) unit vectors, float32 also where mixed."""
        return F.normalize(_at_least_float32(self.linear(cls_tokens)), dim=-1)


class RetFiner(nn.Module):
    """A vision encoder and a text encoder that are refined together.

    The attribute names ``vision_encoder``, ``multimodal_encoder``, ``contra_head_t``,
    ``contra_head_v``, ``itm_head`` and ``contra_temp`` are those of published checkpoints. The
    vision encoder keeps exactly its pretrained keys: the projection to the text encoder's width,
    where widths differ, is ``vision_proj`` and no part of the ViT.

    ``contrastive_dim`` is the width of the shared space, 512 as published; None builds no
    contrastive heads, for runs without ITC and ITM. ``temperature`` is the one to start from, 0.07
    as published; with ``exponential_temp``, its logarithm is learned. Where ``duplicate_reports``
    is ``shared``, pairs of the same report or image are each other's match; with ``ignore`` (as
    published), only a pair's own report is; with ``similar``, reports are also by as many words as
    they have in common. A ``sigmoid`` contrast learns a bias as well, and always the temperature's
    logarithm. With ``chunk_size``, no more pairs than that have their activations in memory: those
    of a larger batch are computed in chunks, and anew in the backward pass. ``random_token_from``
    and ``redraw_masks`` say how words are hidden, see :func:`retfiner.text.masking.mask_tokens`.
    With a ``pooling``, a pair may have several images: it brings them together for the contrast,
    and ``image_marks``, which begins at 0, tells their tokens apart.

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
        contrast: Contrast = "softmax",
        chunk_size: int | None = None,
        pooling: Pooling | None = None,
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
        self.vision_proj = (
            nn.Identity() if backbone.width == width else nn.Linear(backbone.width, width)
        )
        self.multimodal_encoder = text
        self.mask_token_id = mask_token_id
        self.vocab_size = text.config.vocab_size
        self.exponential_temp = exponential_temp or contrast == "sigmoid"
        self.duplicate_reports = duplicate_reports
        self.random_token_from = random_token_from
        self.redraw_masks = redraw_masks
        self.contrast = contrast
        self.chunk_size = chunk_size
        if contrastive_dim is not None:
            self.contra_head_t = ContrastiveHead(width, contrastive_dim)
            self.contra_head_v = ContrastiveHead(width, contrastive_dim)
            # A float32 parameter of the module itself: it moves to the device, trains and is saved.
            start = math.log(temperature) if self.exponential_temp else temperature
            self.contra_temp = nn.Parameter(torch.tensor(start))
            if contrast == "sigmoid":
                self.contra_bias = nn.Parameter(torch.tensor(SIGMOID_BIAS))
        if itm_head is not None:
            self.itm_head = itm_head
        self.recompute = self.multimodal_encoder.recompute
        self._forget_outputs()
        self.pooling = pooling
        if pooling is not None:
            self.image_marks = nn.Linear(MARKS, width, bias=False)
            nn.init.zeros_(self.image_marks.weight)
            if contrastive_dim is not None:
                self.contra_pool = (
                    AttentionPooling(width) if pooling == "attention" else MeanPooling()
                )

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

    def _forget_outputs(self) -> None:
        """Keep less for the backward pass, as :attr:`recompute` decides.

        No output of an MLP's GELU, nor of the ViT's LayerNorms: those of a BERT are read by
        several.
        """
        vision, text = self.vision_encoder, self.multimodal_encoder
        pairs: list[tuple[nn.Module, nn.Module]] = []
        for module in vision.modules():
            if isinstance(module, Mlp):
                pairs.append((module.act, module.fc2))
            if isinstance(module, Block):  # of any timm ViT, whose layers may be of other kinds
                readers = getattr(module.attn, "qkv", None), getattr(module.mlp, "fc1", None)
                norms = module.norm1, module.norm2
                pairs += [(n, r) for n, r in zip(norms, readers, strict=True) if r is not None]
        for output, linear in pairs:
            ForgetOutput(output, self.recompute, vision, "grad_checkpointing").install(linear)
        for layer in text.layers:
            act = layer.intermediate.intermediate_act_fn
            saver = ForgetOutput(act, self.recompute, text, "checkpoint_layers")
            saver.install(layer.output.dense)

    def compile_encoders(self) -> None:
        """Compile the layers of both encoders at their first call.

        Layer by layer, since they are alike: one is compiled for all, not each of them anew.
        """
        for block in self.backbone.blocks:
            block.compile()
        for layer in self.multimodal_encoder.layers:
            layer.read = torch.compile(layer.read, dynamic=True)  # type: ignore[method-assign]

    def encode_images(self, images: Tensor) -> Tensor:
        """Turn (B, C, H, W) normalised images into (B, T, H) tokens of the text encoder's width."""
        return self.vision_proj(self.backbone.fusion_tokens(images))

    def embed_images(
        self, image_tokens: Tensor, images: int = 1, mask: Tensor | None = None
    ) -> Tensor:
        """Turn (B, T, H) image tokens into (B, E) unit vectors by their CLS token.

        Of exams there are the tokens of so many ``images``, those that ``mask`` shows.
        """
        if self.pooling is None:
            return self.contra_head_v(image_tokens[:, 0])
        cls_tokens = image_tokens.unflatten(1, (images, -1))[:, :, 0]
        is_there = None if mask is None else mask.unflatten(1, (images, -1))[:, :, 0]
        weights = self.contra_pool(cls_tokens, is_there)
        values = pooled(weights, self.contra_head_v.linear(cls_tokens))
        return F.normalize(_at_least_float32(values), dim=-1)

    def group(
        self, tokens: Tensor, groups: Groups, sizes: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Lay the images of each exam side by side, each marked with its place in the exam.

        Args:
            tokens: (N, T, H) of all images.
            groups: Which of them are of one exam.
            sizes: How many images exams have, those of other processes included; at most K.

        Returns:
            (B, K * T, H) tokens, and (B, K * T), true where an exam has an image; None where all
            exams have as many.
        """
        tokens = tokens + self.image_marks(groups.marks)[:, None].to(tokens.dtype)
        if min(sizes) == max(sizes):
            return tokens.unflatten(0, (-1, max(sizes))).flatten(1, 2), None
        there = torch.arange(max(sizes)) < torch.tensor(groups.sizes)[:, None]
        # As in images_at(): index_copy adds nothing up, on whatever device.
        places = send(there.flatten().nonzero().squeeze(1), tokens.device)
        laid = tokens.new_zeros(there.numel(), *tokens.shape[1:]).index_copy(0, places, tokens)
        mask = send(there, tokens.device).repeat_interleave(tokens.shape[1], 1)
        return laid.unflatten(0, there.shape).flatten(1, 2), mask

    def embed_texts(
        self, input_ids: Tensor, attention_mask: Tensor, packing: Packing | None = None
    ) -> Tensor:
        """Turn (B, L) token ids into (B, E) unit vectors by a text-only pass and its [CLS]."""
        states = self.multimodal_encoder.encode_text(input_ids, attention_mask, packing)
        return self.contra_head_t(states[:, 0])

    def encode(
        self,
        batch: Batch,
        similarity: bool = True,
        fusion: bool = True,
        fusion_trains_images: bool = True,
    ) -> Encoded:
        """Compute once what the losses of a step share.

        ``similarity`` is for losses that compare images and reports (ITC, ITM), ``fusion`` for
        those that read reports over images (ITM, MLM, GM). Without ``fusion_trains_images``, the
        latter have no gradient into the vision encoder.
        """
        tokens, mask = self.image_tokens(batch)
        return self.relate(batch, tokens, similarity, fusion, fusion_trains_images, mask)

    def image_tokens(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Encode a batch's images one by one: tokens and mask as in :class:`Encoded`."""
        images = batch.images
        tokens = self.in_chunks(
            len(batch.lengths), lambda _, rows: self.encode_images(images[rows]), len(images)
        )
        if batch.groups is None:
            return tokens, None
        return self.group(tokens, batch.groups, batch.group_sizes)

    def relate(
        self,
        batch: Batch,
        image_tokens: Tensor,
        similarity: bool = True,
        fusion: bool = True,
        fusion_trains_images: bool = True,
        image_mask: Tensor | None = None,
    ) -> Encoded:
        """Do what :meth:`encode` does, from (B, T, H) image tokens that are there already."""
        chunks, length = self.chunks_of(len(batch.lengths)), batch.input_ids.shape[1]
        packing = [packing_of(batch.lengths[c], length, batch.input_ids.device) for c in chunks]
        image_embedding = text_embedding = scores = text_scores = None
        if similarity:
            image_embedding = self.embed_images(image_tokens, max(batch.group_sizes), image_mask)
            text_embedding = self.in_chunks(
                len(batch.lengths),
                lambda number, rows: self.embed_texts(
                    batch.input_ids[rows], batch.attention_mask[rows], packing[number]
                ),
            )
            own = (image_embedding, text_embedding)
            if batch.joined is not None:
                both = batch.joined.gather(torch.cat(own, 1))
                image_embedding, text_embedding = both.chunk(2, 1)
            # Divided by the temperature, an error of half-precision would be ten times as large.
            with without_autocast(image_tokens.device):
                scores = own[0] @ text_embedding.T / self.temperature
                text_scores = scores.T
                if batch.joined is not None:
                    text_scores = own[1] @ image_embedding.T / self.temperature
        if not fusion_trains_images:
            image_tokens = image_tokens.detach()
        # Chunks project their own images: keys and values of all would be most of the memory.
        image = None
        if fusion and len(chunks) == 1:
            image = self.multimodal_encoder.project_image(image_tokens, image_mask)
        relation = self.relation(batch)
        return Encoded(
            image_tokens=image_tokens,
            image=image,
            image_embedding=image_embedding,
            text_embedding=text_embedding,
            similarity=scores,
            text_similarity=text_scores,
            relation=relation.rows(batch.own),
            text_relation=relation.of_reports.rows(batch.own),
            packing=packing,
            image_mask=image_mask,
        )

    def fuse(self, batch: Batch, encoded: Encoded, readings: Sequence[Reading]) -> list[Tensor]:
        """Read texts over the step's images, all readings in one pass of the text encoder.

        Keys and values of the images are those of ``encoded``; where it has none, the images of
        each chunk are projected here. Where several processes train together, ``image_index`` is
        among the images of all of them.

        Returns:
            Of each reading its (B, L, H) hidden states of the last layer.
        """
        if not readings:
            return []
        text, tokens, mask = self.multimodal_encoder, encoded.image_tokens, encoded.image_mask
        everyone, masks = tokens, mask
        in_order = any(reading.image_index is None for reading in readings)
        if any(reading.image_index is not None for reading in readings):
            everyone, masks = self.tokens_of_all(batch, encoded)

        def project_drawn(index: Tensor) -> list[KeysValues]:
            if encoded.image is not None and batch.joined is None:
                return images_at(encoded.image, index)
            drawn = None if masks is None else masks.index_select(0, index)
            return text.project_image(everyone.index_select(0, index), drawn)

        def read(_: int, rows: slice) -> Tensor:
            parts = [reading.of(rows) for reading in readings]
            image = encoded.image if in_order else None
            if in_order and image is None:
                image = text.project_image(tokens[rows], None if mask is None else mask[rows])
            drawn = [project_drawn(p.image_index) for p in parts if p.image_index is not None]
            return torch.stack(text.fuse_together(parts, image, drawn), 1)

        states = self.in_chunks(len(tokens), read).unbind(1)
        return [s[:, : r.input_ids.shape[1]] for s, r in zip(states, readings, strict=True)]

    @staticmethod
    def tokens_of_all(batch: Batch, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        """Gather the image tokens of all processes, and their mask, as in :class:`Encoded`.

        Tokens travel, not keys and values: those are twice as wide, for every layer.
        """
        tokens, mask, joined = encoded.image_tokens, encoded.image_mask, batch.joined
        if joined is None:
            return tokens, mask
        device = tokens.device.type
        if torch.is_autocast_enabled(device):
            # The projection reads them in this type in any case; half the bytes travel.
            tokens = tokens.to(torch.get_autocast_dtype(device))
        return joined.gather(tokens), None if mask is None else joined.gather(mask.float()) > 0

    # -- a batch in chunks -------------------------------------------------------------------------

    def chunks_of(self, pairs: int, rows: int | None = None) -> list[slice]:
        """Cut rows, one a pair unless said, into almost equal chunks of at most so many pairs."""
        count = 1 if self.chunk_size is None else math.ceil(pairs / self.chunk_size)
        rows = rows or pairs
        return [slice(*ends) for ends in pairwise(rows * i // count for i in range(count + 1))]

    def in_chunks(
        self, pairs: int, function: Callable[[int, slice], Tensor], rows: int | None = None
    ) -> Tensor:
        """Join what ``function(number, rows)`` gives for each chunk; see :meth:`chunks_of`.

        Of several chunks, none keeps its activations: the backward pass computes them anew, with
        the same dropout (gradients cached as in Gao et al., GradCache, 2021).
        """
        chunks = self.chunks_of(pairs, rows)
        if len(chunks) == 1:
            return function(0, chunks[0])
        if not torch.is_grad_enabled():
            return torch.cat([function(*chunk) for chunk in enumerate(chunks)])
        # checkpoint() looks at its arguments for the device whose dropout it is to repeat.
        device = next(self.parameters())

        def on(_: Tensor, number: int, rows: slice) -> Tensor:
            with self.recompute.off():
                return function(number, rows)

        return torch.cat(
            [checkpoint(on, device, *chunk, use_reentrant=False) for chunk in enumerate(chunks)]
        )

    # -- which pairs go together -------------------------------------------------------------------

    def relation(self, batch: Batch) -> Relation:
        """Say which of the W reports of all processes go with which of their images: (W, W)."""
        everyone = batch if batch.joined is None else batch.joined
        if self.duplicate_reports == "ignore":
            ids = everyone.report_ids
            own = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
            return Relation(own, own)
        equal = everyone.report_ids[:, None] == everyone.report_ids
        if self.duplicate_reports == "shared":
            found = _of_any_row(equal.float(), everyone.image_ids) > 0
            return Relation(found, found)
        likeness = shared_words(everyone.input_ids, everyone.attention_mask, self.vocab_size)
        likeness = _of_any_row(likeness.masked_fill(equal, 1.0), everyone.image_ids)
        return Relation(likeness >= TOO_SIMILAR, likeness.pow(SHARPNESS))


def _of_any_row(likeness: Tensor, image_ids: Tensor) -> Tensor:
    """Let each image have the reports of all its rows.

    Args:
        likeness: (W, W) in [0, 1], how far report j is the report of row i.
        image_ids: (W,), equal for rows of the same image.

    Returns:
        (W, W) how far report j is one of the reports of row i's image.
    """
    same = image_ids[:, None] == image_ids
    first = same.byte().argmax(1)  # the first row of the image stands for it
    places = first[:, None].expand_as(likeness)
    of_images = torch.zeros_like(likeness).scatter_reduce(0, places, likeness, "amax")
    return of_images.index_select(0, first)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
