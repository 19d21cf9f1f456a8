"""Does a recipe help on real scans? Refine on half of the patients and probe, both ways.

A folder of labelled B-scans with ``manifest.csv`` (file, class, patient_id; images in a folder a
class) becomes pairs: each scan gets one of four wordings of its class. ``train.py`` refines on one
half of the patients as users run it; features of base and refined encoder are probed twice:
``across``, trained on the labels of the half that was refined on and tested on the other; and
``within``, cross-validated in the other half, which refinement never saw.

    python benchmarks/evidence.py --scans oct_kermany --weights vit_small.safetensors \
        --text_encoder minilm --output evidence --variants auto published

``guard`` is what training would have said of the encoder without labels, had the other half been
its validation patients. What ``output`` holds already is not computed again; a table is printed at
the end, how the guard agrees with the probes, and ``evidence.png`` is drawn.
"""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from linprobe.report.style import GREY, STYLE, model_style, share_legend
from retfiner.common.cli import flag, parse
from retfiner.common.commands import REPOSITORY
from retfiner.common.errors import InputError, run_entry_point
from retfiner.common.numbers import PositiveInt
from retfiner.training import guard
from retfiner.vision import evaluation_transform, load_backbone
from retfiner.vision.images import read_image

WORDINGS = {
    "CNV": [
        "Choroidal neovascularisation with fluid.", "Wet age-related macular degeneration.",
        "Active neovascular membrane, exudation.", "Neovascular AMD with subretinal fluid.",
    ],
    "DME": [
        "Diabetic macular oedema.", "Cystoid oedema in a diabetic eye.",
        "Diabetic maculopathy with hard exudates.", "Retinal thickening due to diabetes.",
    ],
    "DRUSEN": [
        "Drusen, no fluid.", "Early dry macular degeneration.", "Dry AMD with medium drusen.",
        "Drusenoid deposits under the RPE.",
    ],
    "NORMAL": [
        "Normal macula.", "No abnormality seen.", "Healthy retina.",
        "Unremarkable scan without drusen or fluid.",
    ],
}  # fmt: skip
VARIANTS = {
    "auto": [],
    "published": ["--recipe", "published"],
    "published, ViT at a tenth": [
        "--recipe", "published", "--batch_size", "16", "--vision_lr", "1e-5",
    ],
    "auto without augmentation": ["--no_augment"],
    "auto, fusion from the first step": ["--fusion_warmup_steps", "0"],
    "auto, all blocks": ["--unfreeze_last", "12"],
    "auto, last third of the blocks": ["--unfreeze_last", "4"],
    "auto, BERT trains": ["--text_lr", "1e-4"],
    "auto, hard negatives": ["--itm_negatives", "hard"],
    "auto, ITC alone": ["--losses", "itc"],
}  # fmt: skip
"""Flags of train.py for each variant; a recipe's parts are switched off one by one."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """The command line."""

    scans: Path = flag("folder with manifest.csv and an image folder for each class")
    weights: Path = flag("the base model")
    text_encoder: Path = flag("folder made by build_text_encoder.py")
    output: Path = flag("folder for pairs, runs and evidence.csv")
    variants: list[str] = flag("which to run, by name", ["auto", "published"])
    splits: PositiveInt = flag("how many halvings of the patients", 5)
    first: int = flag("number of the first halving", 0)


@dataclass(frozen=True)
class Scans:
    """The labelled scans.

    Attributes:
        paths: N image files.
        labels: (N,) class numbers.
        patients: (N,) patient numbers.
        classes: Names of the classes.
    """

    paths: list[Path]
    labels: Ints
    patients: Ints
    classes: list[str]


def read_scans(folder: Path) -> Scans:
    """Read a folder's manifest."""
    table = pd.read_csv(folder / "manifest.csv", dtype=str).sort_values("file")
    labels, classes = pd.factorize(table["class"], sort=True)
    paths = [folder / kind / name for kind, name in zip(table["class"], table["file"], strict=True)]
    return Scans(paths, labels, pd.factorize(table["patient_id"])[0], list(classes))


def halve(scans: Scans, split: int) -> tuple[Ints, Ints]:
    """Halve the patients, with each class's in both halves; return the scans of each."""
    folds = StratifiedGroupKFold(2, shuffle=True, random_state=split)
    return next(iter(folds.split(scans.labels, scans.labels, scans.patients)))


def write_reports(scans: Scans, chosen: Ints, generator: np.random.Generator) -> list[str]:
    """Draw a wording of its class for each scan."""
    wordings = [WORDINGS[scans.classes[scans.labels[i]]] for i in chosen]
    return [some[generator.integers(len(some))] for some in wordings]


