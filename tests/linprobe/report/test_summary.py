"""The numbers of the table, worked by hand."""

import dataclasses

import numpy as np
import pytest
from tests.helpers.probing_runs import make_run

from linprobe.report.comparison import Pair
from linprobe.report.provenance import pair_notes
from linprobe.report.summary import summarise
from linprobe.report.tables import build_table, p_text, signed, spread_text
from retfiner.common.errors import InputError


def run_with(version, data_set, seed, value, metric="balanced_accuracy", model="RETFound"):
    run = make_run(version, model, data_set, seed, strength=1.0, n=10)
    values = run.metrics["values"] | {metric: value}
    return dataclasses.replace(run, metrics=run.metrics | {"values": values, "notes": []})


def make_pair(table, metric="balanced_accuracy", name="RETFound"):
    """``table``: for each data set and seed, base and refined value."""
    runs = {
        (data_set, seed): (
            run_with("baseline", data_set, seed, base, metric, name),
            run_with("refined", data_set, seed, refined, metric, name),
        )
        for (data_set, seed), (base, refined) in table.items()
    }
    return Pair(name, f"baseline/{name}", f"refined/{name}", {1.0: runs})


TABLE = {
    ("OCTID", 0): (0.60, 0.70),
    ("OCTID", 1): (0.70, 0.72),
    ("OCTDL", 0): (0.50, 0.58),
    ("OCTDL", 1): (0.40, 0.44),
}


def test_rows_hand_worked():
    rows, notes = summarise([make_pair(TABLE)], "balanced_accuracy")
    assert notes == []
    octdl, octid, mean = rows
    assert (octdl.data_set, octid.data_set, mean.data_set) == ("OCTDL", "OCTID", None)
    assert octid.base.mean() == pytest.approx(65)
    assert octid.base_std == pytest.approx(10 / np.sqrt(2))
    assert octid.change == pytest.approx(6)
    assert octdl.change == pytest.approx(6)
    assert octid.test.p == 0.5  # two seeds reach 2 / 2^2 at best
    # seed by seed: base 55 and 55, refined 64 and 58; four positive pairs: 2 / 2^4
    assert mean.base.tolist() == pytest.approx([55, 55])
    assert mean.refined.tolist() == pytest.approx([64, 58])
    assert mean.base_std == pytest.approx(0)
    assert mean.change == pytest.approx(6)
    assert (mean.test.n, mean.test.p) == (4, 0.125)
    low, high = mean.interval
    assert (low + high) / 2 == pytest.approx(6)
    assert high - low == pytest.approx(2 * 12.7062 * 3, abs=1e-3)


def test_holm_runs_over_means_and_over_data_sets():
    rows, _ = summarise([make_pair(TABLE), make_pair(TABLE, name="UrFound")], "balanced_accuracy")
    means = [row for row in rows if row.data_set is None]
    assert [row.p_holm for row in means] == [0.25, 0.25]  # 0.125 times two pairs
    assert {row.p_holm for row in rows if row.data_set} == {1.0}  # 0.5 times four


def test_seeds_that_differ_between_data_sets():
    table = TABLE | {("OCTDL", 2): (0.3, 0.4)}
    pair = make_pair(table)
    rows, _ = summarise([pair], "balanced_accuracy")
    assert rows[-1].base.tolist() == pytest.approx([(40 + 65) / 2])
    assert np.isnan(rows[-1].base_std)
    assert rows[-1].interval is None
    assert any("seeds differ between data sets" in note for note in pair_notes([pair]))


def test_a_metric_that_does_not_exist_somewhere_is_said():
    pair = make_pair(TABLE | {("OCTDL", 1): (None, 0.7)}, metric="auroc")
    rows, notes = summarise([pair], "auroc")
    assert [row.data_set for row in rows] == ["OCTID", None]
    assert "AUROC does not exist on OCTDL" in notes[0]
    nowhere = make_pair({place: (None, None) for place in TABLE}, metric="auroc")
    with pytest.raises(InputError, match="exists on none"):
        summarise([nowhere], "auroc")


def marks(pairs, metric):
    rows, notes = summarise(pairs, metric)
    table = build_table(rows, pairs, metric, notes)
    lines = [line for line in table.lines if line.kind != "heading"]
    bold = [[cell.text for cell in line.cells if cell.bold] for line in lines]
    underlined = [[cell.text for cell in line.cells if cell.underline] for line in lines]
    return table, bold, underlined


def test_best_is_bold_and_best_base_underlined():
    better_base = {place: (0.9, 0.8) for place in TABLE}
    pairs = [make_pair(TABLE), make_pair(better_base, name="UrFound")]
    _, bold, underlined = marks(pairs, "balanced_accuracy")
    best = ["90.00 ± 0.00"]
    assert bold == [[], [], [], best, best, best]
    assert underlined == [[], [], [], best, best, best]


def test_lower_is_better_for_the_loss():
    table, bold, underlined = marks([make_pair(TABLE, metric="loss")], "loss")
    assert bold[-1] == underlined[-1] == ["0.55 ± 0.00"]
    assert "lower is better" in table.caption
    assert "points" not in table.notes[0]


def test_means_over_different_data_sets_are_not_rivals():
    fewer = {place: values for place, values in TABLE.items() if place[0] == "OCTID"}
    pairs = [make_pair(TABLE), make_pair(fewer, name="UrFound")]
    _, bold, underlined = marks(pairs, "balanced_accuracy")
    assert bold[2] == underlined[2] == []
    assert bold[1] != []
    assert any("not to be compared" in note for note in pair_notes(pairs))


def test_the_smallest_p_value_is_said():
    table, _, _ = marks([make_pair(TABLE)], "balanced_accuracy")
    assert any("smallest possible p-value is 0.5" in note for note in table.notes)
    seeds = {("OCTID", seed): (0.5, 0.6 + seed / 100) for seed in range(6)}
    table, _, _ = marks([make_pair(seeds)], "balanced_accuracy")
    assert not any("smallest possible" in note for note in table.notes)
    assert table.lines[1].cells[3].text.endswith("*")  # 2 / 2^6 = 0.03


def test_notes_of_the_runs_are_passed_on():
    pair = make_pair(TABLE)
    base, refined = pair.main[("OCTID", 0)]
    odd = dataclasses.replace(
        base, metrics=base.metrics | {"notes": ["No test image of DR."]}, versions={"numpy": "1.0"}
    )
    pair.main[("OCTID", 0)] = (odd, refined)
    notes = pair_notes([pair])
    assert "OCTID: No test image of DR." in notes
    assert any("different software" in note and "1.0" in note for note in notes)


def test_how_numbers_are_written():
    assert spread_text(61.234, 1.005) == "61.23 ± 1.00"
    assert spread_text(61.2, float("nan")) == "61.20"
    assert [signed(v) for v in (5.8, -0.5, 0.001, -0.001)] == ["+5.80", "−0.50", "0.00", "0.00"]
    assert [p_text(p) for p in (0.0625, 0.00012, 0.000019)] == ["0.0625", "0.0001", "1.9e−05"]
