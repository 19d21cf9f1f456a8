"""Segmentation: scores against their definitions, the layout's traps, and the script."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from linprobe.datasets import Split
from linprobe.segmentation.heads import Tokens, build_head, predict, shrunk
from linprobe.segmentation.masks import Masked, MaskedSet, read_masked_set
from linprobe.segmentation.run import dice, hausdorff_95, score, summarise
from retfiner.common.commands import REPOSITORY
from retfiner.common.errors import InputError
from retfiner.common.patients import Owner
from tests.helpers.probing_data import write_base_model

VALUES = (0, 80, 255)


def disc(shape, row, column, radius):
    y, x = np.indices(shape)
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def border(mask):
    """Pixels of a mask with a neighbour outside of it, one by one."""
    padded = np.pad(mask, 1)
    found = []
    for y, x in np.argwhere(mask):
        around = padded[y, x + 1], padded[y + 2, x + 1], padded[y + 1, x], padded[y + 1, x + 2]
        if not all(around):
            found.append((y, x))
    return np.array(found)


def test_scores_are_what_their_definitions_say():
    found, truth = disc((40, 50), 18, 20, 9), disc((40, 50), 22, 26, 12)
    common, total = (found & truth).sum(), found.sum() + truth.sum()
    assert dice(found, truth) == 2 * common / total
    a, b = border(found), border(truth)
    apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    expected = np.percentile(np.concatenate([apart.min(1), apart.min(0)]), 95)
    assert hausdorff_95(found, truth) == pytest.approx(expected, abs=1e-12)
    assert hausdorff_95(truth, truth) == 0 and dice(truth, truth) == 1


def test_a_class_that_is_not_there_has_no_distance_and_a_false_one_no_overlap():
    none, some = np.zeros((8, 8), bool), disc((8, 8), 4, 4, 2)
    assert np.isnan(dice(none, none)) and np.isnan(hausdorff_95(none, none))
    assert dice(some, none) == dice(none, some) == 0
    assert np.isnan(hausdorff_95(some, none))


def write_set(folder, per_split=6, side=64, info=True):
    """Bright discs are class 2, dark ones class 1, on gray noise; two images a patient."""
    rng = np.random.default_rng(0)
    for number, split in enumerate(("train", "val", "test")):
        for part in ("bscan", "semseg"):
            (folder / split / part).mkdir(parents=True)
        for index in range(per_split):
            image = rng.normal(120, 10, (side, side + 10))
            mask = np.zeros(image.shape, np.uint8)
            for value, gray in ((80, 30), (255, 230)):
                where = disc(image.shape, *rng.uniform(16, side - 16, 2), 10)
                mask[where], image[where] = value, gray
            name = f"P{number}{index // 2:03d}_OD_v{index % 2}.png"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
                folder / split / "bscan" / name
            )
            Image.fromarray(mask).save(folder / split / "semseg" / name)
    if info:
        names = ("Elsewhere", "dark", "bright")
        rows = {str(i): {"value": VALUES[i], "label": names[i]} for i in range(3)}
        (folder / "INFO.json").write_text(json.dumps(rows))
    return folder


def test_the_layout_is_read_with_its_classes_and_patients(tmp_path):
    data = read_masked_set(write_set(tmp_path / "Discs"))
    assert data.classes == ["Elsewhere", "dark", "bright"]
    test = data.splits["test"]
    assert [o.patient for o in test.split.owners] == [f"P2{i // 2:03d}" for i in range(6)]
    raw = np.asarray(Image.open(tmp_path / "Discs/test/semseg" / test.split.names[0]))
    assert np.array_equal(np.array(VALUES)[test.masks[0]], raw)
    bare = read_masked_set(write_set(tmp_path / "Bare", info=False))
    assert bare.classes == ["background", "value 80", "value 255"]
    assert np.array_equal(bare.splits["val"].masks[1], data.splits["val"].masks[1])


def test_a_person_in_two_spellings_or_splits_and_an_image_in_two_splits_are_said(tmp_path):
    folder = write_set(tmp_path / "Discs")
    assert read_masked_set(folder).notes == []
    rows = ["image,patient"]
    for split in ("train", "val", "test"):
        images = sorted(path.name for path in (folder / split / "bscan").iterdir())
        people = {"train": "A1", "val": "B", "test": "C"}[split]
        rows += [f"{split}/{name},{people}" for name in images[1:]]
        rows += [f"{split}/{images[0]},{'a01' if split == 'test' else people}"]
    (folder / "split.csv").write_text("\n".join(rows))
    for part in ("bscan", "semseg"):
        files = (sorted((folder / split / part).iterdir())[2] for split in ("train", "test"))
        taken, place = files
        place.write_bytes(taken.read_bytes())
    data = read_masked_set(folder)
    assert data.splits["test"].split.owners[0].patient == "A1"
    spelled, shared, again = data.notes
    assert "written in several ways" in spelled
    assert shared == "1 patients are in both train and test."
    assert again == "1 images of test are in train too: P0001_OD_v0.png = P2001_OD_v0.png."


def lose_a_mask(folder):
    next((folder / "test/semseg").iterdir()).unlink()


def keep_test_masks_back(folder):
    for path in (folder / "test/semseg").iterdir():
        path.unlink()
    (folder / "test/semseg").rmdir()


def save_as_jpeg(folder):
    path = sorted((folder / "val/semseg").iterdir())[0]
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()


def shrink_a_mask(folder):
    path = sorted((folder / "train/semseg").iterdir())[0]
    Image.open(path).resize((32, 32), 0).save(path)


def colour_a_mask(folder):
    path = sorted((folder / "train/semseg").iterdir())[0]
    Image.open(path).convert("RGB").save(path)


def garble_the_names(folder):
    (folder / "INFO.json").write_text('{"0": 0, "1": 80}')


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lose_a_mask, "does not have a mask for each image"),
        (keep_test_masks_back, "6 images, 0 masks"),
        (save_as_jpeg, "values of no class"),
        (shrink_a_mask, "not as large as its image"),
        (colour_a_mask, "gray PNG of 8 bit"),
        (garble_the_names, "which value is which class"),
    ],
)
def test_traps_of_the_layout_are_named(tmp_path, spoil, words):
    spoil(write_set(tmp_path / "Discs"))
    with pytest.raises(InputError) as error:
        read_masked_set(tmp_path / "Discs")
    assert words in str(error.value)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_token_colours_its_own_place(kind):
    """Tokens (row, column, one-hot) in row-major order end up where their patch lies."""
    stored = torch.zeros(1, 4, 4, 3)
    stored[0, 1, 2, 2] = 1.0
    tokens = Tokens(stored.flatten(1).half(), 4)
    maps = tokens.maps(torch.tensor([0]), torch.device("cpu"))
    assert maps.shape == (1, 3, 4, 4) and maps[0, 2, 1, 2] == 1 and maps.sum() == 1
    head = build_head(kind, 3, 2).eval()
    assert predict(head, tokens, [(20, 36)], torch.device("cpu"))[0].shape == (20, 36)
    if kind == "linear":
        with torch.no_grad():
            head[1].weight.copy_(torch.tensor([[0.0, 0, 0], [0, 0, 9]])[..., None, None])
            head[1].bias.copy_(torch.tensor([1.0, 0]))
        found = predict(head, tokens, [(40, 80)], torch.device("cpu"))[0]
        rows, columns = np.nonzero(found)
        assert (rows.mean(), columns.mean()) == pytest.approx((14.5, 49.5), abs=0.6)


def test_masks_shrink_without_new_classes():
    mask = np.zeros((90, 70), np.uint8)
    mask[:45] = 7
    small = shrunk([mask], 16)
    assert small.shape == (1, 16, 16) and set(small.unique().tolist()) == {0, 7}
    assert (small[0, :8] == 7).all() and (small[0, 8:] == 0).all()


def test_the_summary_is_the_mean_over_images_with_intervals_by_patient():
    """Four images of two patients; seeds are averaged; the mean is one over classes."""
    names = [f"{i}.png" for i in range(4)]
    owners = [Owner(patient) for patient in ("a", "a", "b", "b")]
    split = Split([], np.zeros(4, np.int64), owners, [], names)
    data = MaskedSet("D", ["none", "x", "y"], {"test": Masked(split, [])}, ["A note."])
    values = {"base": (0.2, 0.4, np.nan, 0.6), "refined": (0.4, 0.6, 0.5, 0.9)}
    rows = [
        {"data_set": "D", "model": model, "image": name, "class": label, "seed": seed,
         "dice": value + shift + (seed - 0.5) * 0.1, "hd95": 3.0}
        for model, column in values.items()
        for name, value in zip(names, column, strict=True)
        for label, shift in (("x", 0.0), ("y", 0.1))
        for seed in (0, 1)
    ]  # fmt: skip
    lines = summarise(pd.DataFrame(rows), data, ["base", "refined"]).splitlines()
    cells = {tuple(line.split(" | ")[:2]): line.split(" | ")[2:] for line in lines if "| " in line}
    assert cells["| Dice", "x"][:2] == ["40.0", "60.0"]
    assert cells["| Dice", "y"][:2] == ["50.0", "70.0"]
    assert cells["| Dice", "mean"][:2] == ["45.0", "65.0"]
    assert cells["| Dice", "x"][2].startswith("+20.0 (+")
    assert "4 test images; intervals of 95 % draw 2 patients" in "\n".join(lines)
    assert lines[-1] == "- A note."


def test_masks_are_scored_by_image_and_class():
    truth = np.zeros((10, 10), np.uint8)
    truth[2:6, 2:6], truth[7:9, 7:9] = 1, 2
    found = truth.copy()
    found[truth == 2] = 0
    split = Split([], np.zeros(1, np.int64), [Owner("p")], [], ["a.png"])
    rows = score([found], Masked(split, [truth]), ["none", "x", "y"]).set_index("class")
    assert rows.loc["x", "dice"] == 1 and rows.loc["x", "hd95"] == 0
    assert rows.loc["y", "dice"] == 0 and np.isnan(rows.loc["y", "hd95"])
    assert rows["pixels"].tolist() == [16, 4] and set(rows["patient"]) == {"0"}  # no name


def run(*words):
    command = [sys.executable, str(REPOSITORY / "linear_probing/segment.py"), *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_script_finds_what_is_plain_to_see_and_the_same_for_the_same_weights(tmp_path):
    write_set(tmp_path / "data/Discs", per_split=8)
    write_base_model(tmp_path / "base.pth", 0)
    write_base_model(tmp_path / "same.pth", 0)
    words = ["--weights", f"base={tmp_path / 'base.pth'}", f"same={tmp_path / 'same.pth'}",
             "--data_root", tmp_path / "data", "--feature_store", tmp_path / "features",
             "--epochs", 30, "--learning_rate", 5e-3, "--batch_size", 4, "--seed", 0, 1,
             "--num_workers", 0]  # fmt: skip
    done = run(*words, "--output", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert "8 test images; intervals of 95 % draw 4 patients" in done.stdout
    assert " 0.0 |\n" in done.stdout, "the same weights differ in nothing"
    assert "(0.0 to 0.0)" not in done.stdout, "which is no interval"
    rows = pd.read_csv(tmp_path / "one/segmentation.csv")
    assert rows.groupby("class")["dice"].mean().min() > 0.3, done.stdout
    assert len(rows) == 2 * 2 * 8 * 2
    figure = Image.open(tmp_path / "one/Discs.png")
    assert figure.width > 1000 and np.asarray(figure.convert("L")).std() > 20
    twin = {
        name: part.drop(columns=["model", "weights_sha256"]) for name, part in rows.groupby("model")
    }
    assert twin["base"].reset_index(drop=True).equals(twin["same"].reset_index(drop=True))


def test_a_wrong_word_is_said(tmp_path):
    done = run("--weights", tmp_path / "base.pth", "--data_root", tmp_path)
    assert done.returncode != 0 and "NAME=PATH" in done.stderr
