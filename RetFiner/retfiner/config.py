"""Every setting of a refinement run: one field, one flag, one line of ``--help``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from retfiner.common.cli import default_of, flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import (
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
)
from retfiner.data.table_settings import TableSettings
from retfiner.text.folder import DEFAULT_TEXT_ENCODER

LossName = Literal["itc", "itm", "mlm", "gm"]
LoggerName = Literal["tensorboard", "wandb", "mlflow"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
RecipeName = Literal["auto", "published"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Model."""

    model_weights: Path = flag(
        "checkpoint of the vision model to refine (.pth or .safetensors), or its name: RETFound"
    )
    backbone: str = flag("name of the backbone, timm/<id>, or auto to read it off the file", "auto")
    image_size: PositiveInt | None = flag(
        "side of the input image in pixels; by default the backbone's", None
    )
    text_encoder: Path = flag("folder made by build_text_encoder.py", DEFAULT_TEXT_ENCODER)
    max_text_tokens: PositiveInt = flag("reports are cut at this many WordPieces", 30)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Data."""

    train_csv: Path | None = flag(
        "table of image-report pairs: CSV, .xlsx or .parquet, here or at a URL; or the folder that"
        " prepare_pairs.py wrote",
        None,
    )
    val_csv: Path | None = flag(
        "table for validation; by default patients are split off train_csv", None
    )
    val_fraction: OpenUnitInterval = flag("share of the patients split off for validation", 0.1)
    on_bad_row: Literal["error", "skip"] = flag("what to do with rows that cannot be used", "error")
    augment: bool | None = flag(
        "flip, turn, shift and brighten training images at random; by default the recipe's", None
    )
    train_interpolation: Literal["bilinear", "bicubic"] | None = flag(
        "how training images are resized; by default the recipe's", None
    )
    dataset: str | None = flag(
        "a data set of your own instead of a CSV; the file is run, also if a --config names it",
        None,
        metavar="FILE.py:CLASS",
    )


@dataclass(frozen=True, kw_only=True)
class ExamSettings:
    """Exams."""

    group_column: str | None = flag(
        "column that names the exam: rows of a patient that share it are one pair of many images;"
        " by default a row is a pair",
        None,
    )
    pooling: Literal["attention", "mean"] = flag(
        "how images of an exam become one vector: by learned weights, or alike", "attention"
    )
    slices: Literal["central", "even", "random"] = flag(
        "which images of a larger exam are used; random: others in each epoch", "even"
    )
    max_slices: PositiveInt = flag("most images of an exam that are used", 16)
    report_part: Literal["all", "random_sentences", "findings"] = flag(
        "all up to the cut, drawn sentences, or the findings",
        "all",
    )


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """Objectives."""

    losses: list[LossName] = flag(
        "objectives to train with; what is off costs nothing", ["itc", "itm", "mlm", "gm"]
    )
    loss_weights: list[NonNegativeFloat] | None = flag(
        "a weight for each of the losses; by default 1 each", None
    )
    contrast: Literal["softmax", "sigmoid"] = flag(
        "how itc compares: the right one among all (InfoNCE), or each pair by itself (SigLIP)",
        "softmax",
    )
    contra_temp: PositiveFloat | None = flag(
        "contrastive temperature to start from; it is learned; by default 0.07, with"
        " --contrast sigmoid 0.1",
        None,
    )
    fixed_temp: bool | None = flag(
        "keep the temperature at contra_temp; by default the recipe's", None
    )
    exponential_temp: bool = flag(
        "learn the temperature's logarithm instead of the temperature", False
    )
    itm_negatives: Literal["hard", "uniform"] | None = flag(
        "wrong pairs that ITM sees: those found similar, or any; by default the recipe's",
        None,
    )
    duplicate_reports: Literal["shared", "ignore", "similar"] | None = flag(
        "do pairs of one report or image match; by default the recipe's",
        None,
    )
    random_token_from: NonNegativeInt | None = flag(
        "smallest id of the random tokens that replace words; by default the recipe's", None
    )
    redraw_masks: bool | None = flag(
        "draw masks anew until one hides a word; by default the recipe's", None
    )


@dataclass(frozen=True, kw_only=True)
class OptimisationSettings:
    """Optimisation."""

    recipe: RecipeName = flag(
        "what is not set: auto, by the number of pairs; published, as in the paper", "auto"
    )
    lr: PositiveFloat | None = flag(
        "learning rate of AdamW, for what is new; by default the recipe's", None
    )
    vision_lr: NonNegativeFloat | None = flag(
        "that of the pretrained vision encoder, 0 freezes it; by default the recipe's",
        None,
    )
    text_lr: NonNegativeFloat | None = flag(
        "that of the pretrained text encoder, 0 freezes it; by default the recipe's", None
    )
    weight_decay: NonNegativeFloat = flag("weight decay of AdamW", 0.01)
    lr_schedule: Literal["constant", "cosine"] | None = flag(
        "course of the learning rate after warm-up; by default the recipe's", None
    )
    warmup_steps: NonNegativeInt | None = flag(
        "optimiser steps of linear warm-up; by default the recipe's", None
    )
    fusion_warmup_steps: NonNegativeInt | None = flag(
        "optimiser steps before itm, mlm and gm train the ViT too; by default the recipe's", None
    )
    batch_size: PositiveInt | None = flag(
        "most pairs in a batch of one device; by default the recipe's",
        None,
    )
    contrast_batch: PositiveInt | None = flag(
        "pairs that the losses see together, computed batch_size at a time: less memory, a slower"
        " step; by default batch_size",
        None,
        metavar="N",
    )
    accumulate_grad_batches: PositiveInt = flag(
        "batches whose gradients make one optimiser step", 1
    )
    gradient_clip_val: PositiveFloat | None = flag(
        "largest gradient norm; by default no limit", None
    )
    max_epochs: PositiveInt | None = flag("most epochs; by default the recipe's", None)
    monitor: list[str] | None = flag(
        "which epoch is kept: last, guard, loss, a loss or a recall; by default the recipe's",
        None,
    )
    patience: PositiveInt | None = flag(
        "epochs in which it gets no better before the run ends; by default the recipe's", None
    )
    unfreeze_last: NonNegativeInt | None = flag(
        "vision blocks that train, counted from the last; all of them: embeddings too; 0: none; by"
        " default the recipe's",
        None,
    )
    layer_decay: PositiveFloat = flag(
        "learning rate of each vision block as a share of the next one's", 1.0
    )
    lora_rank: PositiveInt | None = flag(
        "train low-rank updates of this rank in place of the vision encoder's weights; by default"
        " the recipe's",
        None,
    )
    lora_alpha: PositiveInt | None = flag(
        "scale of these updates times their rank; by default twice the rank", None
    )
    drop_path: NonNegativeFloat | None = flag(
        "stochastic depth of the last vision block, from 0 at the first; by default the recipe's",
        None,
    )


@dataclass(frozen=True, kw_only=True)
class HardwareSettings:
    """Hardware."""

    accelerator: str = flag("device as Lightning names it: auto, cpu, gpu, mps", "auto")
    devices: str = flag(
        "devices of each machine: a number, or all; auto is one, or as torchrun started",
        "auto",
        metavar="N",
    )
    num_nodes: PositiveInt | None = flag("machines; by default one, or as torchrun started", None)
    strategy: Literal["auto", "ddp", "fsdp"] = flag(
        "ddp: a copy of the model on each device; fsdp: a share of it on each, slower, for models"
        " too large to copy",
        "auto",
    )
    precision: Precision = flag("auto is bfloat16 where the device is made for it", "auto")
    gradient_checkpointing: bool = flag(
        "compute activations again in the backward pass: less memory, a slower step", False
    )
    optimizer_states: Literal["float32", "bfloat16"] = flag(
        "AdamW's moments; bfloat16 takes half the memory", "float32"
    )
    compile: bool = flag("compile the encoders with torch.compile; needs a C++ compiler", False)
    num_workers: NonNegativeInt | None = flag(
        "processes that read images; by default as many as the device needs, by their speed", None
    )
    worker_start: Literal["auto", "fork", "spawn", "forkserver"] = flag(
        "how those processes start", "auto"
    )
    image_cache: bool = flag(
        "decode each image once a run and keep it, 8 bit, in a temporary file", False
    )
    deterministic: bool = flag(
        "let a GPU give the same numbers at each run: slower kernels where need be", False
    )


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Run."""

    output_dir: Path = flag("folder that gets a folder a run", Path("models"))
    note: str = flag("a word of yours for the run's name", "", metavar="WORD")
    seed: NonNegativeInt = flag("seed of everything random", 0)
    logger: list[LoggerName] = flag(
        "what logs beside metrics.csv",
        ["tensorboard"],
    )
    checkpoint_every_n_steps: PositiveInt = flag(
        "optimiser steps between two writes of last.ckpt", 1000
    )
    resume: Path | None = flag(
        "last.ckpt or folder of a run to go on with; auto: the newest of these settings in"
        " output_dir, else a new one",
        None,
    )


