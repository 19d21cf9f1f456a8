"""What lies on disk: files, columns, splits; reproducible, reused, and never mixed up."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.data.phantoms.__main__ import main
from retfiner.data.phantoms.cohort import make_cohort
from retfiner.data.phantoms.generate import write_pairs, write_phantoms, write_tasks
from retfiner.data.phantoms.preview import contact_sheet
from retfiner.data.phantoms.tasks import TASKS, make_task

SMALL = {"n_patients": 6, "images": (8, 4, 8), "seed": 0, "size": (64, 96)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "set", **SMALL)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_pairs_csv_has_its_columns_and_every_image(written):
    with (written / "pairs.csv").open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        rows = list(table)
        assert table.fieldnames == ["image", "report", "patient_id", "eye"]
    assert {row["image"] for row in rows} == {
        f"images/{path.name}" for path in (written / "images").iterdir()
    }
    for row in rows:
        image = Image.open(written / row["image"])
        assert (image.mode, image.size) == ("L", (96, 64))
        assert row["image"].startswith(f"images/{row['patient_id']}_{row['eye']}_v")
        assert row["report"].endswith(".")
    assert len({row["patient_id"] for row in rows}) == 6
    assert {row["eye"] for row in rows} == {"OD", "OS"}


def test_findings_json_gives_the_boxes_of_every_scan(written):
    places = json.loads((written / "findings.json").read_text(encoding="utf-8"))
    scans = {f"images/{scan.name}.png": scan for scan in make_cohort(6, seed=0)}
    assert places.keys() == scans.keys()
    for name, found in places.items():
        assert {entry["finding"] for entry in found} == scans[name].kinds
        for entry in found:
            row0, col0, row1, col1 = entry["box"]
            assert 0 <= row0 < row1 <= 64
            assert 0 <= col0 < col1 <= 96


def test_tasks_hold_every_class_in_every_split_and_keep_patients_apart(written):
    tasks = sorted(path.name for path in (written / "tasks").iterdir())
    assert tasks == sorted(TASKS)
    pairs = {path.stem.split("_")[0] for path in (written / "images").iterdir()}
    for task in tasks:
        patients = {}
        for split, total in (("train", 8), ("val", 4), ("test", 8)):
            files = list((written / "tasks" / task / split).glob("*/*.png"))
            counts = Counter(path.parent.name for path in files)
            assert set(counts) == set(TASKS[task][0])
            assert sum(counts.values()) == total
            assert max(counts.values()) - min(counts.values()) <= 1
            patients[split] = {path.stem.split("_")[0] for path in files}
        assert not patients["train"] & patients["test"]
        assert not patients["val"] & (patients["train"] | patients["test"])
        assert not pairs & set().union(*patients.values())


def test_files_depend_on_the_seed_alone_not_on_workers(written, tmp_path):
    assert digests(write_phantoms(tmp_path / "two", **SMALL, workers=2)) == digests(written)
    other = write_phantoms(tmp_path / "other", **SMALL | {"seed": 1})
    assert (other / "pairs.csv").read_bytes() != (written / "pairs.csv").read_bytes()


def test_a_larger_cohort_begins_with_the_smaller_one(tmp_path):
    few, more = make_cohort(5, seed=2), make_cohort(8, seed=2)
    assert more[: len(few)] == few
    write_pairs(tmp_path / "few", 2, seed=2, size=(64, 96))
    write_pairs(tmp_path / "more", 3, seed=2, size=(64, 96))
    smaller, larger = digests(tmp_path / "few"), digests(tmp_path / "more")
    images = [name for name in smaller if name.endswith(".png")]
    assert all(larger[name] == smaller[name] for name in images)


LABELS = {
    "AMD_stage": {
        "normal": (set(), {"drusen", "geographic_atrophy", "subretinal_fluid"}),
        "early_intermediate": ({"drusen"}, {"geographic_atrophy", "subretinal_fluid"}),
        "geographic_atrophy": ({"geographic_atrophy"}, {"subretinal_fluid"}),
    },
    "Fluid_type": {
        "none": (
            set(),
            {"intraretinal_fluid", "subretinal_fluid", "pigment_epithelial_detachment"},
        ),
        "intraretinal": (
            {"intraretinal_fluid"},
            {"subretinal_fluid", "pigment_epithelial_detachment"},
        ),
        "subretinal": (
            {"subretinal_fluid"},
            {"intraretinal_fluid", "pigment_epithelial_detachment"},
        ),
        "pigment_epithelial_detachment": (
            {"pigment_epithelial_detachment"},
            {"intraretinal_fluid", "subretinal_fluid"},
        ),
    },
    "Glaucoma": {
        "healthy": (set(), {"rnfl_thinning"}),
        "glaucoma": ({"rnfl_thinning"}, set()),
    },
    "Vitreomacular_interface": {
        "normal": (set(), {"epiretinal_membrane", "vitreomacular_traction", "macular_hole"}),
        "epiretinal_membrane": (
            {"epiretinal_membrane"},
            {"vitreomacular_traction", "macular_hole"},
        ),
        "traction": ({"vitreomacular_traction"}, {"epiretinal_membrane", "macular_hole"}),
        "macular_hole": ({"macular_hole"}, {"epiretinal_membrane", "vitreomacular_traction"}),
    },
}
NEOVASCULAR = {
    "subretinal_fluid",
    "intraretinal_fluid",
    "pigment_epithelial_detachment",
    "subretinal_hyperreflective_material",
}


@pytest.mark.parametrize("task", TASKS)
def test_labels_are_true_and_company_is_kept(task):
    labelled = make_task(task, 240, seed=1)
    accompanied = set()
    for label, scan in labelled:
        if label == "neovascular":
            assert len(scan.kinds & NEOVASCULAR) >= 2
        else:
            present, absent = LABELS[task][label]
            assert present <= scan.kinds
            assert not absent & scan.kinds
            if scan.kinds - present:
                accompanied.add(label)
            if task == "AMD_stage":
                assert not NEOVASCULAR & scan.kinds
    assert accompanied == set(LABELS[task])
    severities = [scan.findings[0].severity for _, scan in labelled if scan.findings]
    assert np.mean(np.array(severities) < 0.35) > 0.15  # mild cases in every task


def test_no_task_is_told_by_brightness_alone(tmp_path):
    """Classes of a subtle task share the distribution of mean grey value."""
    write_tasks(tmp_path, (40, 4, 4), seed=3, size=(64, 96))
    for task in ("Glaucoma", "Fluid_type"):
        means = {
            folder.name: [np.asarray(Image.open(path)).mean() for path in folder.iterdir()]
            for folder in (tmp_path / task / "train").iterdir()
        }
        spread = np.mean([np.std(values) for values in means.values()])
        assert np.ptp([np.mean(values) for values in means.values()]) < 1.5 * spread


def test_a_complete_folder_of_the_same_settings_is_reused(written):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    assert write_phantoms(written, **SMALL) == written
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_other_settings_are_refused_naming_both(written):
    with pytest.raises(InputError, match=r'(?s)"seed": 7.*"seed": 0'):
        write_phantoms(written, **SMALL | {"seed": 7})


def test_a_half_written_folder_is_rebuilt(written, tmp_path):
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "P9999_OD_v1.png").write_bytes(b"half")
    (folder / "phantoms.unfinished.json").write_text("{}")
    assert digests(write_phantoms(folder, **SMALL)) == digests(written)


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="other files"):
        write_phantoms(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "wrong",
    [{"n_patients": 0}, {"seed": -1}, {"size": (8, 8)}, {"images": (8, 2, 8)}, {"workers": -1}],
)
def test_settings_out_of_range_are_refused_before_anything_is_written(wrong, tmp_path):
    with pytest.raises(InputError):
        write_phantoms(tmp_path / "set", **SMALL | wrong)
    assert not (tmp_path / "set").exists()


def test_command_line_writes_everything_and_a_preview(tmp_path, capsys):
    arguments = f"--output {tmp_path}/set --patients 2 --train 4 --val 4 --test 4 --workers 1"
    main([*arguments.split(), "--height=64", "--width=96", f"--preview={tmp_path}/sheet.png"])
    assert str(tmp_path / "set") in capsys.readouterr().out
    assert (tmp_path / "set" / "phantoms.json").is_file()
    assert Image.open(tmp_path / "sheet.png").size == (96 * 4, 64 * 11)


def test_contact_sheet_shows_every_finding(tmp_path):
    sheet = np.asarray(Image.open(contact_sheet(tmp_path / "sheet.png", size=(128, 192))))
    rows = sheet.reshape(11, 128, -1)
    assert (rows.std(axis=(1, 2)) > 10).all()
