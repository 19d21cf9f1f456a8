"""Duke iAMD: MATLAB volumes, the central B-scan of each."""

from __future__ import annotations

import numpy as np
import pytest

from linprobe.prepare import volumes
from linprobe.prepare.duke_iamd import SPEC
from linprobe.prepare.spec import Options
from retfiner.common.errors import InputError
from tests.helpers.downloads import pattern, stack, write_duke, write_duke_volume
from tests.linprobe.prepare.sets.common import ALL, CENTRAL, by_name, patients_by_label, shows, told

list_bscans = SPEC.list_bscans


def test_the_central_bscan_of_each_volume_with_class_and_subject(tmp_path):
    listing = list_bscans(write_duke(tmp_path), CENTRAL)
    found = by_name(listing)
    assert list(found) == ["AMD_1001", "AMD_1002", "Control_1001", "Control_1002"]
    for v, bscan in enumerate(found.values()):
        assert bscan.label == bscan.name.partition("_")[0]
        assert shows(bscan, 100 * v + 3)
        assert bscan.source.endswith(".mat#3")
    assert told(listing, "volumes", "AMD 2", "published: AMD 269, Control 115")


def test_a_subject_number_in_both_classes_is_two_patients(tmp_path):
    listing = list_bscans(write_duke(tmp_path), CENTRAL)
    patients = patients_by_label(listing)
    assert patients == {
        "AMD": {"AMD_1001", "AMD_1002"},
        "Control": {"Control_1001", "Control_1002"},
    }


def test_of_a_hundred_bscans_the_central_one_is_50(tmp_path):
    for label in ("AMD", "Control"):
        write_duke_volume(tmp_path, label, 1001, stack(range(100), 2, (4, 5)))
    bscan = list_bscans(tmp_path, CENTRAL).bscans[0]
    assert bscan.source.endswith("#50")
    np.testing.assert_array_equal(bscan.read(), pattern(50, (4, 5)))


def test_all_bscans_in_order_unpack_each_volume_once(tmp_path):
    found = list_bscans(write_duke(tmp_path), ALL).bscans
    assert len(found) == 4 * 7
    volumes.read_array.cache_clear()
    assert all(shows(bscan, 100 * (i // 7) + i % 7) for i, bscan in enumerate(found))
    assert volumes.read_array.cache_info().misses == 4
    assert volumes.read_array.cache_info().currsize == 1


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    bscan = list_bscans(write_duke(tmp_path), CENTRAL).bscans[0]
    assert shows(bscan, 3)
    write_duke_volume(tmp_path, "AMD", 1001, stack(range(500, 520), 2))
    assert shows(bscan, 503)


def test_files_without_class_folders_and_of_other_case(tmp_path):
    volume = stack(range(3), 2)
    write_duke_volume(tmp_path, "AMD", 1001, volume, around="")
    path = write_duke_volume(tmp_path, "Control", 1001, volume, around="")
    path.rename(path.with_name(path.name.lower()))
    assert {bscan.label for bscan in list_bscans(tmp_path, CENTRAL).bscans} == {"AMD", "Control"}


@pytest.mark.parametrize("dtype", [np.float64, np.uint16, np.int16])
def test_whole_numbers_of_other_types_are_taken(tmp_path, dtype):
    for label in ("AMD", "Control"):
        write_duke_volume(tmp_path, label, 1001, stack(range(3), 2).astype(dtype))
    assert shows(list_bscans(tmp_path, CENTRAL).bscans[0], 1)


@pytest.mark.parametrize("value", [300.0, -1.0, 12.5, np.nan])
def test_values_that_are_no_gray_values_are_refused(tmp_path, value):
    volume = stack(range(3), 2).astype(np.float64)
    volume[2, 2, 1] = value
    for label in ("AMD", "Control"):
        write_duke_volume(tmp_path, label, 1001, volume)
    bscan = list_bscans(tmp_path, CENTRAL).bscans[0]
    with pytest.raises(InputError, match=r"AMD_Subject_1001\.mat.*no 8-bit gray"):
        bscan.read()


def test_a_file_of_version_7_3_is_explained(tmp_path):
    write_duke(tmp_path)
    path = tmp_path / "AMD" / "Farsiu_Ophthalmology_2013_AMD_Subject_1003.mat"
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124)
    path.write_bytes(head + b"\x00\x02IM" + bytes(512))
    with pytest.raises(InputError, match=r"1003\.mat.*version 7\.3") as caught:
        list_bscans(tmp_path, CENTRAL)
    assert "-v7" in str(caught.value)


@pytest.mark.parametrize("cut", [0, 60, 300])
def test_a_file_that_was_cut_is_named(tmp_path, cut):
    path = write_duke(tmp_path) / "AMD" / "Farsiu_Ophthalmology_2013_AMD_Subject_1001.mat"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"Subject_1001\.mat"):
        list_bscans(tmp_path, CENTRAL).bscans[0].read()


def test_an_absent_class_an_index_too_large_and_a_wrong_folder(tmp_path):
    write_duke(tmp_path / "a")
    with pytest.raises(InputError, match=r"no B-scan 7\b"):
        list_bscans(tmp_path / "a", Options(bscan=7))
    write_duke_volume(tmp_path / "b", "AMD", 1001, stack(range(3), 2))
    with pytest.raises(InputError, match="Nothing of Control"):
        list_bscans(tmp_path / "b", CENTRAL)
