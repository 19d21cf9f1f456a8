"""Figures carry the numbers they were given."""

import shutil

import numpy as np
import pytest
from tests.helpers.probing_runs import write_tree

from linprobe.report import panels, plots
from linprobe.report.comparison import load_pairs
from linprobe.report.curves import reliability
from linprobe.report.figures import draw_all, draw_efficiency, draw_map, draw_roc, file_stem
from linprobe.report.style import COLOURS, class_style, new_figure
from linprobe.report.summary import summarise


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    write_tree(root, models=("RETFound", "UrFound"), seeds=(0, 1), fractions=(1.0, 0.1), n=30)
    return load_pairs(
        root,
        ["baseline/RETFound", "baseline/UrFound"],
        ["refined/RETFound", "refined/UrFound"],
    )


def drawn_lines(ax):
    return {line.get_label(): line for line in ax.get_lines() if line.get_label()[0] != "_"}


def test_all_figures_are_drawn(pairs):
    rows, _ = summarise(pairs, "balanced_accuracy")
    names = [drawing.name for drawing in draw_all(pairs, rows, "balanced_accuracy", 20, 0)]
    kinds = ("roc", "confusion", "reliability", "map")
    assert names == [
        "change",
        "label_efficiency",
        *(f"{kind}_{name}" for name in ("RETFound", "UrFound") for kind in kinds),
    ]


def test_change_shows_means_intervals_and_seeds(pairs):
    rows, _ = summarise(pairs, "balanced_accuracy")
    figure = plots.plot_change(new_figure(6, 3), rows, "points")
    assert [ax.get_title() for ax in figure.axes] == ["RETFound", "UrFound"]
    ax = figure.axes[1]
    own = [row for row in rows if row.pair == "UrFound"][::-1]  # the mean lies at the bottom
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Mean", "OCTID", "Duke_iAMD"]
    marks = [line for line in ax.get_lines() if line.get_marker() in ("s", "D")]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([row.change for row in own])
    ticks = [line for line in ax.get_lines() if line.get_marker() == "|"]
    for line, row in zip(ticks, own, strict=True):
        np.testing.assert_allclose(line.get_xdata(), row.refined - row.base)
    intervals = [collection.get_segments()[0][:, 0].tolist() for collection in ax.collections]
    assert intervals == [pytest.approx(row.interval) for row in own]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()


def test_roc_names_the_weighted_auroc(pairs):
    ax = draw_roc(pairs[0]).figure.axes[0]
    both = [pairs[0].main[("Duke_iAMD", seed)] for seed in (0, 1)]
    for index, name in ((0, "base"), (1, "refined")):
        area = 100 * np.mean([runs[index].metrics["values"]["auroc"] for runs in both])
        assert f"{name} {area:.1f}" in drawn_lines(ax)


def test_base_and_refined_differ_without_colour():
    curve = reliability(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]))
    figure = panels.plot_reliability(
        new_figure(3, 3), [panels.ReliabilityPanel("OCTID", curve, curve)]
    )
    base, refined = drawn_lines(figure.axes[0]).values()
    assert base.get_linestyle() != refined.get_linestyle()
    assert base.get_marker() != refined.get_marker()
    assert base.get_markerfacecolor() == "white" != refined.get_markerfacecolor()


def test_classes_differ_in_colour_and_mark():
    styles = [class_style(index) for index in range(16)]
    assert len({(style["color"], style["marker"]) for style in styles}) == 16
    assert len({style["color"] for style in styles[:8]}) == len(COLOURS) == 8
    assert len({style["marker"] for style in styles[:8]}) == 8


def test_confusion_writes_percents_and_a_dash():
    shares = np.array([[0.75, 0.25], [np.nan, np.nan]])
    figure = panels.plot_confusion(
        new_figure(4, 2), [panels.ConfusionPanel("OCTID", ["AMD", "DR"], shares, shares)]
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["75", "25", "–", "–"]
    assert [ax.get_title() for ax in figure.axes] == ["OCTID, base", "OCTID, refined"]


def test_efficiency_averages_what_every_share_has(pairs):
    ax = draw_efficiency(pairs, "balanced_accuracy").figure.axes[0]
    base = ax.containers[0].lines[0]
    for fraction, drawn in zip((0.1, 1.0), base.get_ydata(), strict=True):
        values = [
            100 * runs[0].metrics["values"]["balanced_accuracy"]
            for runs in pairs[0].runs[fraction].values()
        ]
        assert drawn == pytest.approx(np.mean(values))
    assert [f"{tick:g}" for tick in ax.get_xticks()] == ["10", "100"]


def test_one_share_has_no_efficiency_and_no_features_no_map(tmp_path):
    write_tree(tmp_path, seeds=(1,), n=20)  # features come with seed 0 alone
    (pair,) = load_pairs(tmp_path, ["baseline/RETFound"], ["refined/RETFound"])
    assert draw_efficiency([pair], "f1") is None
    assert draw_map(pair, 500, 0) is None


def test_the_map_shows_at_most_the_wanted_images(pairs, tmp_path):
    assert draw_map(pairs[0], 0, 0) is None
    figure = draw_map(pairs[0], 12, 0).figure
    for ax in figure.axes:
        assert sum(len(collection.get_offsets()) for collection in ax.collections) == 12


def test_efficiency_leaves_out_what_not_every_share_has(tmp_path):
    write_tree(tmp_path, seeds=(0, 1), fractions=(1.0, 0.1), n=20)
    for version in ("baseline", "refined"):
        folder = tmp_path / version / "RETFound" / "OCTID"
        for path in folder.iterdir():
            if '"train_fraction": 0.1' in (path / "metrics.json").read_text():
                shutil.rmtree(path)
    (pair,) = load_pairs(tmp_path, ["baseline/RETFound"], ["refined/RETFound"])
    ax = draw_efficiency([pair], "f1").figure.axes[0]
    kept = [pair.main[("Duke_iAMD", seed)][0].metrics["values"]["f1"] for seed in (0, 1)]
    assert ax.containers[0].lines[0].get_ydata()[-1] == pytest.approx(100 * np.mean(kept))


@pytest.mark.parametrize(
    ("name", "stem"),
    [("RETFound", "RETFound"), ("a/b to c/d", "a_b_to_c_d"), ("../x", "x"), ("?", "pair")],
)
def test_stems_are_file_names(name, stem):
    assert file_stem(name) == stem


def test_long_class_names_leave_room():
    name = "Age-related-Macular-Degeneration-Retinal-OCT-images"
    panel = panels.ConfusionPanel("OCTID", [name, "DR"], np.eye(2), np.eye(2))
    ax = panels.plot_confusion(new_figure(4, 2), [panel]).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Age-related-Macul…", "DR"]


def test_many_pairs_go_to_further_rows():
    values = [np.array([50.0, 52.0]), np.array([60.0, 61.0])]
    one = plots.EfficiencyPanel("RETFound", [0.1, 1.0], values, values)
    figure = plots.plot_efficiency(new_figure(9, 6), [one] * 5, "F1 (%)")
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert len(shown) == 5
    assert len({ax.get_ylim() for ax in shown}) == 1
    assert [ax.get_ylabel() for ax in shown] == ["F1 (%)", "", "", "F1 (%)", ""]
