"""Weights by the names that downloads and extraction give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from linprobe.config import ProbeConfig
from retfiner.common.commands import command, shorter
from retfiner.common.errors import InputError
from retfiner.vision.published.find import GET, downloaded, weights_at
from retfiner.vision.published.registry import WEIGHTS

AUTO = Path("auto")
"""``--init_weights auto``; a checkpoint of that name is ``./auto``."""

PUBLISHED = {
    backbone: [entry for entry in WEIGHTS if entry.backbone == backbone and not entry.refines]
    for backbone in ("RETFound", "UrFound", "VisionFM", "MIRAGE", "MAE")
}
"""What their authors publish; of several that are there, the first is meant."""


def find_weights(config: ProbeConfig, home: Path) -> ProbeConfig:
    """Put a file in place of each ``auto``, and of each name such as ``RETFound``.

    ``home`` is the folder of ``probe.py``: extraction writes to ``_weights`` in it, and downloads
    may lie there or in ``pretrained_weights`` beside it.

    Raises:
        InputError: If the backbone has no published file, or none or several are there.
    """
    folders = (home / "_weights", home.parent / "pretrained_weights")
    config = _named(config, folders)
    if AUTO not in (config.init_weights, config.ft_weights):
        return config
    if config.backbone not in PUBLISHED:
        raise InputError(
            "auto finds published backbones only",
            got=f"--backbone {config.backbone}",
            expected=f"one of {', '.join(PUBLISHED)}",
            remedy="give the files with --init_weights and --ft_weights",
        )
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


def _named(config: ProbeConfig, folders: Sequence[Path]) -> ProbeConfig:
    """Find the weights that are given by name."""

    def find(path: Path | None) -> Path | None:
        return path if path is None else weights_at(path, folders)

    pairs = (word.partition("=") for word in config.weights)
    return replace(
        config,
        init_weights=find(config.init_weights),
        ft_weights=find(config.ft_weights),
        weights=[f"{name}={find(Path(path).expanduser())}" for name, _, path in pairs],
    )


def _find_base(backbone: str, folders: Sequence[Path]) -> Path:
    entries = PUBLISHED[backbone]
    found = [path for path in (downloaded(e, folders) for e in entries) if path is not None]
    if found:
        return found[0]
    names = [name for entry in entries for name in entry.files]
    raise InputError(
        f"There are no weights of {backbone}",
        got=f"no {' and no '.join(names)} in {_either(folders)}",
        remedy=f"{command(GET, entries[0].name)}, or give a file with --init_weights",
    )


def _find_refined(backbone: str, folders: Sequence[Path], base: Path) -> Path:
    released, extracted = f"RetFiner_{backbone}.pth", f"best-model_{backbone}_*_bscan.pth"
    entry = next((e for e in WEIGHTS if e.files == (released,)), None)
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
        remedy = f"{train}, then the command it ends with"
        remedy += "" if entry is None else f"; or {command(GET, entry.name)}"
    raise InputError(
        f"There is no refined {backbone}",
        got=f"no {released} and no {extracted} in {_either(folders)}",
        remedy=f"{remedy}; or give a file with --ft_weights",
    )


def _either(folders: Sequence[Path]) -> str:
    return " or ".join(map(shorter, folders))
