"""What a reader must know of the runs behind a report: notes, settings, versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from linprobe.report.comparison import Pair
from retfiner.common.errors import shorten
from retfiner.common.results import Run


def runs_of(pair: Pair) -> Iterable[Run]:
    """Yield the runs of a pair, at every share of the training images."""
    for places in pair.runs.values():
        for both in places.values():
            yield from both


def pair_notes(pairs: Sequence[Pair]) -> list[str]:
    """Say what a table of these pairs does not show by itself.

    Args:
        pairs: Paired runs.

    Returns:
        Sentences, each naming the pair it is about.
    """
    notes: list[str] = []
    for pair in pairs:
        if pair.main_fraction != 1:
            notes.append(
                f"{pair.name}: no run used all training images; the table shows those that used "
                f"{pair.main_fraction:.3g} of them."
            )
        elsewhere = {data_set for places in pair.runs.values() for data_set, _ in places}
        missing = sorted(elsewhere - set(pair.data_sets))
        if missing:
            notes.append(
                f"{pair.name}: {shorten(missing)} was probed with fewer training images only and "
                "is not in the table."
            )
        if len({tuple(pair.seeds(data_set)) for data_set in pair.data_sets}) > 1:
            notes.append(
                f"{pair.name}: seeds differ between data sets, so that the mean has no standard "
                "deviation."
            )
        notes += _version_notes(pair)
    if len({tuple(pair.data_sets) for pair in pairs}) > 1:
        notes.append(
            "The pairs were probed on different data sets: their means are not to be compared, and "
            "none is marked as the best."
        )
    return [*notes, *_setting_notes(pairs), *_run_notes(pairs)]


def _version_notes(pair: Pair) -> list[str]:
    """Name software whose version is not the same in all runs of a pair."""
    versions: dict[str, set[str]] = {}
    for run in runs_of(pair):
        for name, version in run.versions.items():
            versions.setdefault(name, set()).add(version)
    mixed = [
        f"{name} {' and '.join(sorted(found))}"
        for name, found in sorted(versions.items())
        if len(found) > 1
    ]
    return [f"{pair.name}: runs were made with different software: {shorten(mixed)}."] * bool(mixed)


def _setting_notes(pairs: Sequence[Pair]) -> list[str]:
    """Name settings that differ from pair to pair; within a pair they never do."""
    protocols = {pair.name: next(iter(runs_of(pair))).protocol for pair in pairs}
    mixed = []
    for name in sorted({name for protocol in protocols.values() for name in protocol}):
        values = {pair: str(protocol.get(name, "unset")) for pair, protocol in protocols.items()}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{pair}: {value}" for pair, value in values.items())
            mixed.append(f"{name} ({told})")
    return [f"Settings that differ between pairs: {'; '.join(mixed)}."] * bool(mixed)


def _run_notes(pairs: Sequence[Pair]) -> list[str]:
    """Pass on what runs of the main table say of their test split, each note once a data set."""
    found: dict[str, None] = {}
    for pair in pairs:
        for (data_set, _), (base, refined) in pair.main.items():
            for run in (base, refined):
                for note in run.metrics.get("notes", []):
                    found[f"{data_set}: {note}"] = None
    return list(found)


def settings_rows(pair: Pair) -> list[tuple[str, str]]:
    """List the settings of a pair's runs, the weights of each model, and the software.

    Args:
        pair: Paired runs.

    Returns:
        Name and value of each, ready to be shown.
    """
    base, refined = next(iter(pair.main.values()))
    rows = [(name, str(value)) for name, value in sorted(base.protocol.items())]
    for label, run in (("base", base), ("refined", refined)):
        rows += [
            (f"{name} ({label})", str(value))
            for name, value in sorted(run.settings.items())
            if name.startswith("weights")
        ]
    seeds = sorted({seed for _, seed in pair.main})
    rows.append(("seeds", ", ".join(map(str, seeds))))
    rows.append(("share of training images", ", ".join(f"{f:g}" for f in sorted(pair.runs))))
    return rows + [(name, version) for name, version in sorted(base.versions.items())]
