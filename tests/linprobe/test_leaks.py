"""Leaks by content: copies are found under any name and encoding, and nothing else is."""

import numpy as np
import pytest
from PIL import Image

from linprobe.datasets import read_data_set
from linprobe.leaks import TrainingPairs, check_splits, refuse
from linprobe.store import FeatureStore
from retfiner.common.errors import InputError
from retfiner.vision.images.perceptual import SAME, perceptual_hash, same_images, same_pairs
from tests.helpers.probing_data import write_data_set


def picture(seed, size=160):
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def hash_of(image):
    return perceptual_hash(np.asarray(image, dtype=np.float32) / 255)


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "features")


def test_the_hash_hand_worked():
    rising = np.tile(np.arange(17, dtype=np.float32), (16, 1))
    assert perceptual_hash(rising).all()
    assert not perceptual_hash(rising[:, ::-1].copy()).any()
    assert perceptual_hash(rising).shape == (256,)


@pytest.mark.parametrize("size", [80, 224, 300])
def test_other_sizes_and_encodings_are_the_same_picture(tmp_path, size):
    hashes = []
    for seed in range(20):
        picture(seed).resize((size, size)).save(tmp_path / "a.jpg", quality=60)
        with Image.open(tmp_path / "a.jpg") as again:
            hashes.append(hash_of(again))
    originals = np.stack([hash_of(picture(seed)) for seed in range(20)])
    assert same_images(originals, np.stack(hashes)) == [(k, k) for k in range(20)]
    assert same_pairs(originals) == []
    both = np.concatenate([originals[:3], np.stack(hashes[:3])])
    assert same_pairs(both) == [(0, 3), (1, 4), (2, 5)]


def test_the_threshold_counts_bits():
    first = np.zeros((1, 256), dtype=bool)
    second = first.copy()
    second[0, :SAME] = True
    assert same_images(first, second) == [(0, 0)]
    second[0, SAME] = True
    assert same_images(first, second) == []


def test_a_data_set_without_copies_has_no_leak_and_is_hashed_once(tmp_path, store):
    data = read_data_set(write_data_set(tmp_path / "OCTID"))
    assert check_splits(data, store) == []
    assert len(list(store.folder.iterdir())) == 3
    for path in data.splits["test"].paths:
        path.unlink()  # the hashes are kept: no image is read again
    assert check_splits(data, store) == []


def test_copies_between_val_and_train_are_told_and_those_in_test_refused(tmp_path, store):
    folder = write_data_set(tmp_path / "OCTID")
    first = sorted((folder / "train" / "AMD").iterdir())[0]
    with Image.open(first) as image:
        image.save(folder / "val" / "AMD" / "P77_OD_v1.bmp")
    data = read_data_set(folder)
    leaks = check_splits(data, store)
    assert leaks == [
        f"1 images of val are in train too, as they look: AMD/{first.name} = AMD/P77_OD_v1.bmp."
    ]
    assert refuse(data, leaks, allow=False) == leaks
    with Image.open(first) as image:
        image.save(folder / "test" / "AMD" / "P78_OD_v1.bmp")
    data = read_data_set(folder)
    leaks = check_splits(data, store)
    with pytest.raises(InputError, match=r"P78_OD_v1\.bmp(.|\n)*--allow_leaks"):
        refuse(data, leaks, allow=False)
    assert refuse(data, leaks, allow=True) == leaks


def test_training_pairs_are_compared_by_picture_and_patient(tmp_path, store):
    folder = write_data_set(tmp_path / "OCTID")
    data = read_data_set(folder)
    test = data.splits["test"]
    (tmp_path / "pairs").mkdir()
    with Image.open(test.paths[0]) as image:
        image.save(tmp_path / "pairs" / "renamed.bmp")
    picture(0).save(tmp_path / "pairs" / "other.png")
    table = tmp_path / "pairs.csv"
    lines = [
        "image,report,patient_id",
        "pairs/renamed.bmp,a,X",
        "pairs/other.png,b,p02001",
    ]  # P2001
    table.write_text("\n".join(lines) + "\n")
    leaks = TrainingPairs(table, store).leaks(data, store)
    assert [leak.split(" are among")[0] for leak in leaks] == ["1 test images", "1 test patients"]
    assert f"renamed.bmp = {test.names[0]}" in leaks[0] and "P2001" in leaks[1], "p02001 is P2001"
    with pytest.raises(InputError, match="2001"):
        refuse(data, leaks, allow=False)


def test_every_bscan_of_a_training_volume_is_compared(tmp_path, store):
    data = read_data_set(write_data_set(tmp_path / "OCTID"))
    with Image.open(data.splits["test"].paths[3]) as image:
        bscan = np.array(image.convert("L"))
    np.save(tmp_path / "volume.npy", np.stack([bscan.T[::-1, ::-1].T, bscan]))
    (tmp_path / "pairs.csv").write_text("image,report\nvolume.npy#0,a\nvolume.npy#1,b\n")
    [leak] = TrainingPairs(tmp_path / "pairs.csv", store).leaks(data, store)
    assert f"volume.npy#1 = {data.splits['test'].names[3]}" in leak


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,report\nnowhere.png,a\n", "not there"),
        ("picture\na\n", "no column image"),
        ("image\n", "no row"),
    ],
)
def test_tables_that_cannot_be_compared(tmp_path, store, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        TrainingPairs(tmp_path / "t.csv", store)
