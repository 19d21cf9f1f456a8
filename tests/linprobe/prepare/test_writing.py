"""Images are written alike by one process and by several, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from linprobe.prepare.volumes import read_gray
from linprobe.prepare.writing import Job, Written, check_target, write_images
from linprobe.prepare.writing import write_png as write_job
from retfiner.common.errors import InputError
from tests.helpers.disk import no_file_larger_than


def pixels(seed, shape=(40, 60)):
    return np.random.default_rng(seed).integers(0, 240, shape, dtype=np.uint8)


def constant(path):
    """Read a B-scan; numpy alone is loaded in another process for it."""
    return partial(np.load, path)


def jobs_for(folder, count):
    folder.mkdir()
    jobs = []
    for index in range(count):
        path = folder / f"{index}.npy"
        np.save(path, pixels(index))
        jobs.append(Job(f"train/{'AB'[index % 2]}/{index}.png", path.name, constant(path)))
    return jobs


def write_png(path, *, read, source, zero_borders=False) -> Written:
    return write_job(Job(path.name, source, read), path.parent, zero_borders=zero_borders)


def test_a_png_holds_the_gray_values_and_its_hashes_are_true(tmp_path):
    image = pixels(0)
    written = write_png(tmp_path / "a.png", read=lambda: image, zero_borders=False, source="a.tif")
    with Image.open(tmp_path / "a.png") as found:
        assert found.mode == "L"
        assert (np.asarray(found) == image).all()
    assert written.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert written.pixels_sha256 == hashlib.sha256(b"40 60 " + image.tobytes()).hexdigest()
    turned = np.asfortranarray(image)
    again = write_png(tmp_path / "b.png", read=lambda: turned, zero_borders=False, source="a.tif")
    assert again == written, "how an array lies in memory does not matter"


def test_borders_are_zeroed_only_on_request(tmp_path):
    image = pixels(0)
    image[:10] = 255
    kept = write_png(tmp_path / "a.png", read=lambda: image, zero_borders=False, source="a")
    gone = write_png(tmp_path / "b.png", read=lambda: image, zero_borders=True, source="a")
    assert (kept.border, gone.border) == (0, pytest.approx(0.25, abs=0.05))
    assert (np.asarray(Image.open(tmp_path / "a.png"))[:10] == 255).all()
    assert (np.asarray(Image.open(tmp_path / "b.png"))[:10] == 0).all()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_bscan_is_named(tmp_path, image):
    with pytest.raises(InputError, match=r"vol\.mat#3 is no B-scan"):
        write_png(tmp_path / "a.png", read=lambda: image, zero_borders=False, source="vol.mat#3")


def test_several_processes_write_what_one_does_in_the_same_order(tmp_path):
    jobs = jobs_for(tmp_path / "in", 40)
    np.save(tmp_path / "in" / "0.npy", pixels(0, (2000, 2000)))  # the first chunk is done last
    one = write_images(jobs, tmp_path / "one", 1, zero_borders=False)
    two = write_images(jobs, tmp_path / "two", 2, zero_borders=False)
    assert one == two
    assert len({result.sha256 for result in one}) == 40
    for job in jobs:
        assert (tmp_path / "one" / job.image).read_bytes() == (
            tmp_path / "two" / job.image
        ).read_bytes()


def test_an_error_in_another_process_says_what_it_says_in_this_one(tmp_path):
    jobs = jobs_for(tmp_path / "in", 30)
    jobs[17] = Job("train/A/x.png", "absent", partial(read_gray, tmp_path / "absent.png"))
    said = []
    for workers in (1, 2):
        with pytest.raises(InputError, match=r"absent\.png") as caught:
            write_images(jobs, tmp_path / f"out{workers}", workers, zero_borders=False)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_process_that_is_ended_from_outside_is_an_error_in_plain_words(tmp_path):
    jobs = jobs_for(tmp_path / "in", 20)
    jobs[5] = Job("train/A/x.png", "x", partial(os._exit, 9))
    with pytest.raises(InputError, match=r"(?s)ended from outside.*--num_workers"):
        write_images(jobs, tmp_path / "out", 2, zero_borders=False)


def test_a_full_disk_is_said(tmp_path):
    with (
        pytest.raises(InputError, match=r"(?s)a\.png cannot be written.*whether the disk is full"),
        no_file_larger_than(200),
    ):
        write_png(tmp_path / "a.png", read=lambda: pixels(0), zero_borders=False, source="a.tif")


def write_set(folder, value):
    for split in ("train", "val", "test"):
        (folder / split / "A").mkdir(parents=True)
        (folder / split / "A" / "a.png").write_text(value)
    return folder


def test_what_may_be_replaced_and_what_not(tmp_path):
    target = tmp_path / "OCTID"
    check_target(target, [tmp_path / "a.zip"], overwrite=False)
    write_set(target, "old")
    check_target(target, [tmp_path / "a.zip"], overwrite=True)
    with pytest.raises(InputError, match="--overwrite"):
        check_target(target, [tmp_path / "a.zip"], overwrite=False)
    shutil.rmtree(target)
    target.mkdir()
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"(?s)is no data set.*thesis\.tex"):
        check_target(target, [tmp_path / "a.zip"], overwrite=True)
    elsewhere = write_set(tmp_path / "elsewhere", "old")
    (tmp_path / "OCTDL").symlink_to(elsewhere)
    with pytest.raises(InputError, match="a link"):
        check_target(tmp_path / "OCTDL", [tmp_path / "a.zip"], overwrite=True)


@pytest.mark.parametrize("source", [".", "data", "data/OCTID", "data/OCTID/train"])
def test_output_and_source_within_each_other_are_refused(tmp_path, source):
    with pytest.raises(InputError, match="lie within each other"):
        check_target(tmp_path / "data" / "OCTID", [tmp_path / source], overwrite=True)
    check_target(tmp_path / "data" / "OCTID", [tmp_path / "data2"], overwrite=True)
