"""What columns of split.csv are about, by their values."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from linprobe.targets import read_tasks
from retfiner.common.errors import InputError

SPLITS = {"train": 6, "val": 4, "test": 4}


def write(folder, columns, classes=("images",)):
    """Write a data set whose table has columns, each a function of an image's number."""
    rows = []
    for split, count in SPLITS.items():
        for k in range(count):
            place = f"{split}/{classes[k % len(classes)]}/{k}.png"
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((8, 8), 10 * k + len(split), np.uint8)
            Image.fromarray(pixels).save(folder / place)
            values = {name: value(k) for name, value in columns.items()}
            rows.append({"image": place, "patient": f"{split}{k // 2}", **values})
    with (folder / "split.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_each_kind_is_read_off_its_values(tmp_path):
    folder = write(
        tmp_path / "OLIVES",
        {
            "target_IRF": lambda k: k % 2,
            "target_BCVA": lambda k: 0.1 * k - 0.2,
            "target_SRF": lambda k: int(k == 1),
            "target_DRSS": lambda k: f"{(0, 2, 10)[k % 3]}.0",
            "target_age": lambda k: 40 + k,
            "target_arm": lambda k: ("GILA", "MONTHLY")[k % 2],
            "sex": lambda k: "f",
        },
    )
    found = {one.name: one for one in read_tasks(folder)}
    assert {name: one.task for name, one in found.items()} == {
        "OLIVES_labels": "multilabel",
        "OLIVES_BCVA": "regression",
        "OLIVES_DRSS": "ordinal",
        "OLIVES_age": "regression",
        "OLIVES_arm": "classes",
    }
    labels = found["OLIVES_labels"]
    assert labels.classes == ["IRF", "SRF"]
    test = labels.splits["test"]
    assert test.labels.tolist() == [[0, 0], [1, 1], [0, 0], [1, 0]]
    assert test.owners[0].patient == "test0"
    assert found["OLIVES_DRSS"].classes == ["0", "2", "10"], "in the order of the scale"
    assert found["OLIVES_DRSS"].splits["test"].labels.tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(found["OLIVES_BCVA"].splits["test"].labels, [-0.2, -0.1, 0, 0.1])
    assert "Read as grades: 0, 2, 10." in found["OLIVES_DRSS"].notes
    assert len({one.sha256 for one in found.values()}) == 5


def test_images_without_a_value_are_left_out_and_classes_of_folders_stay(tmp_path):
    folder = write(tmp_path / "A", {"target_CST": lambda k: 250.5 + k if k else ""}, ("DR", "DME"))
    classes, thickness = read_tasks(folder)
    assert (classes.name, classes.classes, classes.task) == ("A", ["DME", "DR"], "classes")
    assert [len(part) for part in thickness.splits.values()] == [5, 3, 3]
    assert "3 images without a value are left out." in thickness.notes


def test_a_data_set_without_such_columns_is_what_it_was(tmp_path):
    [data] = read_tasks(write(tmp_path / "A", {"sex": lambda k: "f"}, ("a", "b")))
    assert data.task == "classes"
    with pytest.raises(InputError, match="only one class"):
        read_tasks(write(tmp_path / "B", {"sex": lambda k: "f"}))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda k: 3, "nothing can be learned from the column target_x"),
        (lambda k: "inf" if k else 1, "nothing can be learned"),
        (lambda k: 1.5 + k if k > 3 else "", "no image with a value in val and test"),
        (lambda k: f"{250 + k},5", r"decimals with a comma(.|\n)*250,5, 251,5"),
        (lambda k: ("1.5", "2.5", "high")[k % 3], "has values and words"),
        (lambda k: ("Wet", "dry", "wet")[k % 3], r"spelled in two ways(.|\n)*'Wet' in train"),
    ],
)
def test_columns_that_tell_nothing_are_refused(tmp_path, value, words):
    with pytest.raises(InputError, match=words):
        read_tasks(write(tmp_path / "A", {"target_x": value}))


def test_cells_that_programs_write_for_nothing_are_empty(tmp_path):
    folder = write(
        tmp_path / "A",
        {
            "target_age": lambda k: (61.5, "nan", 70)[k % 3],
            "target_fluid": lambda k: ("none", "N/A", "some")[k % 3],
        },
    )
    found = {one.name: one for one in read_tasks(folder)}
    assert found["A_age"].task == "regression" and found["A_fluid"].classes == ["none", "some"]
    assert [len(one) for one in found["A_age"].splits.values()] == [4, 3, 3]


def test_a_target_needs_a_name(tmp_path):
    with pytest.raises(InputError, match="a target without a name"):
        read_tasks(write(tmp_path / "A", {"target_a|b": lambda k: k}))
