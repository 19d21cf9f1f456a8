"""Kinds of image that files show: what is told is right, and the rest is left open."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from retfiner.common.cli import parse
from retfiner.data.check.prepare_pairs import PreparePairsConfig, prepare_pairs
from retfiner.data.kinds import see_kinds
from retfiner.data.manifest import read_manifest, read_splits
from retfiner.data.pair_table import Columns
from retfiner.refine import warn_of_modalities
from retfiner.vision import BACKBONES
from retfiner.vision.images import ImageAddress, read_image
from retfiner.vision.images.kinds import kind_of_header, seen_kind
from tests.helpers.image_files import bscans, dicom, write_dicom, write_e2e
from tests.helpers.refinement import read_csv, write_csv, write_image

PHOTOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
ORANGE = (190, 95, 45)


def disc(height=300, width=400, radius=140, cut=140, colour=ORANGE, seed=0):
    """A disc that darkens outwards, with dark vessels, noise, and black around it."""
    y, x = np.mgrid[:height, :width]
    far = np.hypot(y - height / 2, x - width / 2)
    shade = 1 - 0.6 * (far / radius) ** 2
    shade[np.abs(np.sin(x / 9) * 20 - (y - height / 2)) < 2] *= 0.5
    inside = (far <= radius) & (abs(y - height / 2) <= cut)
    picture = np.where(inside[..., None], shade[..., None] * np.array(colour), 0)
    noise = np.random.default_rng(seed).normal(0, 3, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def saved(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)
    return seen_kind(ImageAddress(path))


@pytest.mark.parametrize("name", ["eye.png", "eye.jpg", "eye.bmp", "eye.tif", "eye.webp"])
def test_a_photograph_is_known_in_every_format(tmp_path, name):
    assert saved(tmp_path / name, disc()) == "fundus"
    assert saved(tmp_path / f"cut_{name}", disc(cut=95)) == "fundus", "cut off above and below"
    assert saved(tmp_path / f"large_{name}", disc(1200, 1500, 590, 590)) == "fundus"


def test_palettes_and_opacity_are_colours_too(tmp_path):
    picture = Image.fromarray(disc())
    picture.convert("RGBA").save(tmp_path / "a.png")
    picture.convert("P").save(tmp_path / "p.png")
    kinds = [seen_kind(ImageAddress(tmp_path / f"{name}.png")) for name in "ap"]
    assert kinds == ["fundus"] * 2


def rainbow():
    x = np.linspace(0, 1, 256)
    row = np.stack([x, 1 - np.abs(2 * x - 1), 1 - x], 1) * 255
    return np.repeat(row[None].astype(np.uint8), 200, 0)


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(np.repeat(disc()[..., :1], 3, 2), id="gray disc stored in colours"),
        pytest.param(disc()[..., 0], id="gray disc"),
        pytest.param(rainbow(), id="a B-scan in false colours"),
        pytest.param(np.full((100, 300, 3), ORANGE, np.uint8), id="no black"),
        pytest.param(np.pad(np.full((100, 100, 3), ORANGE, np.uint8), [(30, 30)] * 2 + [(0, 0)]),
                     id="a square on black"),
        pytest.param(disc(colour=(60, 110, 180)), id="blue: an iris"),
        pytest.param(disc(colour=(120, 190, 60)), id="green: false colours of a laser"),
        pytest.param(np.hstack([disc(), disc()]), id="two eyes"),
        pytest.param(disc(280, 280, 200, 200), id="a disc without a border"),
        pytest.param(np.zeros((50, 50, 3), np.uint8), id="black"),
    ],
)  # fmt: skip
def test_other_pictures_are_left_open(tmp_path, picture):
    assert saved(tmp_path / "a.png", picture) == ""


def header(**elements):
    found = Dataset()
    for name, value in elements.items():
        setattr(found, name, value)
    return found


def device(meaning):
    item = Dataset()
    item.CodeMeaning = meaning
    return [item]


@pytest.mark.parametrize(
    ("elements", "kind"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.5.4"}, "oct"),
        ({"Modality": "OPT"}, "oct"),
        ({"SOPClassUID": PHOTOGRAPHY, "ImageType": ["ORIGINAL", "PRIMARY", "", "COLOR"]}, "fundus"),
        ({"Modality": "OP", "ImageType": ["ORIGINAL", "PRIMARY", "", "IR"]}, "infrared"),
        ({"Modality": "OP", "ImageType": ["ORIGINAL", "PRIMARY", "", "FA"]}, "angiography"),
        ({"Modality": "OP", "ImageType": ["DERIVED", "PRIMARY", "", "AF"]}, "autofluorescence"),
        ({"Modality": "OP", "ImageType": ["DERIVED", "PRIMARY", "", "REDFREE"],
          "SamplesPerPixel": 3}, ""),
        ({"Modality": "OP", "SamplesPerPixel": 3}, "fundus"),
        ({"Modality": "OP", "SamplesPerPixel": 1}, ""),
        ({"Modality": "OP", "SamplesPerPixel": 3,
          "AcquisitionDeviceTypeCodeSequence": device("Slit Lamp Biomicroscope")}, ""),
        ({"Modality": "OP", "SamplesPerPixel": 3,
          "AcquisitionDeviceTypeCodeSequence": device("Fundus Camera")}, "fundus"),
        ({"Modality": "MR"}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_what_a_dicom_header_states(elements, kind):
    assert kind_of_header(header(**elements)) == kind


def test_files_that_cannot_be_read_and_arrays_say_nothing(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "bad.dcm").write_bytes(b"nothing")
    np.save(tmp_path / "a.npy", disc())
    for name in ("bad.png", "bad.dcm", "a.npy", "absent.png", "pairs.tar#1.png"):
        assert seen_kind(ImageAddress.parse(tmp_path / name)) == ""


HEADER = ("image", "report", "patient_id")


def mixed(folder, column=()):
    """Four B-scans, a photograph as a picture and as DICOM, and an e2e; without a column."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{n}.png" for n in range(4)]
    for number, name in enumerate(names):
        write_image(folder / name, number)
    Image.fromarray(disc()).save(folder / "eye.jpg", quality=90)
    photograph = dicom(disc(), SOPClassUID=PHOTOGRAPHY, Modality="OP",
                       ImageType=["ORIGINAL", "PRIMARY", "", "COLOR"])  # fmt: skip
    write_dicom(folder / "eye.dcm", photograph)
    write_e2e(folder / "v.e2e", {1: bscans(2, top=65535)})
    names += ["eye.jpg", "eye.dcm", "v.e2e#1"]
    rows = [[name, f"Finding {n}.", f"p{n}"] for n, name in enumerate(names)]
    if not column:
        return write_csv(folder / "t.csv", rows, HEADER)
    rows = [[*row, cell] for row, cell in zip(rows, column, strict=True)]
    return write_csv(folder / "t.csv", rows, (*HEADER, "modality"))


