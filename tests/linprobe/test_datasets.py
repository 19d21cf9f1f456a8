"""Listing data sets: layout, classes, patients, content."""

import shutil

import numpy as np
import pytest
from PIL import Image

from linprobe.datasets import list_data_sets, read_bscan, read_data_set
from retfiner.common.errors import InputError
from tests.helpers.image_files import as_deep, bscans, dicom, write_dicom, write_img
from tests.helpers.probing_data import write_data_set


@pytest.fixture
def folder(tmp_path):
    return write_data_set(tmp_path / "OCTID")


def test_images_labels_and_patients_go_together(folder):
    data = read_data_set(folder)
    assert (data.name, data.classes, data.notes) == ("OCTID", ["AMD", "DME", "NORMAL"], [])
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 24, "val": 12, "test": 16
    }  # fmt: skip
    train = data.splits["train"]
    assert [data.classes[k] for k in train.labels] == [p.parent.name for p in train.paths]
    assert [(o.patient, o.eye) for o in train.owners] == [
        tuple(p.name.split("_")[:2]) for p in train.paths
    ]
    part = train.subset(np.array([5, 2]))
    assert (part.paths, part.labels.tolist()) == (
        [train.paths[5], train.paths[2]], [train.labels[5], train.labels[2]]
    )  # fmt: skip


def test_a_class_missing_from_one_split_shifts_no_label(folder):
    shutil.rmtree(folder / "train" / "AMD")
    shutil.rmtree(folder / "test" / "DME")
    data = read_data_set(folder)
    assert data.classes == ["AMD", "DME", "NORMAL"]
    assert set(data.splits["train"].labels) == {1, 2}
    assert set(data.splits["test"].labels) == {0, 2}
    assert data.notes == ["No image of AMD in train.", "No image of DME in test."]


def test_fingerprint_follows_the_content_and_nothing_else(folder, tmp_path):
    before = read_data_set(folder).sha256
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "OCTID")
    assert read_data_set(moved).sha256 == before
    image = next((moved / "val" / "AMD").iterdir())
    pixels = np.array(Image.open(image))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(image)
    changed = read_data_set(moved).sha256
    image.rename(moved / "val" / "DME" / image.name)
    assert len({before, changed, read_data_set(moved).sha256}) == 3


def test_unknown_and_shared_patients_are_said(folder):
    first = next((folder / "train" / "AMD").iterdir())
    shutil.copy(first, folder / "test" / "AMD" / first.name)
    assert "1 patients are in both train and test." in read_data_set(folder).notes
    first.rename(first.with_name("anonymous.png"))
    data = read_data_set(folder)  # one name that tells nothing does not make all unknown
    assert "The patient of 1 of 53 images is not known: each is its own." in data.notes
    train = data.splits["train"]
    assert train.units.count("image AMD/anonymous.png") == 1
    assert len(set(train.units)) == 13
    for path in folder.rglob("*.png"):
        path.rename(path.with_name(f"scan{path.stem[1:5]}{path.stem[6:8]}.png"))
    assert any("Patients are not known" in note for note in read_data_set(folder).notes)


def test_a_patient_is_the_same_however_a_table_writes_it(folder):
    """Of train/P1, val/p1 and test/' P01 ' each is one person, in all three splits."""
    lines = ["image,patient"]
    for split, patient in (("train", "P1"), ("val", "p1"), ("test", " P01 ")):
        first = next((folder / split / "AMD").iterdir())
        lines.append(f"{first.relative_to(folder).as_posix()},{patient}")
    (folder / "split.csv").write_text("\n".join([*lines, "gone.png,P9"]))
    data = read_data_set(folder)
    known = [{o.patient for o in split.owners} - {""} for split in data.splits.values()]
    assert known == [{"P1"}] * 3
    for told in ("1 patients are in both train and test.", "1 patients are written in several",
                 "1 rows of split.csv are of no image: gone.png."):  # fmt: skip
        assert any(note.startswith(told) for note in data.notes), told


def test_numbers_that_restart_in_each_class_are_seen(folder):
    for index, path in enumerate(sorted((folder / "train" / "AMD").iterdir())):
        path.rename(path.with_name(f"CNV-{index}-1.png"))
    for index, path in enumerate(sorted((folder / "train" / "DME").iterdir())):
        path.rename(path.with_name(f"DME-{index}-1.png"))
    [note] = read_data_set(folder).notes
    assert note.startswith("8 patients, known by file names alone, are in several classes")


def test_images_in_a_folder_a_patient_are_read_as_image_folder_does(folder):
    before = read_data_set(folder)
    for path in sorted(folder.glob("*/*/*.png")):
        patient, _, scan = path.stem.partition("_")
        path.parent.joinpath(patient).mkdir(exist_ok=True)
        path.rename(path.parent / patient / f"{scan}.png")  # the same names for all
    (folder / "train" / "AMD" / ".hidden").mkdir()
    (folder / "train" / "AMD" / ".hidden" / "a.pdf").write_bytes(b"x")
    data = read_data_set(folder)
    assert data.notes == [] and data.classes == before.classes
    for name, split in data.splits.items():
        assert [o.patient for o in split.owners] == [o.patient for o in before.splits[name].owners]
        assert len(set(split.names)) == len(split) == len(before.splits[name])
        assert all(
            (folder / name / image).is_file() and image.split("/")[0] == data.classes[label]
            for image, label in zip(split.names, split.labels, strict=True)
        )
        np.testing.assert_array_equal(split.labels, before.splits[name].labels)
    lines = [f"{split}/{n},all" for split, s in data.splits.items() for n in s.names]
    (folder / "split.csv").write_text("\n".join(["image,patient", *lines]) + "\n")
    assert "1 patients are in both train and test." in read_data_set(folder).notes


