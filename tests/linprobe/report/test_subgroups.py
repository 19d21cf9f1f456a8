"""Subgroups: the same scores on part of the patients, and which are too small to be judged."""

import numpy as np
import pandas as pd
import pytest

from linprobe.report.loading import load
from linprobe.report.scores import scored_set
from linprobe.report.subgroups import subgroup_tables, subset
from linprobe.report.summary import summarise
from tests.helpers.probing_runs import make_predictions, write_predictions

MODELS = ("baseline/M", "refined/M")
N = 240


def columns():
    """Two images a patient: half of each sex, of three ages, and a rare device."""
    patients = np.arange(N) // 2
    return {
        "sex": np.where(patients % 2 == 0, "F", "M"),
        "age": np.where(patients % 3 == 0, "44", np.where(patients % 3 == 1, "66", "")),
        "device": np.where(patients < 4, "rare", "common"),
    }


@pytest.fixture
def summary(tmp_path):
    for k, model in enumerate(MODELS):
        table = make_predictions(model, "clinic", 0, strength=1 + k, n=N, **columns())
        write_predictions(tmp_path, table)
    numbers = {"scales": {}, "resamples": 100, "swaps": 99, "seed": 0}
    return summarise(load(tmp_path, [], [MODELS]), "balanced_accuracy", **numbers)


def test_a_group_is_scored_as_if_it_were_all_there_is(summary):
    [one] = summary.sets
    rows = np.array(one.groups["sex"]) == "F"
    part = subset(one, rows)
    table = make_predictions(MODELS[1], "clinic", 0, strength=2, n=N, **columns())
    alone = scored_set(table[table["sex"] == "F"].assign(name=MODELS[1]))
    assert part.n_units == alone.n_units == N // 4
    expected = alone.values("balanced_accuracy", MODELS[1])[0]
    assert part.values("balanced_accuracy", MODELS[1])[0] == pytest.approx(expected)
    [laid] = subgroup_tables(summary, 100, 0)
    line = next(line for line in laid.lines if line.cells[0].startswith("F "))
    assert line.cells[0] == f"F ({N // 4} patients)"
    assert line.cells[2].startswith(f"{expected:.1f} (")
    assert line.cells[3].startswith("+")


def test_small_groups_are_marked_never_starred_and_never_the_worst(summary):
    [laid] = subgroup_tables(summary, 100, 0)
    names = [line.cells[0] for line in laid.lines]
    assert names == [
        "sex", f"F ({N // 4} patients)", f"M ({N // 4} patients)", "Worst group",
        f"age (of {N // 3} of {N} not known)", "0 to 49 (40 patients)", "65 to 79 (40 patients)",
        "Worst group", "device", f"common ({N // 2 - 4} patients)", "rare (4 patients, few)",
    ]  # fmt: skip
    assert not any("*" in cell for line in laid.lines for cell in line.cells)
    scores = [[float(line.cells[1].split()[0]) for line in laid.lines[k : k + 2]]
              for k in (1, 5)]  # fmt: skip
    for pair, worst in zip(scores, (laid.lines[3], laid.lines[7]), strict=True):
        text = worst.cells[1]
        assert text.startswith(f"{min(pair):.1f} (")
        assert float(text.split("gap ")[1].rstrip(")")) == pytest.approx(
            max(pair) - min(pair), abs=0.11
        )


def test_without_such_columns_there_is_no_table(tmp_path):
    for model in MODELS:
        write_predictions(tmp_path, make_predictions(model, "clinic", 0, strength=1))
    numbers = {"scales": {}, "resamples": 20, "swaps": 9, "seed": 0}
    summary = summarise(load(tmp_path, [], [MODELS]), "balanced_accuracy", **numbers)
    assert subgroup_tables(summary, 20, 0) == []
    assert not pd.DataFrame(summary.sets[0].groups).size
