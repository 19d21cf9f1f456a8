"""Reports and patients stay in the table they came from: no file that is written has them.

What a run writes holds image paths in messages about images that cannot be read, by row; and a
vocabulary learned from reports is made of their words, which is what it is for.
"""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from linprobe.datasets import read_data_set
from retfiner.common.errors import InputError
from retfiner.data.manifest import read_manifest
from retfiner.export.extract import ExtractConfig, extract
from retfiner.refine import refine
from tests.helpers.refinement import damage_in_the_middle, make_material, settings

REPORT, PATIENT, IMAGE = "zzreportsecret", "zzpatientsecret", "zzimagesecret"


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Material whose reports, patients and image names carry words found nowhere else."""
    made = make_material(tmp_path_factory.mktemp("material"), pairs=24, patients=12)
    rows = list(csv.DictReader(io.StringIO(made.csv.read_text(encoding="utf-8"))))
    with made.csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "report", "patient_id"])
        for k, row in enumerate(rows):
            old = made.csv.parent / row["image"]
            new = old.with_name(f"{IMAGE}{k}{old.suffix}")
            old.rename(new)
            writer.writerow(
                [f"images/{new.name}", f"{row['report']} {REPORT}{k}", f"{PATIENT}{k % 12}"]
            )
    return made


def contents(path: Path):
    """Give a file's bytes and, where it is an archive, those of its members."""
    content = path.read_bytes()
    yield content
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield archive.read(name)


def found_in(content: bytes, word: str) -> bool:
    plain = content.lower()
    return any(word.encode(code) in plain for code in ("utf-8", "utf-16-le", "utf-16-be"))


def leaks(folder: Path, *words: str) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        f"{word} in {path.relative_to(folder)}"
        for path in files
        for word in words
        for content in (*contents(path), path.name.encode())
        if found_in(content, word)
    ]


def test_the_search_finds_what_is_there(tmp_path, material):
    """The other tests would prove nothing if it did not."""
    torch.save({"a": [f"x {REPORT} y"]}, tmp_path / "a.ckpt")
    np.savez_compressed(tmp_path / "a.npz", names=np.array([PATIENT]))
    assert len(leaks(tmp_path, REPORT, PATIENT)) == 2
    assert leaks(material.csv.parent, REPORT, PATIENT, IMAGE)


def test_a_run_writes_neither_reports_nor_patients_nor_image_names(tmp_path, material, capfd):
    result = refine(settings(material, tmp_path / "models", checkpoint_every_n_steps=1))
    extract(
        ExtractConfig(path_to_model=result.folder / "best-model.ckpt", output=tmp_path / "o.pth")
    )
    written = {path.name for path in result.folder.rglob("*") if path.is_file()}
    assert {"best-model.ckpt", "last.ckpt", "config.yaml", "metrics.csv", "curves.png"} <= written
    assert any("tfevents" in name for name in written)
    assert leaks(tmp_path, REPORT, PATIENT, IMAGE) == []
    told = "".join(capfd.readouterr()).lower()
    assert "pairs:" in told
    assert not [word for word in (REPORT, PATIENT, IMAGE) if word in told]


@pytest.mark.slow
def test_a_row_that_is_left_out_is_told_by_row_and_image(tmp_path, material, capfd):
    """Also in the checkpoints: what was left out is said on the terminal alone."""
    broken = sorted((material.csv.parent / "images").glob("*.png"))[3]
    sound = broken.read_bytes()
    damage_in_the_middle(broken)
    try:
        config = settings(material, tmp_path / "models", on_bad_row="skip", max_epochs=1)
        refine(config)
        told = "".join(capfd.readouterr())
        assert "left out" in told
        assert broken.name in told
        assert REPORT not in told and PATIENT not in told
        assert leaks(tmp_path, REPORT, PATIENT, IMAGE) == []
        with pytest.raises(InputError, match=broken.name) as caught:
            refine(settings(material, tmp_path / "failing", num_workers=1))
        told = "".join(capfd.readouterr()) + str(caught.value)
        assert REPORT not in told and PATIENT not in told
        assert leaks(tmp_path, REPORT, PATIENT, IMAGE) == []
    finally:
        broken.write_bytes(sound)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{IMAGE}.png,{REPORT},{PATIENT}\n", "3 fields"),  # no header: the first line is a row
        (f"{IMAGE}.png;{REPORT};{PATIENT}\n", "the first line is a pair and no header"),
        (f'image,report,patient_id\na.png,{REPORT},"{PATIENT}\n', "not a well-formed CSV"),
        (f"image,report,patient_id\na.png,{REPORT}, more,{PATIENT}\n", "4 fields"),
        (f"image,report,patient_id\n,{REPORT},{PATIENT}\n", "no image named"),
        (f"image,report,patient_id,slice\na.vol,{REPORT},{PATIENT},x\n", "the slice is"),
        (f"image,report,patient_id\na.png,{REPORT},{PATIENT}\n", "there is no file"),
        (f"image,report,patient_id\na.png,{REPORT},{PATIENT}ä\n".encode("latin1"), "not UTF-8"),
    ],
)
def test_errors_about_tables_show_no_cell(tmp_path, text, told):
    path = tmp_path / "pairs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=told) as caught:
        read_manifest(path)
    assert REPORT not in str(caught.value)
    assert PATIENT not in str(caught.value)


def test_patients_on_both_sides_are_told_by_row(tmp_path, material):
    with pytest.raises(InputError, match="both sides") as caught:
        refine(settings(material, tmp_path, val_csv=material.csv))
    assert PATIENT not in str(caught.value)


def test_notes_of_a_data_set_count_patients_and_do_not_name_them(tmp_path):
    from tests.helpers.refinement import write_image

    rows = ["image,patient"]
    for split in ("train", "val", "test"):
        for k, label in enumerate(("A", "B")):
            write_image(tmp_path / split / label / "a.png", k)
            rows.append(f"{split}/{label}/a.png,{PATIENT}")
    (tmp_path / "split.csv").write_text("\n".join(rows) + "\n")
    notes = " ".join(read_data_set(tmp_path).notes)
    assert "1 patients are in both train and val" in notes
    assert PATIENT not in notes