@pytest.mark.parametrize("other", ["NORMAL ", "Normal", "NORMAL\u200b", "NOR MAL", "ＮＯＲＭＡＬ"])
def test_a_class_spelled_in_two_ways_is_an_error_that_shows_the_difference(folder, other):
    (folder / "test" / "NORMAL").rename(folder / "test" / other)
    with pytest.raises(InputError) as caught:
        read_data_set(folder)
    told = "'NORMAL' in train and val", f"{other!r} in test"
    assert all(words in str(caught.value) for words in told)


def test_a_class_with_other_punctuation_in_another_split_is_the_same(folder):
    for split, name in (("train", "Wet_AMD"), ("val", "Wet_AMD"), ("test", "wet-AMD")):
        (folder / split / "AMD").rename(folder / split / name)
    with pytest.raises(InputError, match="'Wet_AMD' in train and val, 'wet-AMD' in test"):
        read_data_set(folder)


def test_classes_that_differ_in_a_sign_and_stand_side_by_side_are_two(folder):
    for split in ("train", "val", "test"):
        (folder / split / "AMD").rename(folder / split / "CNV+")
        (folder / split / "DME").rename(folder / split / "CNV-")
    assert read_data_set(folder).classes == ["CNV+", "CNV-", "NORMAL"]


def test_a_folder_without_an_image_is_no_class_and_that_is_said(folder):
    for split in ("train", "test"):
        (folder / split / "@eaDir").mkdir()
    data = read_data_set(folder)
    assert data.classes == ["AMD", "DME", "NORMAL"]
    assert data.notes == ["No class, as they hold no image: @eaDir."]


def test_blanks_and_signs_in_names_of_classes_are_no_trouble(folder):
    for split in ("train", "val", "test"):
        (folder / split / "NORMAL").rename(folder / split / "0. gesund (Müller, n=3)")
        (folder / split / "AMD").rename(folder / split / "网膜 CNV")
    data = read_data_set(folder)
    assert data.classes == ["0. gesund (Müller, n=3)", "DME", "网膜 CNV"]
    assert data.notes == []


def test_files_of_other_kinds_are_counted(folder):
    for name in ("a.pdf", "b.pdf", ".DS_Store"):
        (folder / "train" / "AMD" / name).write_bytes(b"x")
    assert read_data_set(folder).notes == ["Left out, as no images of a known kind: 2 .pdf."]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f / "val"), "no val"),
        (shutil.rmtree, "no train, val, test"),
        (lambda f: [shutil.rmtree(p) for p in (f / "test").iterdir()], "no image in test"),
        (lambda f: [shutil.rmtree(p) for c in ("AMD", "DME") for p in f.glob(f"*/{c}")],
         "only one class"),
    ],
)  # fmt: skip
def test_bad_layouts_are_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message):
        read_data_set(folder)


def test_which_data_sets(folder, tmp_path):
    write_data_set(tmp_path / "Duke", {"train": 6, "val": 6, "test": 6})
    (tmp_path / "notes").mkdir()
    assert [p.name for p in list_data_sets(tmp_path, [])] == ["Duke", "OCTID"]
    assert list_data_sets(tmp_path, ["OCTID"]) == [folder]
    with pytest.raises(InputError, match=r"got: +OCTDL\n.*one of Duke, OCTID"):
        list_data_sets(tmp_path, ["OCTID", "OCTDL"])
    with pytest.raises(InputError, match="No data set in"):
        list_data_sets(tmp_path / "notes", [])
    with pytest.raises(InputError, match="There is no folder"):
        list_data_sets(tmp_path / "nowhere", [])


def test_every_kind_of_single_image_is_taken(folder):
    amd = folder / "val" / "AMD"
    pixels = bscans(1)[0]
    write_dicom(amd / "P9001_OD.dcm", dicom(pixels))
    write_dicom(amd / "P9002_OD", dicom(pixels))
    np.save(amd / "P9003_OD.npy", pixels)
    np.savez(amd / "P9004_OD.npz", pixels)
    data = read_data_set(folder)
    assert data.notes == []
    added = [path for path in data.splits["val"].paths if path.name.startswith("P9")]
    assert len(added) == 4
    for path in added:
        np.testing.assert_allclose(read_bscan(path), pixels / 255, atol=1e-7)


@pytest.mark.parametrize("name", ["P9001_OD.dcm", "P9001_cube_40x3.img"])
def test_a_volume_in_a_class_folder_is_named_with_the_remedy(folder, name):
    path = folder / "val" / "AMD" / name
    if name.endswith(".dcm"):
        write_dicom(path, dicom(bscans(3)))
    else:
        write_img(path, as_deep(bscans(3)))
    assert path in read_data_set(folder).splits["val"].paths
    with pytest.raises(
        InputError, match=r"3 B-scans in one file[\s\S]*prepare_dataset\.py"
    ) as caught:
        read_bscan(path)
    assert str(path) in str(caught.value)
