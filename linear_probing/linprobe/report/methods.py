"""The methods paragraph, filled from the records of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from linprobe.report import tables as lay
from linprobe.report.loading import OF_BACKBONE, OF_WEIGHTS_AND_DATA, Loaded
from linprobe.report.summary import Summary
from retfiner.common.metrics import ALL_METRICS


def methods_paragraph(
    loaded: Loaded, summaries: Sequence[Summary], outside: list[str], resamples: int, swaps: int
) -> str:
    """Say how the numbers of a report came about: data, models, protocol, statistics, versions.

    Of models whose predictions were brought along only the data and the statistics are known.
    """
    settings = [run["settings"] for run in loaded.runs]
    probes: list[dict[str, Any]] = []
    own = OF_WEIGHTS_AND_DATA + OF_BACKBONE
    for one in settings:
        shared = {k: v for k, v in one.items() if not k.startswith(own)}
        if "probe" in one and shared not in probes:
            probes.append(shared)
    versions = {name: _all([run["versions"] for run in loaded.runs], name, " and ")
                for name in ("retfiner", "torch", "timm", "numpy", "scikit-learn")}  # fmt: skip
    summary, every = summaries[0], [one for summary in summaries for one in summary.sets]
    sets = [
        {"name": one.name, "classes": one.classes, "images": len(one.images), "units": one.n_units,
         "unit": one.unit, "trained": _trained(loaded, one.name),
         "what": "" if one.kind == "classes" else f"{lay.WORDS[one.kind]}: "}
        for one in every
    ]  # fmt: skip
    several, most = len(summaries) > 1, max(len(one.sets) for one in summaries)
    metrics = [
        ALL_METRICS[one.metric].phrase + f" (of {lay.WORDS[one.kind]})" * several
        for one in summaries
    ]
    told = loaded.table.groupby("name", sort=False)[["probe", "weights"]].first()
    probed = {run["name"] for run in loaded.runs if "probe" in run["settings"]}
    others = {name: probe for name, probe in told["probe"].items() if name not in probed}
    trained = loaded.table[loaded.table["train_images"] != 0]
    text = lay.render(
        "methods.txt",
        summary=summary,
        models=summary.models,
        sets=sets,
        probes=[{**one, "weight_decay": _all(settings, "weight_decay", " or ")} for one in probes],
        backbones=_values(settings, "backbone"),
        sizes=_values(settings, "image_size"),
        methods=_values(settings, "representation_method"),
        amounts=loaded.amounts or [""],
        metrics=metrics,
        kinds_of_task={one.kind for one in every},
        seeds=_seeds(trained),
        means=most if most > 1 else 0,
        units=sorted({f"{one.unit}s" for one in every}),
        resamples=resamples,
        swaps=swaps,
        outside=outside,
        versions=[f"{name} {found}" for name, found in versions.items() if found],
        weights=[f"{name} {found}" for name, found in told["weights"].items() if found],
        zero_shot=[name for name, probe in others.items() if probe == "zero_shot"],
        brought=[name for name, probe in others.items() if probe != "zero_shot"],
    )
    return " ".join(text.split())


def _seeds(trained: pd.DataFrame) -> str:
    """Say how many seeds were averaged; nothing where there is only one."""
    counts = trained.groupby(["name", "amount"])["seed"].nunique()
    few, many = (int(counts.min()), int(counts.max())) if len(counts) else (1, 1)
    return "" if many == 1 else f"{few} to {many}" if few < many else str(many)


def _values(records: list[dict[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(str(one[name]) for one in records if one.get(name) is not None))


def _all(records: list[dict[str, Any]], name: str, between: str) -> str:
    return between.join(_values(records, name))


def _trained(loaded: Loaded, data_set: str) -> str:
    """Say on how many images, and of how many patients, probes were trained."""
    rows = loaded.at(data_set, loaded.main_amount)
    counts = []
    for column, word in (("train_images", "images"), ("train_patients", "patients")):
        found = sorted({int(n) for n in rows[column] if n > 0})
        if found:
            few, many = found[0], found[-1]
            counts.append(f"{few}{'' if few == many else f' to {many}'} {word}")
    return " of ".join(counts)
