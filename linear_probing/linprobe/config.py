"""Every setting of ``probe.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from linprobe.schedule import views_of
from retfiner.common.cli import default_of, flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from retfiner.common.patients import Unit

if TYPE_CHECKING:
    from retfiner.common.predictions import Amount

Probe = Literal["linear", "knn", "logistic", "prototype", "attentive", "mil", "finetune"]
Representation = Literal["concat", "concat_prenorm", "concat_postnorm", "global_pool", "cls_token"]


WEIGHT_DECAY = 0.01
"""One for all models; torch's default, and the published value of all backbones but RETFound."""
PUBLISHED_WEIGHT_DECAY = {"RETFound": 0.05}
"""Where the published scripts differ from :data:`WEIGHT_DECAY`."""


@dataclass(frozen=True)
class ModelSettings:
    """Model."""

    weights: list[str] = flag(
        "several models at once, the first the one to compare with, and the report at the end",
        [],
        metavar="NAME=PATH",
    )
    init_weights: Path | None = flag(
        "checkpoint of the base model (.pth or .safetensors), or its name (RETFound)", None
    )
    ft_weights: Path | None = flag(
        "checkpoint of the refined model, or its name; by default the base model is probed", None
    )
    backbone: str = flag(
        "name of the backbone, timm/<id>, or auto to read it off the base model's file", "auto"
    )
    image_size: PositiveInt | None = flag("image side in pixels; by default the backbone's", None)
    num_heads: PositiveInt | None = flag(
        "attention heads; needed for widths outside the ViT family only", None
    )


@dataclass(frozen=True)
class DataSettings:
    """Data."""

    data_root: Path = flag("folder of the data sets", Path("_data"))
    data_set: list[str] = flag(
        "data sets, each <data_root>/<name>/{train,val,test}/<Class>/; by default all of them", []
    )
    external: list[str] = flag(
        "data sets on whose test images every model of the others is tested as well", []
    )
    label_map: list[str] = flag(
        "classes of external data sets that are called otherwise", [], metavar="THEIRS=OURS"
    )
    train_csv: Path | None = flag(
        "CSV of the pairs that models were refined on (image, patient_id): test images and patients"
        " among them are an error",
        None,
    )
    predictions: list[Path] = flag(
        "further rows of the report of --weights: predictions, as zero-shot's, in tables or runs",
        [],
    )
    allow_leaks: bool = flag(
        "probe although test images were trained on; the report says so beside the number", False
    )
    unit: Unit = flag("scored as one: the mean of its images, or pooled", "image")
    train_fraction: list[PositiveFloat] = flag(
        "shares of the training images, for a label-efficiency curve", [1.0]
    )
    shots: list[PositiveInt] = flag(
        "few shots: so many training images of each class, drawn anew by each seed", []
    )
    seed: list[NonNegativeInt] = flag(
        "seeds, each of them a run; by default 0 to 4, of --shots 0 to 19", []
    )


@dataclass(frozen=True)
class ResultSettings:
    """Results."""

    version: str | None = flag(
        "first word of the model's name in the results; by default refined, or baseline without"
        " --ft_weights",
        None,
    )
    model: str | None = flag("second word of it; by default the backbone's name", None)
    results: Path = flag("folder of the results", Path("__results"))
    feature_store: Path = flag("folder of the stored features", Path("_features"))


@dataclass(frozen=True)
class ProbeSettings:
    """Probe."""

    representation_method: Representation | None = flag(
        "what the probe is trained on; by default the backbone's own", None
    )
    probe: Probe = flag(
        "linear (as published), knn, logistic, prototype, attentive (pools patch tokens), mil"
        " (pools a --unit), or finetune",
        "linear",
        metavar="KIND",
    )
    protocol: Literal["unified", "published"] = flag(
        "published: weight decay 0.05 for RETFound; unified: one for all models", "unified"
    )


