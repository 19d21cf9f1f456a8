"""B-scans of volumes in a table: ``file#k``, a slice column, and what is wrong with either."""

import numpy as np
import pytest

from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.data.manifest import read_manifest
from retfiner.data.pair_table import Columns
from retfiner.data.pairs import ImageCaptionDataset
from retfiner.vision import BACKBONES, ImageAddress, evaluation_transform
from tests.helpers.image_files import (
    as_deep,
    bscans,
    dicom,
    write_dicom,
    write_e2e,
    write_img,
    write_vol,
)
from tests.helpers.refinement import (
    load_pairs,
    write_csv,
    write_image,
)

COLUMNS = ("image", "report", "patient_id", "slice")
VOLUME = bscans(6)
TRANSFORM = evaluation_transform(BACKBONES["RETFound"])


@pytest.fixture
def folder(tmp_path):
    write_dicom(tmp_path / "scan.dcm", dicom(VOLUME))
    write_img(tmp_path / "cube_40x6.img", as_deep(VOLUME))
    np.savez(tmp_path / "harvard.npz", bscans=VOLUME, slo=VOLUME[0], glaucoma=1)
    write_image(tmp_path / "a.png", 0)
    return tmp_path


def shown(index, volume=VOLUME):
    return TRANSFORM((volume[index] / 255).astype(np.float32))


def problems(folder, rows, header=COLUMNS, **options):
    manifest = read_manifest(
        write_csv(folder / "p.csv", [*rows, ["a.png", "cyst", "p"]], header),
        on_bad_row="skip",
        **options,
    )
    return dict(manifest.skipped)


def test_an_index_behind_the_path(folder):
    rows = [["scan.dcm#4", "cyst", "p1"], ["cube_40x6.img#0", "fluid", "p2"],
            ["harvard.npz#bscans#2", "drusen", "p3"], ["a.png", "no fluid", "p4"]]  # fmt: skip
    manifest = read_manifest(write_csv(folder / "p.csv", rows))
    assert manifest.images[0] == ImageAddress(folder / "scan.dcm", 4)
    pairs = ImageCaptionDataset(manifest, TRANSFORM)
    for item, expected in enumerate((shown(4), shown(0, as_deep(VOLUME)), shown(2))):
        image, report = pairs[item]
        assert (image - expected).abs().max() < 1e-5
        assert report == rows[item][1]


def test_a_slice_column_by_its_usual_name(folder):
    rows = [["scan.dcm", "cyst", "p1", "4"], ["cube_40x6.img", "fluid", "p2", " 1.0 "],
            ["scan.dcm#3", "fluid", "p2", "3"], ["a.png", "no fluid", "p4", ""],
            ["a.png", "fluid", "p5", "NaN"], ["harvard.npz#bscans", "x", "p", "5"]]  # fmt: skip
    manifest = read_manifest(write_csv(folder / "p.csv", rows, COLUMNS))
    assert [image.index for image in manifest.images] == [4, 1, 3, None, None, 5]
    assert manifest.images[5].member == "bscans"
    pairs = ImageCaptionDataset(manifest, TRANSFORM, use_cache=True)
    cube = shown(1, as_deep(VOLUME))
    for item, expected in ((0, shown(4)), (1, cube), (2, shown(3)), (5, shown(5)), (0, shown(4))):
        # Kept as 8 bits; ImageNet's deviations scale a rounding of 1/510.
        assert (pairs[item][0] - expected).abs().max() < 1 / 510 / 0.22


def test_a_column_of_another_name_must_exist(folder):
    rows = [["scan.dcm", "cyst", "p1", "4"]]
    path = write_csv(folder / "p.csv", rows, ("image", "report", "patient_id", "b_scan"))
    assert read_manifest(path, columns=Columns(slice="b_scan")).images[0].index == 4
    with pytest.raises(InputError, match=r"column slice[\s\S]*--slice_column"):
        read_manifest(path, columns=Columns(slice="slice"))
    with pytest.raises(InputError, match=r"holds 6 B-scans[\s\S]*--group_column COLUMN"):
        read_manifest(path)


def test_a_slice_column_that_means_something_else_can_be_left_alone(folder):
    rows = [["a.png", "cyst", "p1", "31"], ["scan.dcm#1", "fluid", "p2", "upper"]]
    reasons = problems(folder, rows)
    assert "a.png has no B-scan 31" in reasons[2]
    assert "the slice is 'upper'" in reasons[3]
    assert problems(folder, rows, columns=Columns(slice="none")) == {}


def test_what_is_wrong_with_an_index(folder):
    rows = [
        ["scan.dcm", "cyst", "p", ""],
        ["scan.dcm#6", "cyst", "p", ""],
        ["scan.dcm", "cyst", "p", "6"],
        ["scan.dcm#-1", "cyst", "p", ""],
        ["scan.dcm", "cyst", "p", "-1"],
        ["scan.dcm", "cyst", "p", "2.5"],
        ["scan.dcm#2", "cyst", "p", "3"],
        ["nowhere.e2e#2", "cyst", "p", ""],
        ["harvard.npz", "cyst", "p", "2"],
    ]
    reasons = problems(folder, rows)
    expected = {
        2: "holds 6 B-scans, and nothing says which one",
        3: "scan.dcm has no B-scan 6",
        4: "scan.dcm has no B-scan 6",
        5: "expected: a whole number, 0 for the first B-scan",
        6: "the slice is '-1'",
        7: "the slice is '2.5'",
        8: "scan.dcm#2 says one B-scan and the slice column says 3",
        9: "there is no file",
        10: "2 arrays that could be images: bscans, slo",
    }
    assert list(reasons) == list(expected)
    for row, reason in expected.items():
        assert reason in reasons[row]
        assert "\n" not in reasons[row]


def test_pairs_of_a_run_come_from_volumes(folder):
    """From the settings to the tensor: e2e and vol, B-scans of one patient on one side."""
    write_e2e(folder / "eye.e2e", {1: VOLUME.astype(np.uint16) + 60000})
    write_vol(folder / "eye.vol", (VOLUME / 255).astype(np.float32))
    rows = [[f"eye.{kind}", f"cyst {k}", kind, str(k)] for kind in ("e2e", "vol") for k in range(6)]
    rows += [[f"scan.dcm#{k}", f"fluid {k}", "third", ""] for k in range(6)]
    config = RefineConfig(
        model_weights=folder / "none.pth",
        train_csv=write_csv(folder / "p.csv", rows, COLUMNS),
        val_fraction=0.3,
    )
    pairs = load_pairs(config, TRANSFORM)
    assert (pairs.train_size, pairs.validation_size) == (12, 6)
    for part, manifest in zip((pairs.train, pairs.validation), pairs.manifests, strict=True):
        indices = [image.index for image in manifest.images]
        assert indices == list(range(6)) * (len(manifest) // 6)
        assert all(part[i][0].isfinite().all() for i in range(len(manifest)))
    renamed = RefineConfig(
        model_weights=config.model_weights, train_csv=config.train_csv, slice_column="frame"
    )
    with pytest.raises(InputError, match="lacks a column"):
        load_pairs(renamed, TRANSFORM)
