"""Masks lie where the findings were drawn, and belong to the very pictures in the folder."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.data.phantoms.cohort import make_cohort, stream
from retfiner.data.phantoms.generate import write_phantoms
from retfiner.data.phantoms.masks import masks_of, masks_of_pairs
from retfiner.data.phantoms.optics import draw
from retfiner.data.phantoms.scene import FIELD_DEPTH_UM, KINDS, Anatomy, Finding, Scan


def drawn(kind, severity=0.8, position=300.0, eye="OD"):
    subtype = "serous" if kind == "pigment_epithelial_detachment" else ""
    finding = Finding(kind, severity, position, 11, subtype)
    scan = Scan("P1", eye, 1, Anatomy(seed=5), (finding,))
    return scan, draw(scan, stream(0, 1))


@pytest.mark.parametrize("severity", [0.2, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_lies_within_the_findings_box_and_fills_part_of_it(kind, severity):
    scan, drawing = drawn(kind, severity)
    [(_, (row0, col0, row1, col1))] = drawing.boxes
    mask = masks_of(scan, drawing)[kind]
    rows, columns = np.nonzero(mask)
    assert mask.shape == drawing.image.shape
    is_atrophy = kind == "geographic_atrophy"
    row_um = FIELD_DEPTH_UM / drawing.image.shape[0]
    below = 300 / row_um if is_atrophy else 4  # hypertransmission reaches into the choroid
    assert row0 - 4 <= rows.min() and rows.max() < row1 + below
    assert col0 - 10 <= columns.min() and columns.max() < col1 + 10
    assert 0.05 < mask.sum() / ((row1 - row0) * (col1 - col0)) < (4 if is_atrophy else 1.2)


@pytest.mark.parametrize("kind", ["intraretinal_fluid", "subretinal_fluid", "macular_hole"])
def test_fluid_and_holes_are_dark_within_bright_around(kind):
    scan, drawing = drawn(kind)
    mask = masks_of(scan, drawing)[kind]
    columns = mask.any(0)
    tissue = np.zeros_like(mask)
    for column in np.nonzero(columns)[0]:
        top, bottom = drawing.surfaces[1, column], drawing.surfaces[15, column]
        tissue[int(top) : int(bottom), column] = True
    inside, outside = drawing.image[mask], drawing.image[tissue & ~mask]
    assert inside.mean() < 0.6 * outside.mean()


def test_a_detachment_is_mirrored_in_the_other_eye():
    centres = []
    for eye in ("OD", "OS"):
        scan, drawing = drawn("pigment_epithelial_detachment", position=900.0, eye=eye)
        [mask] = masks_of(scan, drawing).values()
        centres.append(np.nonzero(mask)[1].mean() / mask.shape[1] - 0.5)
    assert centres[0] > 0.05 and centres[1] < -0.05, "nasal is right in OD, left in OS"


def test_masks_of_a_folder(tmp_path):
    folder = write_phantoms(tmp_path / "set", 5, (8, 4, 8), seed=3, size=(64, 96))
    scans = {f"images/{scan.name}.png": scan for scan in make_cohort(5, 3)}
    found = {masked.name: masked.masks for masked in masks_of_pairs(folder)}
    assert found.keys() == scans.keys()
    for name, masks in found.items():
        assert masks.keys() <= scans[name].kinds
    assert sum(len(masks) for masks in found.values()) > 5
    some = list(found)[:2]
    assert [masked.name for masked in masks_of_pairs(folder, set(some))] == some

    changed = folder / some[0]
    Image.fromarray(255 - np.asarray(Image.open(changed))).save(changed)
    with pytest.raises(InputError, match="not the phantom"):
        list(masks_of_pairs(folder))


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no phantoms"):
        list(masks_of_pairs(tmp_path))