@dataclass(frozen=True)
class LinearSettings:
    """Linear probe."""

    learning_rate: PositiveFloat = flag("peak learning rate of AdamW", 1e-3)
    min_learning_rate: NonNegativeFloat = flag("learning rate at the last epoch", 1e-8)
    weight_decay: NonNegativeFloat | None = flag(
        "weight decay of AdamW; by default 0.01 for all models", None
    )
    label_smoothing: ClosedUnitInterval = flag("label smoothing", 0.1)
    warmup_epochs: NonNegativeInt = flag("epochs of linear warm-up", 10)
    epochs: PositiveInt = flag("most epochs; the half-cosine ends at the last", 1000)
    patience: PositiveInt = flag(
        "epochs without a better validation balanced accuracy before a run stops", 20
    )
    patience_start: NonNegativeInt = flag("epochs before patience starts to count", 20)
    min_delta: NonNegativeFloat = flag(
        "what counts as better, in balanced accuracy and, on a tie, in loss", 1e-3
    )
    batch_size: PositiveInt | None = flag(
        "images in a batch; by default the largest power of two in a quarter of them, to 64", None
    )
    init_std: NonNegativeFloat = flag("standard deviation of the initial weights", 2e-5)


@dataclass(frozen=True)
class AugmentationSettings:
    """Augmentation, for the linear probe."""

    views: NonNegativeInt | None = flag(
        "stored augmented views a training image, 0 for none; by default as many as make 8192 in"
        " all, at least 2, at most 8",
        None,
    )
    online_augmentation: bool = flag(
        "a fresh augmentation each epoch instead of stored views, as published; slow", False
    )


@dataclass(frozen=True)
class NeighbourSettings:
    """Nearest neighbours, for --probe knn."""

    neighbours: PositiveInt = flag("training images that vote", 20)
    knn_temperature: PositiveFloat = flag("temperature of a vote's weight", 0.07)


@dataclass(frozen=True)
class LogisticSettings:
    """Logistic regression, for --probe logistic."""

    logistic_c: list[PositiveFloat] = flag(
        "inverse regularisation strengths; the best on validation is taken",
        [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0],
    )


@dataclass(frozen=True)
class PrototypeSettings:
    """Class means (prototype probe)."""

    prototype_temperature: PositiveFloat = flag(
        "temperature of squared distances between vectors of length 1", 0.1
    )


@dataclass(frozen=True)
class AttentionSettings:
    """Attention, for --probe attentive and mil."""

    attention_lr: list[PositiveFloat] = flag(
        "peak learning rates of AdamW; the best on validation is taken", [1e-4, 1e-3]
    )
    attention_weight_decay: NonNegativeFloat = flag("weight decay of AdamW", 1e-3)
    attention_epochs: PositiveInt = flag("most epochs; the half-cosine ends at the last", 100)
    attention_patience: PositiveInt = flag(
        "epochs without a better validation balanced accuracy before a run stops", 20
    )
    attention_batch: PositiveInt = flag("images, or units, in a batch", 16)


@dataclass(frozen=True)
class FinetuneSettings:
    """Fine-tuning, for --probe finetune."""

    adapt: Literal["full", "last", "lora"] = flag(
        "what of the encoder trains: all, its last blocks, or LoRA", "full"
    )
    unfreeze_last: PositiveInt = flag("blocks that train, for --adapt last", 4)
    lora_rank: PositiveInt = flag("rank of the updates, for --adapt lora", 8)
    finetune_lr: PositiveFloat = flag("peak learning rate of the head and the last block", 3e-4)
    layer_decay: PositiveFloat = flag(
        "each block's learning rate as a share of the next one's; 1 for LoRA", 0.65
    )
    finetune_weight_decay: NonNegativeFloat = flag("weight decay of AdamW", 0.05)
    finetune_drop_path: ClosedUnitInterval = flag("stochastic depth of the last block", 0.2)
    finetune_smoothing: ClosedUnitInterval = flag("label smoothing", 0.1)
    finetune_warmup: NonNegativeInt = flag("epochs of linear warm-up", 10)
    finetune_epochs: PositiveInt = flag("most epochs; the half-cosine ends at the last", 50)
    finetune_patience: PositiveInt = flag(
        "epochs without a better validation balanced accuracy before a run stops", 20
    )
    finetune_batch: PositiveInt = flag("images in a batch", 16)


@dataclass(frozen=True)
class HardwareSettings:
    """Hardware."""

    device: str = flag("cpu, cuda, mps, or auto", "auto")
    num_workers: NonNegativeInt | None = flag(
        "processes that read images; by default one a core, or four on a CPU, at most 8", None
    )
    inference_batch_size: PositiveInt = flag("images the encoder sees at once", 64)


