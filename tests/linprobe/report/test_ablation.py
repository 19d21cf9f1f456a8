"""The ablation's table against its runs, computed plainly."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon
from tests.helpers.probing_runs import make_run

from linprobe.report.ablation import AblationConfig, ablation, cells, write
from retfiner.common.errors import InputError
from retfiner.common.results import write_run

STRENGTH = {"base": 0.2, "full": 1.5, "without_itc": 1.0, "gm_alone": 0.5}
SETS, SEEDS = ("Duke_iAMD", "OCTID"), (0, 1, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for model, strength in STRENGTH.items():
        for data_set in SETS:
            for seed in SEEDS:
                write_run(folder, make_run("ablation", model, data_set, seed, strength=strength))
    return folder


def settings(root, variants=("without_itc", "gm_alone"), **changes):
    names = [f"ablation/{name}" for name in variants]
    return AblationConfig("ablation/base", "ablation/full", names, results=root, **changes)


def recall_by_class(run):
    right = run.probabilities.argmax(1) == run.labels
    return np.array([right[run.labels == label].mean() for label in np.unique(run.labels)])


def accuracy(model):
    """(data sets, seeds) balanced accuracy in percent, from the same draws."""
    return 100 * np.array(
        [
            [
                recall_by_class(make_run("ablation", model, d, s, strength=STRENGTH[model])).mean()
                for s in SEEDS
            ]
            for d in SETS
        ]
    )  # fmt: skip


def test_every_line_is_the_mean_of_its_runs(root):
    lines = ablation(settings(root))
    assert [line.name for line in lines] == ["base", "full", "without itc", "gm alone"]
    base, full = accuracy("base"), accuracy("full")
    for line, model in zip(lines, STRENGTH, strict=True):
        values = accuracy(model)
        assert list(line.means.values()) == pytest.approx(values.mean(1))
        spread = values.mean(0).std(ddof=1)
        assert line.mean == f"{values.mean():.2f} ± {spread:.2f}"
        if model != "base":
            assert line.over_base == pytest.approx(values.mean() - base.mean())
        if model != "full":
            assert line.over_full == pytest.approx(values.mean() - full.mean())
    tests = [wilcoxon((accuracy(m) - full).ravel(), method="exact").pvalue
             for m in ("base", "without_itc", "gm_alone")]  # fmt: skip
    order = np.argsort(tests)
    holm = np.maximum.accumulate(np.sort(tests) * [3, 2, 1]).clip(max=1)
    expected = dict(zip(order, holm, strict=True))
    found = [lines[0].p, lines[2].p, lines[3].p]
    assert found == pytest.approx([expected[k] for k in range(3)])


def test_the_written_table_is_the_printed_one(root, tmp_path):
    lines = ablation(settings(root))
    write(lines, "balanced_accuracy", tmp_path)
    header, body = cells(lines)
    text = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    for row in (header, *body):
        assert "| " + " | ".join(row) + " |" in text
    table = pd.read_csv(tmp_path / "ablation.csv")
    assert table["variant"].tolist() == [line.name for line in lines]
    assert table["over_base"].isna().tolist() == [True, False, False, False]


def test_a_variant_without_all_runs_is_refused(root):
    with pytest.raises(InputError, match="mlm_alone"):
        ablation(settings(root, ("mlm_alone",)))


def test_a_model_named_twice_is_refused(root):
    with pytest.raises(InputError, match=r"named twice.*\n.*ablation/full"):
        settings(root, ("full",))
    with pytest.raises(InputError, match="Unknown metric"):
        settings(root, metric="accuracy")