def test_a_table_without_the_column_is_seen_and_told(tmp_path):
    table = read_manifest(mixed(tmp_path))
    assert [image.read_as.modality for image in table.images] == [None] * 4 + ["fundus"] * 2 + [
        None
    ]
    assert table.modalities == {"oct", "fundus"}
    [note] = [note for note in table.notes if "kinds of image" in note]
    assert "2 fundus, 1 oct (a column modality overrides it)" in note
    assert read_image(table.images[4]).ndim == 3


def test_of_many_files_some_are_looked_at_first(tmp_path):
    table = read_manifest(mixed(tmp_path))
    files = [ImageAddress(image.path) for image in table.images]  # 0 to 3 gray, 4 and 5 a fundus
    assert see_kinds(files[:5], 2) == {}, "files 0 and 3 are gray, and 4 is not looked at"
    everything = see_kinds(files)
    assert set(everything.values()) == {"fundus", "oct"}
    assert see_kinds(files, 2) == everything, "file 4 is a photograph, so all are looked at"


def test_a_backbone_that_knows_one_kind_hears_of_what_is_seen(tmp_path, capsys):
    table = read_manifest(mixed(tmp_path))
    backbone = SimpleNamespace(spec=BACKBONES["RETFound"])
    warn_of_modalities((table, table), backbone, tmp_path / "RETFound_oct.pth")
    assert "pretrained on oct, and the table has fundus images too" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_column_overrides_what_is_seen(tmp_path):
    cells = ["", "", "", "", "oct", "", ""]
    table = read_manifest(mixed(tmp_path, cells))
    assert [image.read_as.modality for image in table.images[4:]] == [None, "fundus", None]
    assert read_image(table.images[4]).ndim == 2
    address = f"{tmp_path / 'eye.jpg'}#modality=oct"
    assert read_image(address).shape == (300, 400)


