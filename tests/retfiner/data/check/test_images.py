"""What is found out about real image files, in one process and in several."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from retfiner.data.check.images import look_at, read_images
from retfiner.vision.images import ImageAddress
from tests.helpers.refinement import damage_in_the_middle, write_image


def save(path, values):
    Image.fromarray(np.asarray(values)).save(path)
    return ImageAddress(path)


def test_the_numbers_of_an_image(tmp_path):
    values = np.full((20, 30), 51, dtype=np.uint8)
    values[:5] = 255
    values[5] = 0
    address = save(tmp_path / "a.png", values)
    fact = look_at(address, "full")
    assert fact.reason is None
    assert fact.size == (20, 30)
    assert fact.sha256 == hashlib.sha256(address.path.read_bytes()).hexdigest()
    assert fact.intensity.minimum == 0
    assert fact.intensity.maximum == 1
    assert fact.intensity.mean == pytest.approx((5 * 1.0 + 14 * 0.2) / 20, abs=1e-6)
    assert fact.intensity.saturated == pytest.approx(0.25)


def test_pixels_tell_copies_that_bytes_do_not(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    one = look_at(save(tmp_path / "a.png", values), "full")
    two = look_at(save(tmp_path / "a.bmp", values), "full")
    other = look_at(save(tmp_path / "b.png", values[::-1]), "full")
    turned = look_at(save(tmp_path / "c.png", values.reshape(30, 20)), "full")
    assert one.sha256 != two.sha256
    assert one.identity == two.identity
    assert len({one.identity, other.identity, turned.identity}) == 3


def test_damage_is_found_by_decoding_alone(tmp_path):
    write_image(tmp_path / "a.png", 1)
    damage_in_the_middle(tmp_path / "a.png")
    address = ImageAddress(tmp_path / "a.png")
    assert "a.png cannot be used" in look_at(address, "full").reason
    glance = look_at(address, "header")
    assert (glance.reason, glance.size, glance.pixels, glance.intensity) == (
        None,
        (40, 48),
        None,
        None,
    )


@pytest.mark.parametrize("decode", ["full", "header"])
def test_what_is_no_image_is_named(tmp_path, decode):
    write_image(tmp_path / "cut.jpg", 1)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-40])
    (tmp_path / "page.png").write_text("<html>")
    reasons = {"cut.jpg": "cut.jpg", "page.png": "is no image", "none.png": "there is no file"}
    for name, reason in reasons.items():
        assert reason in look_at(ImageAddress(tmp_path / name), decode).reason


def test_slices_of_a_volume_are_images_of_their_own(tmp_path):
    volume = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    volume[2] = volume[0]
    Image.fromarray(volume[0]).save(
        tmp_path / "v.tif", save_all=True, append_images=[Image.fromarray(v) for v in volume[1:]]
    )
    addresses = [ImageAddress(tmp_path / "v.tif", index) for index in (0, 1, 2, 3)]
    first, second, third, absent = read_images(addresses, "full", 0).values()
    assert first.identity == third.identity != second.identity
    assert "3" in absent.reason
    glances = read_images(addresses[:3], "header", 0).values()
    assert len({fact.identity for fact in glances}) == 3


def test_processes_find_the_same_and_read_each_image_once(tmp_path):
    addresses = []
    for index in range(40):
        write_image(tmp_path / f"{index}.png", index)
        addresses.append(ImageAddress(tmp_path / f"{index}.png"))
    damage_in_the_middle(tmp_path / "7.png")
    here = read_images(addresses * 2, "full", 0)
    there = read_images(addresses, "full", 2)
    assert list(here) == addresses
    assert here == there
    assert [a.path.name for a, fact in there.items() if fact.reason] == ["7.png"]
