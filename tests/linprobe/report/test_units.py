"""A report by patient: what is scored, said, drawn, and refused."""

import dataclasses

import numpy as np
import pytest

from linprobe.report.build import build_report
from linprobe.report.config import ReportConfig
from retfiner.common.errors import InputError
from tests.helpers.probing_runs import make_predictions, write_predictions

MODELS = ("baseline/M", "refined/M")


@pytest.fixture
def config(tmp_path):
    return ReportConfig(base=[MODELS[0]], refined=[MODELS[1]], results=tmp_path / "results",
                        output=tmp_path / "report", bootstrap=50, swaps=99)  # fmt: skip


def write(config, **settings):
    for k, model in enumerate(MODELS):
        table = make_predictions(model, "OCTID", 0, strength=1 + k)
        table["patient"] = table["label"] + (table.groupby("label").cumcount() // 2).astype(str)
        write_predictions(config.results, table, **settings)
    return table


def test_patients_are_scored_by_the_mean_of_their_images(config):
    table = write(config)
    report = build_report(dataclasses.replace(config, unit="patient"))
    [one] = report.summary.sets
    assert len(one.images) == table["patient"].nunique() == one.n_units
    names = [f"p_{name}" for name in one.classes]
    means = table.groupby("patient")[[*names]].mean()
    for name, row in zip(one.images, one.probabilities[MODELS[1]][0], strict=True):
        np.testing.assert_allclose(row, means.loc[name.removeprefix("patient ")])
    page = (config.folder / "index.html").read_text(encoding="utf-8")
    assert "by patient (mean of its images" in page and " patients)</th>" in page


def test_what_was_pooled_by_one_unit_is_not_scored_by_another(config):
    write(config, unit="patient")
    assert build_report(config).summary.item == "patient"
    with pytest.raises(InputError, match="pooled images by patient"):
        build_report(dataclasses.replace(config, unit="image"))
