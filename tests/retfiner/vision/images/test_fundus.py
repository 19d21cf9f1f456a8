"""Colour fundus photographs: colours kept, disc cut out; B-scans as ever."""

import numpy as np
import pytest
import torch
from PIL import Image

from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.data.check.prepare_pairs import PreparePairsConfig, prepare_pairs
from retfiner.data.manifest import read_manifest, read_splits
from retfiner.data.pair_table import is_fundus
from retfiner.data.pairs import ImageCaptionDataset
from retfiner.refine import warn_of_modalities
from retfiner.vision import BACKBONES, read_image
from retfiner.vision.images import open_images
from retfiner.vision.images.fundus import crop_to_disc
from retfiner.vision.images.raster import COLOURED_MARKS, COLOURS_LOST
from retfiner.vision.preprocessing import EvaluationTransform
from tests.helpers.image_files import bscans, dicom, write_dicom
from tests.helpers.refinement import read_csv, write_csv, write_image

COLOUR = (200, 90, 40)


def photograph(height=60, width=100, radius=25, cut=30):
    """An orange disc right of the middle, cut off ``cut`` above and below its centre."""
    y, x = np.mgrid[:height, :width]
    disc = ((y - 30) ** 2 + (x - 60) ** 2 <= radius**2) & (abs(y - 30) <= cut)
    return np.where(disc[..., None], np.array(COLOUR), 3).astype(np.uint8)


def test_the_disc_is_cut_out_and_stays_round():
    whole = crop_to_disc(photograph().astype(np.float32) / 255)
    assert whole.shape[0] == whole.shape[1] == pytest.approx(51, abs=4)
    flat = crop_to_disc(photograph(cut=15).astype(np.float32) / 255)
    assert flat.shape[0] == flat.shape[1] == pytest.approx(51, abs=4)
    assert flat[0].max() == flat[-1].max() == 0, "padded, not stretched"
    assert flat[len(flat) // 2, len(flat) // 2] == pytest.approx(np.array(COLOUR) / 255)
    dark = np.zeros((4, 6, 3), np.float32)
    assert crop_to_disc(dark).shape == (6, 6, 3)
    assert crop_to_disc(np.ones((4, 6), np.float32)).shape == (6, 6)


def test_colours_are_kept_where_they_are_asked_for(tmp_path):
    Image.fromarray(photograph()).save(tmp_path / "eye.png")
    gray = read_image(tmp_path / "eye.png")
    assert gray.shape == (60, 100)
    colour = read_image(f"{tmp_path / 'eye.png'}#modality=fundus")
    assert colour[25, 25] == pytest.approx(np.array(COLOUR) / 255)
    write_dicom(tmp_path / "eye.dcm", dicom(photograph()))
    assert np.array_equal(read_image(f"{tmp_path / 'eye.dcm'}#modality=fundus"), colour)
    with pytest.raises(InputError, match="There is no way to read"):
        read_image(f"{tmp_path / 'eye.png'}#modality=fluorescein")
    lost = open_images(tmp_path / "eye.png")
    assert COLOURS_LOST in [note.kind for note in lost.notes_on(lost.read(0))]
    write_image(tmp_path / "scan.png", 0)
    Image.open(tmp_path / "scan.png").convert("RGB").save(tmp_path / "stored_as_rgb.png")
    plain = open_images(tmp_path / "stored_as_rgb.png")
    assert not plain.notes_on(plain.read(0))
    marked = np.repeat(bscans(1, 96, 128)[0][..., None], 3, 2)
    marked[43, 10:120] = 0, 255, 0  # a segmented layer
    Image.fromarray(marked).save(tmp_path / "screenshot.png")
    shown = open_images(tmp_path / "screenshot.png")
    assert [note.kind for note in shown.notes_on(shown.read(0))] == [COLOURED_MARKS]


def test_colours_reach_three_channels_and_luma_one():
    colours = np.random.default_rng(0).random((8, 8, 3), dtype=np.float32)
    made = EvaluationTransform(8, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))(colours)
    expected = (colours - np.array([0.5, 0.4, 0.3], np.float32)) / 0.2
    assert torch.allclose(made, torch.from_numpy(expected).permute(2, 0, 1), atol=1e-5)
    one = EvaluationTransform(8, (0.0,), (1.0,), 1)(colours)
    assert torch.allclose(one[0], torch.from_numpy(colours @ np.float32([0.299, 0.587, 0.114])),
                          atol=1e-5)  # fmt: skip


