"""Which reports and which images count as identical."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from retfiner.data.batch import Collate, identify_reports
from retfiner.data.pairs import NumberedPairs
from retfiner.text.tokenizer import load_tokenizer
from retfiner.vision.images import ImageAddress
from tests.helpers.refinement import report_of, write_text_encoder

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_text_encoder(tmp_path_factory.mktemp("bert") / "bert")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def collated(tokenizer, items, addresses=None, max_tokens=30):
    pairs = NumberedPairs(items, addresses=addresses)
    return Collate(tokenizer, max_tokens, SHAPE)([pairs[i] for i in range(len(items))]).batch


def image(seed=0):
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "other", ["no fluid.", "NO FLUID.", "  No   fluid. ", "No\tfluid.\n", "No\u00a0fluid."]
)
def test_what_the_text_encoder_does_not_see_does_not_count(tokenizer, other):
    first, second = identify_reports(tokenizer, ["No fluid.", other], 30)
    assert first == second


@pytest.mark.parametrize("other", ["No fluids.", "No fluid", "fluid. No", "Nofluid.", ""])
def test_everything_else_counts(tokenizer, other):
    first, second = identify_reports(tokenizer, ["No fluid.", other], 30)
    assert first != second


def test_reports_that_are_the_same_after_the_cut_are_one(tokenizer):
    reports = ["drusen in the fovea", "drusen in the fovea, scan 3", "drusen nasal"]
    pieces = len(tokenizer(reports[0])["input_ids"])
    cut, whole = (identify_reports(tokenizer, reports, most).tolist() for most in (pieces, None))
    assert cut[0] == cut[1] != cut[2]
    assert len(set(whole)) == 3
    assert len(set(identify_reports(tokenizer, reports, 30).tolist())) == 3


def test_a_batch_identifies_as_a_table_does_whatever_it_is_padded_to(tokenizer):
    reports = [report_of(i) for i in (0, 1, 2, 15)] + ["drusen"]
    items = [(image(), report) for report in reports]
    expected = identify_reports(tokenizer, reports, 9)
    assert torch.equal(collated(tokenizer, items, max_tokens=9).report_ids, expected)
    assert torch.equal(collated(tokenizer, items[:2], max_tokens=9).report_ids, expected[:2])


def test_numbers_are_nonnegative_and_do_not_collide(tokenizer):
    words = sorted(piece for piece in tokenizer.get_vocab() if piece.isalpha())[:12]
    reports = [" ".join(chosen) for chosen in itertools.product(words, repeat=4)]
    ids = identify_reports(tokenizer, reports[:20_000], 30)
    assert ids.dtype == torch.int64 and (ids >= 0).all()
    assert ids.unique().numel() == 20_000


def test_another_process_gives_the_same_number(folder, tokenizer):
    code = (
        "from retfiner.data.batch import identify_reports;"
        "from retfiner.text.tokenizer import load_tokenizer;"
        f"print(int(identify_reports(load_tokenizer({str(folder)!r}), ['No fluid'], 30)[0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) == int(identify_reports(tokenizer, ["No fluid"], 30)[0])


def test_images_are_the_same_by_where_they_lie(tokenizer, tmp_path):
    scan = tmp_path / "scan.e2e"
    addresses = [ImageAddress(scan, 3), ImageAddress(scan, 4), ImageAddress(scan, 3)]
    items = [(image(), f"scan {i}") for i in range(3)]
    ids = collated(tokenizer, items, addresses).image_ids.tolist()
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_images_of_a_class_are_the_same_by_their_pixels(tokenizer, kind):
    images = [image(0), image(1), image(0).clone()]
    items = [(x.to(kind), f"scan {i}") for i, x in enumerate(images)]
    ids = collated(tokenizer, items).image_ids.tolist()
    assert ids[0] == ids[2] != ids[1]
