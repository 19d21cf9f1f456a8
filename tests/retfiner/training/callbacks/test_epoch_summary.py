"""What a run writes about itself."""

import csv

import numpy as np
import pytest
from PIL import Image

from retfiner.training.callbacks.epoch_summary import format_epoch
from retfiner.training.callbacks.metrics_csv import MetricsCsv
from retfiner.training.curves import draw_curves
from retfiner.training.summary import format_summary

METRICS = {
    "train/loss": 3.0, "train/itc": 2.0, "train/gm": 1.0,
    "val/loss": 3.5, "val/itc": 2.25, "val/gm": 1.25,
    "val/image_to_text_recall@5": 0.125, "val/text_to_image_recall@5": 0.25,
}  # fmt: skip


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_an_epoch():
    assert format_epoch(3, METRICS, is_best=True) == (
        "epoch  3  train/val: loss 3.000/3.500  itc 2.000/2.250  gm 1.000/1.250  "
        "image-to-text R@5 12.5 %  text-to-image R@5 25.0 %  *"
    )
    assert not format_epoch(3, METRICS, is_best=False).endswith("*")
    by_chance = METRICS | {"chance/image_to_text_recall@5": 0.0625}
    line = format_epoch(3, by_chance, is_best=False)
    assert "image-to-text R@5 12.5 % (chance 6.2)  text-to-image R@5 25.0 %" in line
    assert "R@5" not in format_epoch(1, {"val/loss": 1.0, "train/loss": 1.0}, is_best=False)


def test_a_line_says_what_an_objective_learns():
    metrics = METRICS | {"chance/gm": 2.0, "shuffled/gm": 1.26, "chance/itc": 3.0}
    line = format_epoch(3, metrics, is_best=False)
    assert "gm 1.000/1.250 (does not use the image)" in line
    assert "itc 2.000/2.250  " in line, "without the shuffled loss nothing is said"


def test_a_summary_of_before_after_guessing_and_shuffled():
    before = {"val/loss": 5.0, "val/gm": 2.0, "val/image_to_text_recall@5": 0.1}
    best = {"val/loss": 3.5, "val/gm": 1.25, "val/image_to_text_recall@5": 0.5}
    best |= {"chance/gm": 4.0, "shuffled/gm": 1.75, "chance/image_to_text_recall@5": 0.05}
    lines = format_summary(before, best).splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["loss,", "sum", "5.000", "3.500"],
        ["loss,", "GM", "2.000", "1.250", "4.000", "1.750", "learns"],
        ["image", "to", "text", "recall@5", "10.0", "%", "50.0", "%", "5.0", "%"],
    ]
    columns = [lines[3].index(value) + len(value) for value in ("10.0 %", "50.0 %", "5.0 %")]
    heads = ("before", "after", "guessing")
    assert columns == [lines[0].index(head) + len(head) for head in heads]


def test_a_summary_says_what_to_try():
    best = {"val/loss": 3.5, "val/itm": 0.636, "chance/itm": 0.6365, "shuffled/itm": 0.637}
    text = format_summary({}, best)
    assert "0.637  at chance" in text
    assert "note: ITM is at chance; try: " in text


def test_a_summary_reads_from_the_sum_to_the_last_recall():
    names = ["gm", "image_to_text_recall@10", "image_to_text_recall@5", "loss", "itc"]
    lines = format_summary({}, {f"val/{name}": 0.5 for name in names}).splitlines()
    assert [line[:30].rstrip() for line in lines[1:]] == [
        "loss, sum", "loss, ITC", "loss, GM", "image to text recall@5", "image to text recall@10",
    ]  # fmt: skip


def test_a_summary_of_a_resumed_run_keeps_its_columns():
    best = {"val/loss": 3.5, "val/image_to_text_recall@5": 0.5}
    best["chance/image_to_text_recall@5"] = 0.05
    lines = format_summary({}, best).splitlines()
    end = lines[0].index("after") + len("after")
    assert lines[1][:end].endswith("3.500")
    assert lines[2][:end].endswith("50.0 %")


def test_a_logger_goes_on_with_the_file_that_is_there(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for start in (0, 2):
        logger = MetricsCsv(folder)
        for step in (start, start + 1):
            logger.log_metrics({"val/loss": 10.0 - step, "epoch": step}, step)
        logger.save()
    found = rows_of(folder / "metrics.csv")
    assert [(row["step"], row["val/loss"]) for row in found] == [
        ("0", "10.0"), ("1", "9.0"), ("2", "8.0"), ("3", "7.0"),
    ]  # fmt: skip


def test_a_new_column_after_going_on_loses_nothing(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for start, extra in ((0, {}), (1, {"new": 5.0})):
        logger = MetricsCsv(folder)
        logger.log_metrics({"val/loss": 1.5 + start, **extra}, start)
        logger.save()
    found = rows_of(folder / "metrics.csv")
    assert [row["val/loss"] for row in found] == ["1.5", "2.5"]
    assert [row["new"] for row in found] == ["", "5.0"]


@pytest.mark.parametrize("names", [["loss", "itc"], ["loss", "itc", "itm", "mlm", "gm"]])
def test_curves_are_drawn_for_every_loss(tmp_path, names):
    table = tmp_path / "metrics.csv"
    header = ["step", *(f"{part}/{n}" for n in names for part in ("val", "train"))]
    header.append("val/image_to_text_recall@5")
    rng = np.random.default_rng(0)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([step, *rng.random(len(header) - 1)] for step in range(4))
    draw_curves(table, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for colour in ((0, 0x72, 0xB2), (0xD5, 0x5E, 0)):
        assert (np.abs(pixels - colour).sum(-1) < 30).sum() > 200 * len(names)
    rows = -(-(len(names) + 1) // 3)
    assert pixels.shape[0] == 390 * rows
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "metrics.csv"]