@dataclass(frozen=True, kw_only=True)
class RefineConfig(
    RunSettings,
    HardwareSettings,
    OptimisationSettings,
    ObjectiveSettings,
    ExamSettings,
    TableSettings,
    DataSettings,
    ModelSettings,
):
    """Settings of ``train.py``; each class above is a heading of its ``--help``.

    The last base comes first: dataclasses collect fields in that order.
    """

    def __post_init__(self) -> None:
        """Check what a type alone cannot say.

        Raises:
            InputError: If two settings do not go together.
        """
        self._check_losses()
        self._check_tuning()
        self._check_effects()
        if len(set(self.logger)) != len(self.logger):
            raise InputError("a logger is named twice", got=" ".join(self.logger))
        if self.seed >= 2**32:
            raise InputError("--seed is too large", got=self.seed, expected="less than 2**32")
        if self.train_csv is None and self.dataset is None:
            raise InputError(
                "there is nothing to train on",
                got="neither --train_csv nor --dataset",
                expected="one of the two",
                remedy="--train_csv pairs.csv, with columns image, report, patient_id",
            )
        if self.dataset is not None:
            self._check_dataset()
        self._check_contrast()
        self._check_exams()
        if self.max_text_tokens < 3:
            raise InputError(
                "--max_text_tokens leaves no room for a word",
                got=self.max_text_tokens,
                expected="at least 3: [CLS], one WordPiece, [SEP]",
            )

    def _check_dataset(self) -> None:
        if self.train_csv is not None or self.val_csv is not None:
            raise InputError("--dataset and a CSV are both given", expected="one of the two")
        if self.group_column is not None or self.report_part == "findings":
            raise InputError(
                "exams and sections of reports are read from a table only",
                got="--dataset with --group_column or --report_part findings",
                remedy="--train_csv, or leave them out",
            )
        # Who says that there are no patients is heard, and images may be of any folder.
        heard = {"image_root": self.image_root, "patient_column": "none"}
        plain = {field.name: default_of(field) for field in fields(TableSettings)}
        plain["image_cache"] = False
        idle = [
            f"--{name}"
            for name, value in plain.items()
            if getattr(self, name) not in (value, heard.get(name, value))
        ]
        if idle:
            raise InputError(
                f"{' and '.join(idle)} without effect: --dataset reads its pairs by itself",
                got=f"--dataset {self.dataset}",
                expected="a table, whose rows and images are looked at",
                remedy="--train_csv, or leave it out and let the class see to it",
            )

    def _check_exams(self) -> None:
        plain = {"pooling": "attention", "slices": "even", "max_slices": 16}
        idle = [f"--{name}" for name, value in plain.items() if getattr(self, name) != value]
        if idle and self.group_column is None:
            raise InputError(
                f"{' and '.join(idle)} without effect: each row is a pair of one image",
                got="no --group_column",
                remedy="--group_column COLUMN, which names the exam of a row, or leave it out",
            )
        if self.image_cache and self.dataset is None and not self.can_cache_images:
            raise InputError(
                "--image_cache and --slices random do not go together",
                got="both",
                expected="the same images in each epoch, or no cache: it has no room for all",
                remedy="--slices even, or leave --image_cache out",
            )

    @property
    def can_cache_images(self) -> bool:
        """Whether images can be kept: a table's, the same ones in each epoch."""
        draws_slices = self.group_column is not None and self.slices == "random"
        return self.dataset is None and not draws_slices

    @property
    def draws_anew(self) -> bool:
        """Whether slices or sentences of a pair are drawn anew in each epoch."""
        by_exam = self.group_column is not None and self.slices == "random"
        return by_exam or self.report_part == "random_sentences"

    def _check_contrast(self) -> None:
        is_contrastive = {"itc", "itm"} & set(self.losses)
        batch = "--batch_size" if self.contrast_batch is None else "--contrast_batch"
        if is_contrastive and (self.contrast_batch or self.batch_size) == 1:
            raise InputError(
                "a batch of one has nothing to contrast",
                got=f"{batch} 1 with {' and '.join(sorted(is_contrastive))}",
                expected="at least 2; the method was published with 128",
            )
        given = self.contrast_batch is not None and self.batch_size is not None
        if given and self.contrast_batch < self.batch_size:  # type: ignore[operator]
            raise InputError(
                "--contrast_batch is smaller than --batch_size",
                got=f"{self.contrast_batch} to contrast, computed {self.batch_size} at a time",
                expected="at least as many as are computed at a time",
                remedy=f"--contrast_batch {self.contrast_batch} with a smaller --batch_size",
            )
        if self.contrast_batch is not None and not is_contrastive:
            raise InputError(
                "--contrast_batch has nothing to contrast",
                got=f"--losses {' '.join(self.losses)}",
                expected="itc or itm among them",
                remedy="--accumulate_grad_batches, which does the same for the other losses",
            )
        if self.contrast_batch is not None and self.strategy == "fsdp":
            raise InputError(
                "--contrast_batch and --strategy fsdp do not go together",
                got="both",
                expected="one of the two: devices would wait for one that has a chunk less",
                remedy="--strategy ddp, or --gradient_checkpointing in place of --contrast_batch",
            )
        if self.optimizer_states == "bfloat16" and self.strategy == "fsdp":
            raise InputError(
                "--optimizer_states bfloat16 and --strategy fsdp do not go together",
                got="both",
                expected="one of the two: fsdp splits the moments over the devices",
            )
        if self.contrast == "sigmoid" and "itc" not in self.losses:
            raise InputError(
                "--contrast sigmoid has no effect without itc", got=" ".join(self.losses)
            )
        if self.contrast == "sigmoid" and self.exponential_temp:
            raise InputError(
                "--exponential_temp has no effect with --contrast sigmoid",
                got="both",
                remedy="leave it out: a sigmoid contrast always learns the logarithm",
            )

    @property
    def temperature(self) -> float:
        """The contrastive temperature to start from."""
        if self.contra_temp is not None:
            return self.contra_temp
        return 0.1 if self.contrast == "sigmoid" else 0.07

    def _check_tuning(self) -> None:
        if self.lora_alpha is not None and self.lora_rank is None:
            raise InputError("--lora_alpha goes with --lora_rank", got=self.lora_alpha)
        if self.lora_rank is not None and self.unfreeze_last is not None:
            raise InputError(
                "--lora_rank and --unfreeze_last do not go together",
                got="both",
                expected="one of the two: LoRA leaves every weight of the encoder as it is",
            )
        if self.vision_lr == 0 and (self.lora_rank is not None or self.unfreeze_last):
            raise InputError(
                "--vision_lr 0 freezes the encoder, and nothing else of it is to train",
                got="--unfreeze_last" if self.lora_rank is None else "--lora_rank",
                remedy="leave one of the two out",
            )
        if self.drop_path is not None and self.drop_path >= 1:
            raise InputError(
                "--drop_path is the probability of leaving a layer out",
                got=self.drop_path,
                expected="0 to below 1; the method was published with 0.1",
            )
        if self.layer_decay > 1:
            raise InputError("--layer_decay is a share", got=self.layer_decay, expected="0 to 1")
        is_frozen = self.lora_rank is not None or 0 in (self.unfreeze_last, self.vision_lr)
        if self.layer_decay != 1 and is_frozen:
            raise InputError(
                "--layer_decay has no effect on a frozen encoder",
                got=f"--layer_decay {self.layer_decay}",
                remedy="leave it out, or --lora_rank, --unfreeze_last 0 and --vision_lr 0",
            )

    def _check_effects(self) -> None:
        if self.fusion_warmup_steps and not self.weights.get("itc"):
            raise InputError(
                "--fusion_warmup_steps leaves the vision encoder nothing to learn from",
                got=f"--losses {' '.join(self.losses)}"
                + (" with weight 0 for itc" if "itc" in self.losses else ""),
                expected="itc among them: it alone trains the encoder in these steps",
                remedy="leave it out, or give itc a weight",
            )
        if self.fixed_temp and self.exponential_temp:
            raise InputError(
                "--exponential_temp has no effect with --fixed_temp",
                got="both",
                expected="one of the two: a fixed temperature is not learned in any form",
            )
        if self.fixed_temp and "itc" not in self.losses:
            raise InputError(
                "--fixed_temp has no effect without itc, which alone learns the temperature",
                got=f"--losses {' '.join(self.losses)}",
                remedy="leave it out",
            )
        masking = {"random_token_from": self.random_token_from, "redraw_masks": self.redraw_masks}
        idle = [f"--{name}" for name, value in masking.items() if value]
        if idle and not {"mlm", "gm"} & set(self.losses):
            raise InputError(
                f"{' and '.join(idle)} without effect: only mlm and gm hide words",
                got=f"--losses {' '.join(self.losses)}",
                remedy="leave it out",
            )

    def lora_scale(self, rank: int | None) -> float | None:
        """What low-rank updates are multiplied by; None without LoRA."""
        if rank is None:
            return None
        return self.lora_alpha / rank if self.lora_alpha is not None else 2.0

    def _check_losses(self) -> None:
        if len(set(self.losses)) != len(self.losses):
            raise InputError("a loss is named twice", got=" ".join(self.losses))
        if self.loss_weights is None:
            return
        if len(self.loss_weights) != len(self.losses):
            raise InputError(
                "--loss_weights does not fit --losses",
                got=f"{len(self.loss_weights)} weights for {len(self.losses)} losses",
                expected="a weight for each loss, in the same order",
            )
        if not any(self.loss_weights):
            raise InputError("every loss has weight 0", expected="at least one above 0")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each active loss by name."""
        given = self.loss_weights if self.loss_weights is not None else [1.0] * len(self.losses)
        return dict(zip(self.losses, given, strict=True))
