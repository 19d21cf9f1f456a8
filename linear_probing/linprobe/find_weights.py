"""Weights by the names that downloads and extraction give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from linprobe.config import ProbeConfig
from retfiner.common.commands import command, shorter
from retfiner.common.errors import InputError

AUTO = Path("auto")
"""``--init_weights auto``; a checkpoint of that name is ``./auto``."""

PUBLISHED = {
    "RETFound": ("RETFound_oct_weights.pth", "RETFound_mae_natureOCT.pth"),
    "UrFound": ("urfound_mm.pth",),
    "VisionFM": ("VFM_OCT_weights.pth",),
    "MIRAGE": ("MIRAGE-Large.pth", "MIRAGE-Base.pth"),
    "MAE": ("mae_pretrain_vit_large.pth", "mae_pretrain_vit_base.pth", "mae_pretrain_vit_huge.pth"),
}
"""Files as their authors name them; of several that are there, the first is meant."""

_DOWNLOADS = "as pretrained_weights/README.md says"


def find_weights(config: ProbeConfig, home: Path) -> ProbeConfig:
    """Put a file in place of each ``auto``.

    ``home`` is the folder of ``probe.py``: extraction writes to ``_weights`` in it, and downloads
    may lie there or in ``pretrained_weights`` beside it.

    Raises:
        InputError: If the backbone has no published file, or none or several are there.
    """
    if AUTO not in (config.init_weights, config.ft_weights):
        return config
    if config.backbone not in PUBLISHED:
        raise InputError(
            "auto finds published backbones only",
            got=f"--backbone {config.backbone}",
            expected=f"one of {', '.join(PUBLISHED)}",
            remedy="give the files with --init_weights and --ft_weights",
        )
    folders = (home / "_weights", home.parent / "pretrained_weights")
    base, refined = config.init_weights, config.ft_weights
    if base is None:
        raise InputError("--ft_weights auto needs --init_weights, the model it was refined from")
    if base == AUTO:
        base = _find_base(config.backbone, folders)
        print(f"Base model:     {shorter(base)}")
    if refined == AUTO:
        refined = _find_refined(config.backbone, folders, base)
        print(f"Refined model:  {shorter(refined)}")
    return replace(config, init_weights=base, ft_weights=refined)


def _find_base(backbone: str, folders: Sequence[Path]) -> Path:
    names = PUBLISHED[backbone]
    for path in (folder / name for name in names for folder in folders):
        if path.is_file():
            return path
    raise InputError(
        f"There are no weights of {backbone}",
        got=f"no {' and no '.join(names)} in {_either(folders)}",
        remedy=f"download {names[0]} {_DOWNLOADS}, or give a file with --init_weights",
    )


def _find_refined(backbone: str, folders: Sequence[Path], base: Path) -> Path:
    released, extracted = f"RetFiner_{backbone}.pth", f"best-model_{backbone}_*_bscan.pth"
    found = [folder / released for folder in folders if (folder / released).is_file()]
    found += sorted(folders[0].glob(extracted))
    if len(found) > 1:
        raise InputError(
            f"Several files could be the refined {backbone}",
            got=", ".join(map(shorter, found)),
            expected="one",
            remedy="choose it with --ft_weights",
        )
    if found:
        return found[0]
    models = folders[0].parents[1] / "RetFiner" / "models"
    runs = sorted(models.glob(f"{backbone}_*/best-model.ckpt"), key=lambda p: p.stat().st_mtime)
    extract = "RetFiner/get_vision_backbone_for_linprobing.py"
    if runs:
        remedy = f"extract your run: {command(extract, '--path_to_model', shorter(runs[-1]))}"
    else:
        train = command("RetFiner/train.py", "--model_weights", shorter(base), "--train_csv", "CSV")
        remedy = f"{train}, then the command it ends with; or download {released} {_DOWNLOADS}"
    raise InputError(
        f"There is no refined {backbone}",
        got=f"no {released} and no {extracted} in {_either(folders)}",
        remedy=f"{remedy}; or give a file with --ft_weights",
    )


def _either(folders: Sequence[Path]) -> str:
    return " or ".join(map(shorter, folders))