def write_pairs(path: Path, scans: Scans, chosen: Ints, reports: list[str]) -> None:
    """Write a table of pairs."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "report", "patient_id"])
        for i, report in zip(chosen, reports, strict=True):
            writer.writerow([scans.paths[i].resolve(), report, f"p{scans.patients[i]}"])


def train(
    base: Path, text_encoder: Path, pairs: Path, output: Path, name: str, flags: list[str]
) -> Path:
    """Run train.py and extraction as a user does; return the refined weights."""
    weights = output / f"{name}.pth"
    if not weights.is_file():
        runs = output / "runs" / name
        subprocess.run(
            [
                sys.executable, REPOSITORY / "RetFiner/train.py", "--model_weights", base,
                "--text_encoder", text_encoder, "--train_csv", pairs, "--output_dir", runs,
                "--resume", "auto", *flags,
            ],
            check=True,
            stdout=(output / f"{name}.log").open("w"),
        )  # fmt: skip
        [best] = runs.glob("*/best-model.ckpt")
        script = REPOSITORY / "RetFiner/get_vision_backbone_for_linprobing.py"
        command = [sys.executable, script, "--path_to_model", best, "--output", weights]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for checkpoint in best.parent.glob("*.ckpt"):
            checkpoint.unlink()
    return weights


@torch.no_grad()
def features_of(weights: Path, paths: list[Path]) -> Floats:
    """Return (N, F) probing features."""
    backbone = load_backbone(weights, "auto")
    transform = evaluation_transform(backbone)
    images = (transform(read_image(path)) for path in paths)
    return np.stack([backbone.features(image[None])[0].double().numpy() for image in images])


# -- probes ------------------------------------------------------------------------------------


def linear(train: Floats, labels: Ints, test: Floats) -> Ints:
    """Train a softmax head by the numbers of the probing protocol, all images a step."""
    images, targets = torch.tensor(train).float(), torch.tensor(labels)
    head = torch.nn.Linear(images.shape[1], int(labels.max()) + 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=400, pct_start=0.1)
    for _ in range(400):
        loss = torch.nn.functional.cross_entropy(head(images), targets, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head(torch.tensor(test).float()).argmax(1).numpy()


def logistic(train: Floats, labels: Ints, test: Floats) -> Ints:
    """Fit logistic regression on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return model.fit(train, labels).predict(test)


def knn(train: Floats, labels: Ints, test: Floats) -> Ints:
    """Let five neighbours by cosine vote, weighted by exp(cosine / 0.07)."""
    model = KNeighborsClassifier(
        min(5, len(train)), metric="cosine", weights=lambda distance: np.exp(-distance / 0.07)
    )
    return model.fit(train, labels).predict(test)


PROBES = {"linear": linear, "logistic": logistic, "kNN": knn}


def correct_across(
    features: Floats, scans: Scans, source: Ints, target: Ints, probe: Any
) -> Floats:
    """Return (T,) hits on the target half of a probe trained on the source half."""
    predicted = probe(features[source], scans.labels[source], features[target])
    return (predicted == scans.labels[target]).astype(float)


def correct_within(features: Floats, scans: Scans, target: Ints, probe: Any) -> Floats:
    """Return (T,) mean hits of four cross-validations within the target half."""
    hits = np.zeros((4, len(target)))
    for repeat in range(4):
        folds = StratifiedGroupKFold(4, shuffle=True, random_state=repeat)
        labels, patients = scans.labels[target], scans.patients[target]
        for train, test in folds.split(labels, labels, patients):
            predicted = probe(features[target[train]], labels[train], features[target[test]])
            hits[repeat, test] = predicted == labels[test]
    return hits.mean(0)


def balanced(hits: Floats, labels: Ints, weights: Floats) -> Floats:
    """Return (R,) balanced accuracy in percent under (R, T) weights of the scans."""
    recalls = []
    for label in np.unique(labels):
        own = labels == label
        total = weights[:, own].sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recalls.append(weights[:, own] @ hits[own] / total)
    return 100 * np.nanmean(recalls, axis=0)


def compare(base: Floats, refined: Floats, scans: Scans, target: Ints) -> dict[str, Any]:
    """Compare hits of two encoders on the same scans, patients drawn with replacement."""
    labels, owner = scans.labels[target], np.unique(scans.patients[target], return_inverse=True)[1]
    units = int(owner.max()) + 1
    draws = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), 1000)[:, owner]
    ones = np.ones((1, len(target)))
    before, after = (float(balanced(hits, labels, ones)[0]) for hits in (base, refined))
    changes = balanced(refined, labels, draws) - balanced(base, labels, draws)
    low, high = np.nanquantile(changes, [0.025, 0.975])
    return {"base": before, "refined": after, "change": after - before, "low": low, "high": high}


def ask_guard(base: Floats, refined: Floats, patients: Ints, reports: list[str]) -> guard.Change:
    """Say whether scans' neighbours have reports that are more alike after refinement."""
    vectors, names = guard.report_vectors(reports), [f"p{patient}" for patient in patients]
    found = [
        guard.neighbour_agreement(features, vectors, names, range(len(names)))
        for features in (base, refined)
    ]
    return guard.compare(*found, names, math.nan, np.random.default_rng(0))


