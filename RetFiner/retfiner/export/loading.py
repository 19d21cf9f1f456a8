"""From a checkpoint of a run back to the whole model, ready to be used."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, PreTrainedTokenizerBase

from retfiner.common.errors import InputError, shorten
from retfiner.common.progress import progress
from retfiner.export.extract import refined_backbone
from retfiner.losses import ITMHead
from retfiner.model import Groups, RetFiner
from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.generation import Decoding, special_tokens, write_reports
from retfiner.text.packing import Packing, packing_of
from retfiner.text.tokenizer import (
    TokenizedReports,
    load_tokenizer,
    tokenize,
    tokenizer_from_text,
)
from retfiner.text.words import without_needless_blanks
from retfiner.vision import RawCheckpoint, evaluation_transform, read_checkpoint
from retfiner.vision.preprocessing import EvaluationTransform
from retfiner.vision.sniff import checkpoint_of

PREFIX, _VISION = "model.", "vision_encoder."
TEXTS_AT_A_TIME = 64
"""Most texts that are read over one image in one pass."""


@dataclass(frozen=True)
class LoadedModel:
    """A refined model and what is needed to feed it.

    Attributes:
        model: In evaluation mode, on the device that was asked for.
        max_text_tokens: Longest report in WordPieces, as in its refinement.
        description: What the run wrote about itself: settings, provenance, versions.
        precision: What Lightning calls the arithmetic it runs in.
    """

    model: RetFiner
    tokenizer: PreTrainedTokenizerBase
    max_text_tokens: int
    description: Mapping[str, Any]
    precision: str = "32-true"

    @property
    def losses(self) -> list[str]:
        """The objectives it was refined with."""
        return self.description["settings"]["losses"]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.parameters()).device

    @property
    def transform(self) -> EvaluationTransform:
        """What turns a B-scan into its input."""
        return evaluation_transform(self.model.backbone)

    def tokenize(self, reports: Sequence[str]) -> tuple[TokenizedReports, Packing | None]:
        """Tokenize reports, cut as in its refinement, onto its device; and say where words are."""
        tokens = tokenize(self.tokenizer, reports, self.max_text_tokens)
        lengths = tokens.attention_mask.sum(1).tolist()
        packing = packing_of(lengths, tokens.input_ids.shape[1], self.device)
        return TokenizedReports(*(part.to(self.device) for part in tokens)), packing

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the model is called."""
        if self.precision == "32-true":
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def require(self, loss: str, purpose: str) -> None:
        """Refuse what the model was not trained for.

        Raises:
            InputError: If it was refined without this objective.
        """
        if loss not in self.losses:
            raise InputError(
                f"the model cannot be used for {purpose}",
                got=f"a refinement with {' '.join(self.losses)}",
                expected=f"one with {loss} among its --losses",
            )

    def encode(self, images: Tensor, groups: Groups | None = None) -> tuple[Tensor, Tensor | None]:
        """Encode (N, C, H, W) normalised images, one by one, for B texts to be read over.

        Returns:
            (B, T, H) tokens of the text encoder's width, and where some are padding, which are
            there: as :class:`retfiner.model.Encoded` has them. Without ``groups``, B is N.

        Raises:
            InputError: If there are groups, and the model was refined on single images.
        """
        tokens = self.model.encode_images(images.to(self.device))
        if groups is None:
            return tokens, None
        require_exams(self.model)
        groups = groups._replace(marks=groups.marks.to(self.device))
        return self.model.group(tokens, groups, groups.sizes)

    @torch.no_grad()
    def embed_images(self, images: Tensor, groups: Groups | None = None) -> Tensor:
        """Embed (N, C, H, W) normalised images, or exams of them, in the space shared with reports.

        What comes back are (B, E) unit vectors, float32 on the CPU; without ``groups``, B is N.

        Raises:
            InputError: If one is not finite, or as :meth:`encode`.
        """
        with self.autocast():
            tokens, mask = self.encode(images, groups)
            largest = 1 if groups is None else max(groups.sizes)
            embedded = self.model.embed_images(tokens, largest, mask)
        return _finite(embedded, "an image" if groups is None else "an exam")

    @torch.no_grad()
    def exam_shares(self, images: Tensor, marks: Tensor) -> Tensor:
        """Return the (K,) shares that the (K, C, H, W) images of one exam have in its vector."""
        count = len(images)
        with self.autocast():
            laid, _ = self.encode(images, Groups((count,), marks))
            shares = self.model.contra_pool(laid.unflatten(1, (count, -1))[:, :, 0]).mean(1)[0]
        return shares.float().cpu()

    @torch.no_grad()
    def match(
        self, image_tokens: Tensor, texts: Sequence[str], mask: Tensor | None = None
    ) -> Tensor:
        """Match (1, T, H) tokens, of an image or an exam, with M texts: (M,) probabilities.

        The image's keys and values are shared by all texts and never copied.
        """
        model, found = self.model, []
        image = model.multimodal_encoder.project_image(image_tokens, mask)
        for first in range(0, len(texts), TEXTS_AT_A_TIME):
            tokens, packing = self.tokenize(texts[first : first + TEXTS_AT_A_TIME])
            states = model.multimodal_encoder.fuse(*tokens, image, packing=packing)
            found.append(model.itm_head(states[:, 0]).float().softmax(1)[:, 1].cpu())
        return torch.cat(found)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Embed M texts: (M, E) unit vectors, float32 on the CPU.

        Raises:
            InputError: If one is not finite.
        """
        parts = []
        with progress("embedding texts", len(texts), "text", shown=len(texts) > batch_size) as bar:
            for first in range(0, len(texts), batch_size):
                tokens, _ = self.tokenize(texts[first : first + batch_size])
                with self.autocast():
                    embedded = self.model.embed_texts(*tokens)
                parts.append(_finite(embedded, "a text"))
                bar.update(len(embedded))
        return torch.cat(parts)

    @torch.no_grad()
    def write_reports(
        self,
        images: Tensor,
        decoding: Decoding,
        generators: Sequence[torch.Generator],
        groups: Groups | None = None,
    ) -> tuple[list[str], list[float]]:
        """Write reports, and say how likely each is: the sum over its tokens in nats.

        There is one generator an image, or exam, which ``nucleus`` draws from.
        """
        text = self.model.multimodal_encoder
        with self.autocast():
            tokens, mask = self.encode(images, groups)
            written = write_reports(
                text,
                text.project_image(tokens, mask),
                special_tokens(self.tokenizer),
                self.max_text_tokens,
                decoding,
                generators,
            )
        texts = [without_needless_blanks(self.tokenizer.decode(ids)) for ids in written.tokens]
        return texts, written.log_probabilities


def require_exams(model: RetFiner) -> None:
    """Refuse exams for a model that knows none.

    Raises:
        InputError: If it was refined on single images.
    """
    if model.pooling is None:
        raise InputError(
            "This model has not learnt to read exams",
            got="one that was refined on single images",
            expected="a model refined with --group_column",
            remedy="images one by one: of a table, --group_column none",
        )


def _finite(embedded: Tensor, what: str) -> Tensor:
    embedded = embedded.float().cpu()
    if not torch.isfinite(embedded).all():
        raise InputError(
            f"the embedding of {what} is not finite",
            expected="finite numbers",
            remedy="--precision 32-true; if that does not help, the model's training diverged",
        )
    return embedded


def read_model(
    path: Path | str,
    device: str | torch.device = "cpu",
    text_encoder: Path | str | None = None,
    precision: str = "32-true",
) -> LoadedModel:
    """Read a whole refined model, of a run's checkpoint or folder; nothing in it is executed.

    ``text_encoder`` is a folder with the tokenizer, for checkpoints that do not carry theirs.
    ``precision`` is ``32-true``, ``bf16-mixed`` or ``16-mixed``.

    Raises:
        InputError: If the file is no checkpoint of a run, or its parts do not fit together.
    """
    path = checkpoint_of(Path(path))
    with progress(f"reading {path.name}"):
        return _read_model(path, device, text_encoder, precision)


def _read_model(
    path: Path, device: str | torch.device, text_encoder: Path | str | None, precision: str
) -> LoadedModel:
    raw = read_checkpoint(path)
    about = raw.metadata
    if not isinstance(raw.content.get("state_dict"), Mapping) or "text_config" not in about:
        raise InputError(
            f"{path} holds no whole model",
            got=shorten(sorted(str(key) for key in raw.content)),
            expected="best-model.ckpt as train.py writes it",
            remedy="an extracted backbone has no text encoder: give the run's folder",
        )
    tokenizer = _tokenizer(path, about, text_encoder)
    model = _assemble(path, raw, tokenizer.mask_token_id)
    longest = int(about["settings"]["max_text_tokens"])
    return LoadedModel(model.to(device).eval(), tokenizer, longest, about, precision)


def _assemble(path: Path, raw: RawCheckpoint, mask_token_id: int) -> RetFiner:
    state: Mapping[str, Tensor] = raw.content["state_dict"]
    settings = raw.metadata["settings"]
    config = BertConfig.from_dict(dict(raw.metadata["text_config"]))
    config.is_decoder = config.add_cross_attention = True
    head = state.get(f"{PREFIX}contra_head_v.linear.weight")
    model = RetFiner(
        backbone=refined_backbone(raw, path),
        text=CrossAttentionBert(config),
        mask_token_id=mask_token_id,
        contrastive_dim=None if head is None else head.shape[0],
        itm_head=ITMHead(config.hidden_size) if "itm" in settings["losses"] else None,
        exponential_temp=settings["exponential_temp"],
        duplicate_reports=settings["duplicate_reports"],
        contrast=settings["contrast"],
        pooling=settings["pooling"] if f"{PREFIX}image_marks.weight" in state else None,
    )
    rest = {
        key.removeprefix(PREFIX): value
        for key, value in state.items()
        if not key.startswith(PREFIX + _VISION)
    }
    fit = model.load_state_dict(rest, strict=False)
    missing = [key for key in fit.missing_keys if not key.startswith(_VISION)]
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
