"""Volumes whose findings extend over neighbouring B-scans, with one report an eye."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from retfiner.common.errors import InputError
from retfiner.data.manifest import read_splits
from retfiner.data.pair_table import Columns
from retfiner.data.phantoms.cohort import make_exams
from retfiner.data.phantoms.generate import heights_um, write_exams, write_phantoms
from retfiner.data.phantoms.scene import Anatomy, Finding, Scan

SIZE = (64, 96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exams")
    write_exams(folder, 30, 11, size=SIZE)
    return folder


def test_findings_lie_on_neighbouring_bscans_and_many_off_the_centre(folder):
    places = json.loads((folder / "exams.json").read_text())
    shown = [finding["slices"] for exam in places.values() for finding in exam]
    assert shown
    for slices in filter(None, shown):
        assert slices == list(range(slices[0], slices[-1] + 1))
    assert sum(5 not in slices for slices in shown) > 0.3 * len(shown)
    assert max(map(len, shown)) > 3


def test_a_report_names_the_place(folder):
    with (folder / "exams.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = json.loads((folder / "exams.json").read_text())
    words = {row["exam"]: row["report"].lower() for row in rows}
    named = 0
    for exam, findings in places.items():
        heights = [f["y_um"] for f in findings]
        for word, low, high in (("super", 600, 9999), ("infer", -9999, -600)):
            if word in words[exam].replace("inferred", ""):
                named += 1
                assert any(low <= y <= high for y in heights), (exam, words[exam])
    assert named > 5


def test_training_reads_them_without_listing_bscans(folder):
    tables = read_splits(folder / "exams.csv", None, columns=Columns(group="exam"))
    exams = [exam for table in tables for exam in table.exams]
    assert {len(exam) for exam in exams} == {11}
    assert {exam.place(0).eye for exam in exams} <= {"OD", "OS"}


def test_a_finding_tapers_off_and_a_normal_scan_is_as_before():
    finding = Finding("drusen", 0.8, 0.0, 1, y_um=1000.0)
    scan = Scan("P1", "OD", 1, Anatomy(1), (finding,))
    seen = [scan.at(y).findings for y in heights_um(25)]
    severities = [f[0].severity if f else 0.0 for f in seen]
    top = int(np.argmax(severities))
    assert heights_um(25)[top] == 1000 and severities[top] == 0.8
    assert severities[0] == 0.0
    assert sorted(severities[top:], reverse=True) == severities[top:]
    central = Scan("P1", "OD", 1, Anatomy(1), (Finding("drusen", 0.5, 0.0, 1),))
    assert central.at(0.0) == central


def test_everything_follows_from_the_seed(folder, tmp_path):
    write_exams(tmp_path, 30, 11, size=SIZE)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes()
    assert make_exams(30, 1, 2000) != make_exams(30, 0, 2000)


def test_exams_come_beside_pairs_and_tasks(tmp_path):
    write_phantoms(tmp_path / "a", 2, (4, 4, 4), size=SIZE, exams=3)
    assert len(list((tmp_path / "a" / "volumes").glob("*.npz"))) >= 2
    write_phantoms(tmp_path / "a", 2, (4, 4, 4), size=SIZE, exams=3)
    with pytest.raises(InputError, match="other settings"):
        write_phantoms(tmp_path / "a", 2, (4, 4, 4), size=SIZE)
    with pytest.raises(InputError, match="B-scans of a volume"):
        write_phantoms(tmp_path / "b", 2, (4, 4, 4), size=SIZE, exams=-1)
