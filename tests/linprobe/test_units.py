"""Units of analysis: names, means of probabilities, units that have no class of their own."""

import numpy as np
import pandas as pd
import pytest

from linprobe.units import bags_of, by_unit, unit_names
from retfiner.common.errors import InputError
from retfiner.common.patients import Owner
from retfiner.common.predictions import make_table

OWNERS = [
    Owner("1", "OD", "a"), Owner("1", "OD", "b"), Owner("1", "OS", "c"), Owner("2", "OD", "a"),
    Owner(), Owner("3"),
]  # fmt: skip
IMAGES = [f"{k}.png" for k in range(6)]


def predictions(labels, seed=0, data_set="set", owners=OWNERS):
    scores = np.random.default_rng(seed).dirichlet([1, 1], len(labels))
    return make_table(
        scores, labels, ["A", "B"], model="m", data_set=data_set, seed=seed, image=IMAGES,
        patient=[o.patient for o in owners], eye=[o.eye for o in owners],
        volume=[o.volume for o in owners],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "names"),
    [
        ("image", [f"image {name}" for name in IMAGES]),
        ("volume", ["volume 1/a", "volume 1/b", "volume 1/c", "volume 2/a", "image 4.png",
                    "image 5.png"]),
        ("eye", ["eye 1/OD", "eye 1/OD", "eye 1/OS", "eye 2/OD", "image 4.png", "image 5.png"]),
        ("patient", ["patient 1"] * 3 + ["patient 2", "image 4.png", "patient 3"]),
    ],
)  # fmt: skip
def test_eyes_and_volumes_are_told_apart_by_patient(unit, names):
    assert unit_names(unit, IMAGES, OWNERS) == names


def test_probabilities_are_averaged_over_a_units_images_in_each_run():
    table = pd.concat([predictions([0, 0, 1, 1, 0, 1], seed) for seed in (0, 1)])
    found, notes = by_unit(table, "eye")
    for seed, rows in table.groupby("seed"):
        own = found[found["seed"] == seed].set_index("image")
        assert list(own.index) == ["eye 1/OD", "eye 1/OS", "eye 2/OD", "image 4.png", "image 5.png"]
        scores = rows[["p_A", "p_B"]].to_numpy()
        np.testing.assert_allclose(own.loc["eye 1/OD", ["p_A", "p_B"]].tolist(), scores[:2].mean(0))
        np.testing.assert_allclose(own.loc["eye 2/OD", ["p_A", "p_B"]].tolist(), scores[3])
        assert own["patient"].tolist() == ["1", "1", "2", "", "3"]
        assert set(own["volume"]) == {""}
    assert notes == {"set": ["The eye of 2 images is not known: each is its own."]}
    assert list(found.columns) == list(table.columns)


def test_units_with_images_of_several_classes_are_left_out_and_counted():
    table = predictions([0, 1, 1, 1, 0, 1])
    found, notes = by_unit(table, "eye")
    assert "eye 1/OD" not in set(found["image"])
    assert notes["set"][0] == "1 of 5 eyes have images of several classes and are left out."
    assert bags_of("eye", IMAGES, OWNERS, [0, 1, 1, 1, 0, 1]) == (
        [[0, 1], [2], [3], [4], [5]], [None, 1, 1, 0, 1],
    )  # fmt: skip


def test_labels_of_images_are_no_labels_of_units():
    owners = [Owner(str(k // 2)) for k in range(6)]
    with pytest.raises(InputError, match="labelled by image"):
        by_unit(predictions([0, 1, 0, 1, 1, 1], owners=owners), "patient")
    of_images = predictions([0, 1, 0, 1, 1, 1], owners=owners, data_set="set_grade")
    whole = predictions([0, 0, 1, 1, 1, 1], owners=owners).assign(task="")
    found, notes = by_unit(pd.concat([whole, of_images.assign(task="ordinal")]), "patient")
    assert set(found["data_set"]) == {"set"}  # a column of images does not stop their classes
    assert notes["set_grade"][0].startswith("Left out: set_grade is labelled by image")


def test_a_unit_that_nobody_knows_is_an_error():
    with pytest.raises(InputError, match="the volume is known"):
        by_unit(predictions([0, 1] * 3, owners=[Owner("1", "OD")] * 6), "volume")


def test_images_stay_as_they_are():
    table = predictions([0, 1] * 3)
    assert by_unit(table, "image") == (table, {})
