"""The training loop's side of refinement: the weighted sum of the losses, each logged by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from retfiner.common.devices import fetch
from retfiner.common.errors import InputError, shorten
from retfiner.common.seeds import derive_seed, generator
from retfiner.losses import build_losses, losses_together
from retfiner.model import Batch, Encoded, RetFiner
from retfiner.training.compact_adamw import CompactAdamW
from retfiner.training.distributed.collectives import all_gather_objects, all_reduce_mean
from retfiner.training.distributed.fsdp import clip_by_norm
from retfiner.training.optim import LrSchedule, lr_factor, parameter_groups
from retfiner.training.recall import chance_recall, retrieval_recall
from retfiner.training.verdict import deal_anew, entropy
from retfiner.vision.preprocessing import augment_batch


class RefinementModule(pl.LightningModule):
    """Refine a model on image-report pairs.

    Args:
        model: The model.
        loss_weights: The active losses by name, each with its weight.
        loss_options: Arguments of a loss by its name, where it has any.
        lr: Learning rate of AdamW.
        vision_lr: That of the pretrained vision encoder; by default ``lr``.
        text_lr: That of the pretrained text encoder; by default ``lr``.
        weight_decay: Weight decay of AdamW; the temperature is left out of it.
        lr_schedule: Course of the learning rate after warm-up.
        warmup_steps: Optimiser steps of linear warm-up.
        fusion_warmup_steps: Optimiser steps in which ITM, MLM and GM do not reach the vision
            encoder: through cross-attention that is still noise they harm it.
        layer_decay: Learning rate of each vision block as a share of the next one's.
        compact_states: Whether AdamW keeps its moments in bfloat16.
        augment: Whether training images are flipped, turned, shifted and brightened at random.
        seed: What masks, negatives and augmentation depend on.
        description: Plain data that each checkpoint carries, so that it can be read alone.

    Attributes:
        batch_losses: Each loss of the last training batch, detached; callbacks make means of them.
        batch_pairs: How many pairs that batch had.
    """

    def __init__(
        self,
        model: RetFiner,
        loss_weights: Mapping[str, float],
        loss_options: Mapping[str, Mapping[str, Any]] | None = None,
        lr: float = 1e-4,
        vision_lr: float | None = None,
        text_lr: float | None = None,
        weight_decay: float = 0.01,
        lr_schedule: LrSchedule = "constant",
        warmup_steps: int = 0,
        fusion_warmup_steps: int = 0,
        layer_decay: float = 1.0,
        compact_states: bool = False,
        augment: bool = False,
        seed: int = 0,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # Loaded encoders come in evaluation mode, and Lightning keeps whatever mode it finds.
        self.model = model.train()
        self.losses = build_losses(loss_weights, model.contrast, loss_options)
        self.loss_weights = dict(loss_weights)
        self.lr = lr
        self.vision_lr = vision_lr
        self.text_lr = text_lr
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.warmup_steps = warmup_steps
        self.fusion_warmup_steps = fusion_warmup_steps
        self.layer_decay = layer_decay
        self.compact_states = compact_states
        self.augment = augment
        self.seed = seed
        self.description = dict(description or {})
        self.uses_similarity = any(loss.uses_similarity for loss in self.losses.values())
        self.uses_fusion = any(loss.uses_fusion for loss in self.losses.values())
        self.batch_losses: dict[str, Tensor] = {}
        self.batch_pairs = 0
        self._words: dict[str, Tensor] = {}
        self._seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._accumulation = 1.0
        self._found_inf: Tensor | None = None
        self._last: tuple[Callable[[], Tensor], Callable[[], InputError]] | None = None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let each process drop out other units: all of them began with the same seed.

        They depend on nothing but the step, so that a run that goes on draws what it would have
        drawn. One process alone goes on from its generator's state. Note how many batches make the
        step, too.
        """
        if self.trainer.world_size > 1:
            parts = (self.seed, "dropout", self.current_epoch, batch_idx, self.global_rank)
            torch.manual_seed(derive_seed(*parts))
        # Lightning divides each loss by the batches of a step, of which an epoch's last has fewer.
        most = self.trainer.accumulate_grad_batches
        begun = batch_idx - batch_idx % most
        self._accumulation = most / min(most, self.trainer.num_training_batches - begun)

    # -- a step ------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the weighted sum of the losses of a batch.

        Raises:
            InputError: If a loss is not finite, or was a batch ago where looking at once would wait
                for a GPU; nothing has been changed by then.
        """
        if self.augment:
            batch = batch._replace(images=self._augmented(batch, batch_idx))
        values, _ = self._batch_losses(batch, "train", self.current_epoch, batch_idx)
        total = self._weighted_sum(values)
        logged = _over_processes(values | {"loss": total})
        total = self._check_finite(total, logged, batch, batch_idx)
        size = batch.total
        self.batch_losses, self.batch_pairs = logged, size
        self.log_dict(
            {f"step/{n}": v for n, v in logged.items()},
            on_step=True,
            on_epoch=False,
            batch_size=size,
        )
        self.log("loss", logged["loss"], prog_bar=True, logger=False, batch_size=size)
        if self.model.is_contrastive:
            self.log("step/temperature", self.model.temperature.detach(), batch_size=size)
        return total if self._accumulation == 1 else total * self._accumulation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the losses of a batch; masks and negatives are the same at every call.

        Raises:
            InputError: If a loss is not finite.
        """
        values, encoded = self._batch_losses(batch, "validation", 0, batch_idx)
        logged = _over_processes(values | {"loss": self._weighted_sum(values)})
        if not torch.isfinite(logged["loss"]):
            place = f"validation batch {batch_idx}"
            raise self._not_finite(logged, batch, self.current_epoch, place)
        for name, value in logged.items():
            self.log(
                f"val/{name}",
                value,
                on_epoch=True,
                prog_bar=name == "loss",
                batch_size=batch.total,
            )
        self._look_at_objectives(batch, batch_idx, encoded)
        if encoded.image_embedding is not None and encoded.text_embedding is not None:
            of = batch if batch.joined is None else batch.joined
            self._seen.append(
                (encoded.image_embedding, encoded.text_embedding, of.report_ids, of.image_ids)
            )

    def _look_at_objectives(self, batch: Batch, batch_idx: int, encoded: Encoded) -> None:
        """Note what guessing gives, and log the losses with the images dealt out anew."""
        if batch.total > 1:  # a pair alone would get its own image again
            self._log_shuffled(batch, batch_idx, encoded)
        for name, loss in self.losses.items():
            own = generator(self.seed, "validation", 0, batch_idx, name)
            counts = loss.guesses(self.model, batch, own).cpu()
            if loss.predicts_tokens:  # words are as frequent as in all of validation
                self._words[name] = self._words.get(name, torch.zeros(())) + counts
            else:
                self.log(f"chance/{name}", entropy(counts), on_epoch=True, batch_size=batch.total)

    def _log_shuffled(self, batch: Batch, batch_idx: int, encoded: Encoded) -> None:
        everyone = batch if batch.joined is None else batch.joined
        dealt = deal_anew(everyone.report_ids, everyone.image_ids)[batch.own]
        images, mask = self.model.tokens_of_all(batch, encoded)
        others = self.model.relate(
            batch,
            images[dealt],
            self.uses_similarity,
            self.uses_fusion,
            image_mask=None if mask is None else mask[dealt],
        )
        shuffled = self._losses_of(batch, others, "validation", 0, batch_idx)
        for name, value in _over_processes(shuffled).items():
            self.log(f"shuffled/{name}", value, on_epoch=True, batch_size=batch.total)

    def on_validation_epoch_end(self) -> None:
        """Log recall@k and what guessing gives, over the whole validation set."""
        for name, counts in self._words.items():
            self.log(f"chance/{name}", entropy(torch.stack(all_gather_objects(counts)).sum(0)))
        self._words = {}
        if self._seen:
            images, texts, report_ids, image_ids = (
                torch.cat(parts) for parts in zip(*self._seen, strict=True)
            )
            self._seen.clear()
            recall = retrieval_recall(images, texts, report_ids, image_ids)
            chance = chance_recall(report_ids, image_ids)
            self.log_dict({f"val/{name}": value for name, value in recall.items()})
            self.log_dict({f"chance/{name}": value for name, value in chance.items()})

    def _augmented(self, batch: Batch, batch_idx: int) -> Tensor:
        spec = self.model.backbone.spec
        mean, std = (torch.tensor(values) for values in (spec.mean, spec.std))
        return augment_batch(
            batch.images,
            black=-mean / std,
            white=(1 - mean) / std,
            generator=generator(self.seed, "augment", self.current_epoch, batch_idx),
            total=batch.total,
            first=0 if batch.joined is None else batch.joined.first,
            sizes=None if batch.groups is None else batch.groups.sizes,
        )

    def _batch_losses(
        self, batch: Batch, phase: str, epoch: int, batch_idx: int
    ) -> tuple[dict[str, Tensor], Encoded]:
        warm = self.global_step >= self.fusion_warmup_steps
        encoded = self.model.encode(batch, self.uses_similarity, self.uses_fusion, warm)
        return self._losses_of(batch, encoded, phase, epoch, batch_idx), encoded

    def _losses_of(
        self, batch: Batch, encoded: Encoded, phase: str, epoch: int, batch_idx: int
    ) -> dict[str, Tensor]:
        draws = {name: generator(self.seed, phase, epoch, batch_idx, name) for name in self.losses}
        return losses_together(self.losses, self.model, batch, encoded, draws)

    def _weighted_sum(self, values: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(
            [self.loss_weights[name] * value for name, value in values.items()]
        ).sum()

    def _not_finite(
        self, values: Mapping[str, Tensor], batch: Batch, epoch: int, place: str
    ) -> InputError:
        parts = {name: value for name, value in values.items() if name != "loss"}
        bad = [name for name, value in parts.items() if not torch.isfinite(value)]
        kept = "the last good checkpoint stays as it is"
        is_finite = torch.isfinite(batch.images).flatten(1).all(1)
        sizes = (1,) * len(batch.images) if batch.groups is None else batch.groups.sizes
        sound = [bool(part.all()) for part in is_finite.split(sizes)]
        seen = all_gather_objects(list(zip(batch.rows.tolist(), sound, strict=True)))
        pairs = [pair for part in seen for pair in part]
        images = [row for row, is_sound in pairs if not is_sound]
        if images:
            remedy = f"mend the images of pairs {shorten([str(i) for i in images])}; {kept}"
        else:
            remedy = f"a lower --lr, --gradient_clip_val 1, or --precision 32-true; {kept}"
        return InputError(
            f"the loss is not finite: {', '.join(bad) or 'the weighted sum'}",
            got=", ".join(f"{name} = {value.item():g}" for name, value in parts.items())
            + f" at epoch {epoch}, {place}, pairs "
            + shorten([str(row) for row, _ in pairs], 16),
            expected="finite numbers",
            remedy=remedy,
        )

    def probing_features(self, images: Tensor) -> Tensor:
        """Turn (B, C, H, W) images into (B, F) features, as a linear probe would get them."""
        return self.model.backbone.features(images)

    # -- is the loss finite? -----------------------------------------------------------------------

    def _check_finite(
        self, total: Tensor, logged: dict[str, Tensor], batch: Batch, batch_idx: int
    ) -> Tensor:
        """Refuse a loss that is not finite: at once on a CPU, a batch late on a GPU.

        A batch that is looked at late changes nothing either: the optimiser is told in
        :meth:`on_before_optimizer_step`, float16's scaler by gradients that are not finite.
        """
        is_finite = torch.isfinite(logged["loss"])
        error = partial(self._not_finite, logged, batch, self.current_epoch, f"batch {batch_idx}")
        if not self._looks_late(total.device):
            if not is_finite:
                raise error()
            return total
        self.raise_if_not_finite()
        self._last = (fetch(is_finite), error)
        self._found_inf = (~is_finite).float()
        # A constant factor: the gradients of a good batch stay what they are, to the bit.
        return total * torch.ones_like(logged["loss"]).masked_fill(~is_finite, torch.nan)

    def _looks_late(self, device: torch.device) -> bool:
        """Say whether to look a batch late: where looking at once would wait for a GPU.

        Not where weights are split: their optimiser cannot be told to change nothing.
        """
        return device.type == "cuda" and not isinstance(self, FSDPModule)

    def raise_if_not_finite(self) -> None:
        """Look at the last batch, if it has not been looked at.

        Raises:
            InputError: If its loss was not finite.
        """
        if self._last is not None:
            (is_finite, error), self._last = self._last, None
            if not is_finite():
                raise error()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let AdamW's kernel change nothing if the batch is bad, as float16's scaler does."""
        if self._found_inf is not None and optimizer.defaults["fused"]:
            optimizer.found_inf = self._found_inf  # type: ignore[attr-defined]

    def on_validation_start(self) -> None:
        """Validate no run that is broken."""
        self.raise_if_not_finite()

    # -- optimisation ------------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with a learning rate that follows ``lr_schedule`` step by step."""
        is_scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        make = partial(CompactAdamW, seed=self.seed) if self.compact_states else torch.optim.AdamW
        optimizer = make(
            parameter_groups(self.model, self.lr, self.vision_lr, self.text_lr, self.layer_decay),
            lr=self.lr,
            weight_decay=self.weight_decay,
            # One kernel for all weights; not where gradients are clipped after a float16 scaler.
            fused=not (is_scaled and self.trainer.gradient_clip_val),
        )
        total = int(self.trainer.estimated_stepping_batches)
        factor = partial(
            lr_factor, total=total, schedule=self.lr_schedule, warmup_steps=self.warmup_steps
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients, also where they are split over devices.

        Lightning refuses to clip for an optimiser with one kernel in mixed precision, since such a
        kernel may undo a float16 scale by itself; :meth:`configure_optimizers` sees to that.
        """
        if gradient_clip_val is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            clip_by_norm(parameters, gradient_clip_val)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Keep the temperature positive after the optimiser's step."""
        self.model.keep_temperature_positive()

    # -- checkpoints -------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the description into the checkpoint; of a run that is broken there is none."""
        self.raise_if_not_finite()
        checkpoint["retfiner"] = self.description


def _over_processes(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each value's mean over processes, detached: the losses of the whole batch."""
    means = all_reduce_mean(torch.stack([value.detach() for value in values.values()]))
    return dict(zip(values, means.unbind(), strict=True))