def _flags(*settings: type) -> tuple[str, ...]:
    return tuple(field.name for group in settings for field in dataclasses.fields(group))


_OF_PROBE: dict[str, tuple[str, ...]] = {
    "linear": _flags(LinearSettings, AugmentationSettings),
    "knn": _flags(NeighbourSettings),
    "logistic": _flags(LogisticSettings),
    "prototype": _flags(PrototypeSettings),
    "attentive": _flags(AttentionSettings),
    "mil": _flags(AttentionSettings),
    "finetune": _flags(FinetuneSettings),
}
"""The flags that some kinds of probe know; given with another kind, they are an error."""
_OF_ADAPT = {"full": (), "last": ("unfreeze_last",), "lora": ("lora_rank",)}
"""Likewise, of what of the encoder is fine-tuned."""
_Checks = tuple[tuple[object, str, Any, Any], ...]
"""What is wrong if true, and the message, what was got and what is expected."""
SEEDS, DRAWS = 5, 20
"""How many seeds by default; more for ``--shots``, since it matters much which few images."""


@dataclass(frozen=True)
class ProbeConfig(
    HardwareSettings,
    FinetuneSettings,
    AttentionSettings,
    PrototypeSettings,
    LogisticSettings,
    NeighbourSettings,
    AugmentationSettings,
    LinearSettings,
    ProbeSettings,
    ResultSettings,
    DataSettings,
    ModelSettings,
):
    """Settings of ``probe.py``, with the published defaults; each class above heads its flags."""

    def __post_init__(self) -> None:
        """Raise an InputError where two settings do not go together."""
        lists = ("data_set", "external", "seed", "train_fraction", "shots", "logistic_c")
        for name in (*lists, "attention_lr"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise InputError(f"--{name} names something twice", got=" ".join(map(str, values)))
        self._refuse_stray(self.probe, "probe", _OF_PROBE)
        self._refuse_stray(self.adapt, "adapt", _OF_ADAPT)
        checks = (*self._of_weights(), *self._of_data(), *self._of_probe())
        for wrong, message, got, expected in checks:
            if wrong:
                raise InputError(message, got=got, expected=expected)

    def _refuse_stray(self, chosen: str, what: str, flags: Mapping[str, Sequence[str]]) -> None:
        """Refuse flags of another kind of probe or of adaptation than the chosen one."""
        for kind, names in flags.items():
            others = set(names) - set(flags[chosen])
            stray = self._set_among([name for name in names if name in others])
            if stray:
                raise InputError(f"{stray} would have no effect", got=f"--{what} {chosen}",
                                 expected=f"--{what} {kind}")  # fmt: skip

    def _of_weights(self) -> _Checks:
        beside = ("init_weights", "ft_weights", "version", "model")
        stray = self._set_among(beside)
        names = [word.partition("=")[0] for word in self.weights]
        whole = all(re.fullmatch(r"[^=]+=.+", word) for word in self.weights)
        return (
            (not self.weights and self.init_weights is None, "Which model is to be probed?", None,
             "--init_weights of a base model, maybe with --ft_weights; or --weights"),
            (self.weights and stray, f"{stray} would have no effect beside --weights", None, None),
            (self.predictions and not self.weights,
             "--predictions would have no effect without --weights", None, "report.py takes them"),
            (not whole, "--weights takes name=checkpoint", " ".join(self.weights), "base=A.pth"),
            (len(set(names)) < len(names), "--weights gives two models one name",
             ", ".join(names), None),
        )  # fmt: skip

    def _of_data(self) -> _Checks:
        both = sorted(set(self.data_set) & set(self.external))
        mapped = all(re.fullmatch(r"[^=]+=[^=]+", word) for word in self.label_map)
        largest = max(self.train_fraction)
        return (
            (both, "A data set cannot be external to itself",
             f"{', '.join(both)} in both --data_set and --external", None),
            (self.label_map and not self.external,
             "--label_map would have no effect without --external", None, None),
            (not mapped, "--label_map takes theirs=ours", " ".join(self.label_map), None),
            (largest > 1, "--train_fraction is a share", largest, "0 to 1"),
            (self.shots and self._is_set("train_fraction"),
             "--shots and --train_fraction both say what is trained on", None, None),
        )  # fmt: skip

    def _of_probe(self) -> _Checks:
        mil, published = self.probe == "mil", self.protocol == "published"
        tuned, warm_up = self.probe == "finetune", "The warm-up would last the whole training"
        return (
            (mil and self.unit == "image", "--probe mil pools the images of a unit",
             "--unit image", "--unit volume, eye or patient"),
            (mil and self.shots, "--shots draws images, --probe mil needs whole units", None, None),
            (tuned and self.finetune_warmup >= self.finetune_epochs, warm_up,
             f"--finetune_warmup {self.finetune_warmup} of {self.finetune_epochs} epochs",
             "a shorter warm-up"),
            (self.probe == "attentive" and self.representation_method is not None,
             "--probe attentive is trained on patch tokens",
             f"--representation_method {self.representation_method}", "no such flag beside it"),
            (published and self.weight_decay is not None,
             "--protocol published sets the weight decay itself",
             f"--weight_decay {self.weight_decay}", "one of the two"),
            (published and self.probe != "linear", "--protocol is about the linear probe",
             f"--probe {self.probe}", None),
            (self.warmup_epochs >= self.epochs, warm_up,
             f"--warmup_epochs {self.warmup_epochs} of --epochs {self.epochs}",
             "a shorter warm-up"),
            (self.label_smoothing == 1, "--label_smoothing 1 leaves no label to learn", None,
             "below 1"),
            (self.online_augmentation and self.views is not None,
             "--online_augmentation stores no views", "--views", "one of the two"),
        )  # fmt: skip

    def _set_among(self, names: Sequence[str]) -> str:
        """Name those of the flags that were given, for a message."""
        return ", ".join(f"--{name}" for name in names if self._is_set(name))

    @property
    def classes_of_external(self) -> dict[str, str]:
        """Our class by theirs."""
        words = (word.partition("=") for word in self.label_map)
        return {theirs: ours for theirs, _, ours in words}

    @property
    def seeds(self) -> list[int]:
        """The seeds asked for, or as many as usual."""
        return list(self.seed) or list(range(DRAWS if self.shots else SEEDS))

    @property
    def amounts(self) -> list[Amount]:
        """What probes are trained on, one after the other."""
        from retfiner.common.predictions import Amount  # pandas, which --help does not wait for

        few = [Amount(shots=shots) for shots in self.shots]
        return few or [Amount(fraction) for fraction in self.train_fraction]

    def _is_set(self, name: str) -> bool:
        """Say whether a setting differs from its default."""
        field = next(f for f in dataclasses.fields(self) if f.name == name)
        return bool(getattr(self, name) != default_of(field))

    def n_views(self, n_images: int) -> int:
        """Give the number of stored augmented views a training image, of so many."""
        return views_of(n_images) if self.views is None else self.views

    def decay_of(self, backbone: str) -> float:
        """Give the weight decay for a backbone: one for all, or, where asked for, as published."""
        if self.protocol == "published":
            return PUBLISHED_WEIGHT_DECAY.get(backbone, WEIGHT_DECAY)
        return WEIGHT_DECAY if self.weight_decay is None else self.weight_decay

    def probe_settings(self, backbone: str) -> dict[str, Any]:
        """Give what the chosen kind of probe goes by, resolved, for the record of a run."""
        settings = {name: getattr(self, name) for name in _OF_PROBE[self.probe]}
        if self.probe == "mil":
            settings["unit"] = self.unit
        if self.probe == "finetune":
            own = _OF_ADAPT[self.adapt]
            other = {*(n for names in _OF_ADAPT.values() for n in names if n not in own),
                     *(["layer_decay"] if self.adapt == "lora" else [])}  # fmt: skip
            settings = {name: value for name, value in settings.items() if name not in other}
        if self.probe != "linear":
            return settings
        settings["weight_decay"] = self.decay_of(backbone)
        if self.views is None:
            settings["views"] = "auto"
        unused = {"batch_size"} if self.batch_size is None else set()
        unused |= {"views"} if self.online_augmentation else set()
        return {name: value for name, value in settings.items() if name not in unused}