def measure(settings: Settings, scans: Scans, variant: str, split: int, way: int) -> pd.DataFrame:
    """Refine on one half and probe; return a row for each protocol and probe."""
    halves = halve(scans, split)
    source, target = halves[way], halves[1 - way]
    pairs, generator = (
        settings.output / f"pairs_{split}_{way}.csv",
        np.random.default_rng(100 * split + way),
    )
    write_pairs(pairs, scans, source, write_reports(scans, source, generator))
    name = f"{variant.replace(' ', '_').replace(',', '')}_{split}_{way}"
    weights = train(
        settings.weights, settings.text_encoder, pairs, settings.output, name, VARIANTS[variant]
    )
    base, refined = (features_of(path, scans.paths) for path in (settings.weights, weights))
    unseen = write_reports(scans, target, generator)
    told = ask_guard(base[target], refined[target], scans.patients[target], unseen)
    rows = []
    for name, probe in PROBES.items():
        for protocol in ("across", "within"):
            hits = [
                correct_across(features, scans, source, target, probe)
                if protocol == "across"
                else correct_within(features, scans, target, probe)
                for features in (base, refined)
            ]
            where = {"variant": variant, "split": split, "way": way, "pairs": len(source)}
            figures = compare(*hits, scans, target)
            figures |= {"guard": told.refined - told.base, "finding": told.finding}
            rows.append({**where, "protocol": protocol, "probe": name, **figures})
    return pd.DataFrame(rows)


def as_table(rows: pd.DataFrame) -> str:
    """Format mean changes: a line for each variant, over splits and ways."""
    lines = [
        "| variant | probes | halves | linear | logistic | kNN | mean | worst half | worst one |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (variant, protocol), part in rows.groupby(["variant", "protocol"], sort=False):
        probes = part.groupby("probe")["change"].mean()
        halves = part.groupby(["split", "way"])["change"].mean()
        cells = [f"{probes[name]:+.1f}" for name in PROBES]
        cells += [f"{value:+.1f}" for value in (halves.mean(), halves.min(), part["change"].min())]
        lines.append(f"| {variant} | {protocol} | {len(halves)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def agreement(rows: pd.DataFrame) -> str:
    """Say how the guard's change and that of the probes go together over the refined encoders."""
    runs = rows.groupby(["variant", "split", "way"])
    table = runs.agg(
        change=("change", "mean"), guard=("guard", "mean"), finding=("finding", "first")
    )
    signs = (np.sign(table["change"]) == np.sign(table["guard"])).sum()
    lines = [f"guard and probes over {len(table)} encoders: the same sign in {signs}"]
    if len(table) > 2:
        lines[0] += f", rank correlation {spearmanr(table['change'], table['guard'])[0]:.2f}"
    for finding, part in table.groupby("finding"):
        low, high = part["change"].min(), part["change"].max()
        lines.append(f"  {finding}: {len(part)} encoders, probes {low:+.1f} to {high:+.1f}")
    return "\n".join(lines)


@rc_context(STYLE)
def draw(rows: pd.DataFrame, path: Path) -> None:
    """Draw each half's mean change over the probes as a dot, and their mean as a stroke."""
    variants = list(dict.fromkeys(rows["variant"]))
    figure = Figure(figsize=(6.4, 1.0 + 0.42 * len(variants)))
    ax = figure.subplots()
    for index, protocol in enumerate(("across", "within")):
        part = rows[rows["protocol"] == protocol]
        halves = part.groupby(["variant", "split", "way"])["change"].mean()
        style = model_style(index) | {"linestyle": ""}
        for place, variant in enumerate(variants):
            values, y = halves[variant], place + 0.32 * (index - 0.5)
            label = {"label": protocol} if place == 0 else {}
            ax.plot(values, np.full(len(values), y), markersize=4, **style, **label)
            ax.plot([values.mean()] * 2, [y - 0.15, y + 0.15], color=style["color"], linewidth=2)
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set_yticks(range(len(variants)), variants)
    ax.invert_yaxis()
    ax.set_xlabel("change of balanced accuracy against the base, points", fontsize=9)
    share_legend(figure, ax)
    figure.savefig(path, dpi=160)


def require_variants(names: Sequence[str]) -> None:
    """Make sure that variants are known.

    Raises:
        InputError: If one is not.
    """
    unknown = set(names) - set(VARIANTS)
    if unknown:
        raise InputError("no such variant", got=sorted(unknown), expected=", ".join(VARIANTS))


def main() -> None:
    """Parse the command line and run what is not there yet."""
    settings = parse(Settings, "Measure recipes on labelled scans, by halves of the patients.")
    require_variants(settings.variants)
    settings.output.mkdir(parents=True, exist_ok=True)
    scans, path = read_scans(settings.scans), settings.output / "evidence.csv"
    for split in range(settings.first, settings.first + settings.splits):
        for way in (0, 1):
            for variant in settings.variants:
                done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["variant"])
                seen = done[done["variant"] == variant]
                if len(seen) and ((seen["split"] == split) & (seen["way"] == way)).any():
                    continue
                rows = measure(settings, scans, variant, split, way)
                rows.to_csv(path, mode="a", header=not path.is_file(), index=False)
                print(as_table(rows), flush=True)
    rows = pd.read_csv(path)
    print(as_table(rows), agreement(rows), sep="\n")
    draw(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    run_entry_point(main)