def mixed(folder):
    rows = []
    for i in range(4):
        write_image(folder / f"{i}.png", i)
        rows.append([f"{i}.png", f"report {i}", str(i), "oct"])
    Image.fromarray(photograph()).save(folder / "eye.png")
    rows.append(["eye.png", "disc of an optic nerve", "5", "Colour fundus"])
    return write_csv(folder / "t.csv", rows, ("image", "report", "patient_id", "modality"))


@pytest.mark.parametrize("cached", [False, True])
def test_a_mixed_table_keeps_scans_as_they_are(tmp_path, cached):
    table = read_manifest(mixed(tmp_path))
    assert table.modalities == {"oct", "fundus"}
    transform = EvaluationTransform(16, (0.5,) * 3, (0.5,) * 3)
    pairs = ImageCaptionDataset(table, transform, cached)
    for i in range(4):
        alone = transform(read_image(tmp_path / f"{i}.png"))
        if cached:
            assert torch.allclose(pairs[i][0], alone, atol=1 / 255)
        else:
            assert torch.equal(pairs[i][0], alone)
    eye = pairs[4][0]
    assert eye.shape == (3, 16, 16)
    assert eye[0, 8, 8] > eye[1, 8, 8] > eye[2, 8, 8]


def test_a_checked_table_says_what_its_images_are(tmp_path):
    table = mixed(tmp_path / "given")
    words = ["--csv", str(table), "--output", str(tmp_path / "out"), "--num_workers", "0",
             "--val_fraction", "0.4"]  # fmt: skip
    prepare_pairs(parse(PreparePairsConfig, "", words))
    rows = read_csv(tmp_path / "out" / "pairs.csv")
    assert [row[3] for row in rows] == ["oct"] * 4 + ["Colour fundus"]
    parts = read_splits(tmp_path / "out" / "train.csv", tmp_path / "out" / "val.csv")
    assert parts[0].modalities | parts[1].modalities == {"oct", "fundus"}


def test_a_backbone_that_knows_one_kind_is_named(tmp_path, capsys):
    table = read_manifest(mixed(tmp_path))

    class Loaded:
        def __init__(self, name):
            self.spec = BACKBONES[name]

    for name, weights, words in (
        ("RETFound", "RETFound_oct.pth", ["pretrained on oct", "has fundus images"]),
        ("RETFound", "RETFound_mae_natureCFP.pth", ["pretrained on fundus", "has oct images"]),
        ("RETFound", "RETFound_mae_meh.pth", ["pretrained on fundus", "has oct images"]),
        ("RETFound-DINOv2", "RETFound_dinov2_meh.pth", ["pretrained on fundus", "has oct images"]),
        ("MIRAGE", "MIRAGE-Base.pth", ["takes one channel"]),
        ("UrFound", "urfound.pth", []),
    ):
        warn_of_modalities((table, table), Loaded(name), tmp_path / weights)
        said = " ".join(capsys.readouterr().out.split())
        assert all(word in said for word in words)
        assert bool(said) == bool(words)


def test_what_a_cell_means():
    yes = ["fundus", "CFP", "colour_fundus", "Fundus photograph"]
    no = ["", "oct", "angiography", "fundus autofluorescence", "IR fundus"]
    assert all(map(is_fundus, yes))
    assert not any(map(is_fundus, no))