def test_a_table_of_scans_alone_says_nothing(tmp_path):
    write_e2e(tmp_path / "v.e2e", {1: bscans(4, top=65535)})
    rows = [[f"v.e2e#{n}", f"Finding {n}.", f"p{n}"] for n in range(4)]
    assert not read_manifest(write_csv(tmp_path / "t.csv", rows, HEADER)).notes


@pytest.mark.parametrize("shards", [(), ("--shards", "1")])
def test_a_checked_table_says_what_was_seen(tmp_path, shards):
    words = ["--csv", mixed(tmp_path / "given"), "--output", tmp_path / "out", "--num_workers",
             "0", "--val_fraction", "0.4", *shards]  # fmt: skip
    summary = prepare_pairs(parse(PreparePairsConfig, "", [str(word) for word in words]))
    assert "2 fundus, 1 oct" in " ".join(summary.notes)
    rows = read_csv(tmp_path / "out" / "pairs.csv")
    assert [row[3] for row in rows] == [""] * 4 + ["fundus"] * 2 + ["oct"]
    parts = read_splits(tmp_path / "out" / "train.csv", tmp_path / "out" / "val.csv")
    assert parts[0].modalities | parts[1].modalities == {"oct", "fundus"}
    assert not any("kinds of image" in note for part in parts for note in part.notes)


def test_files_of_one_exam_are_seen_one_by_one(tmp_path):
    folder = tmp_path / "visit"
    write_dicom(folder / "1.dcm", dicom(np.zeros((40, 40), np.uint8), InstanceNumber=1))
    photograph = dicom(disc(), SOPClassUID=PHOTOGRAPHY, Modality="OP", InstanceNumber=2)
    write_dicom(folder / "2.dcm", photograph)
    infrared = dicom(np.zeros((40, 40), np.uint8), SOPClassUID=PHOTOGRAPHY, Modality="OP",
                     InstanceNumber=3, ImageType=["ORIGINAL", "PRIMARY", "", "IR"])  # fmt: skip
    write_dicom(folder / "3.dcm", infrared)
    write_image(tmp_path / "b.png", 0)
    rows = [["visit", "Drusen.", "p", "1"], ["b.png", "Fluid.", "q", "1"]]
    table = write_csv(tmp_path / "t.csv", rows, (*HEADER, "visit"))
    pairs = read_manifest(table, columns=Columns(group="visit"))
    places = [pairs.exams[0].place(number) for number in range(3)]
    assert [place.kind for place in places] == ["bscan", "fundus", "infrared"]
    assert [read_image(place.image).ndim for place in places] == [2, 3, 2]
    assert pairs.modalities == {"oct", "fundus"}


def test_python_reads_files_as_training_does(tmp_path):
    from retfiner.api import read_images
    from retfiner.data.exams import Slices
    from retfiner.data.pictures import choose_pictures

    path = tmp_path / "eye.jpg"
    assert saved(path, disc()) == "fundus"
    [colour] = read_images(path)
    assert np.array_equal(colour, read_image(f"{path}#modality=fundus"))
    assert read_images(f"{path}#modality=oct")[0].ndim == 2
    exam = choose_pictures([path, path], "OD", ["", "OCT"], Slices())
    assert exam.names == ["fundus OD, 1 of 2", "bscan OD, 2 of 2"]
    assert [image.ndim for image in read_images(exam)] == [3, 2]
