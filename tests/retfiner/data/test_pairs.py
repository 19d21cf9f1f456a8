"""Items, batches and their order."""

import pickle
import re

import pytest
import torch

from retfiner.common.errors import InputError
from retfiner.data.batch import Collate
from retfiner.data.manifest import read_manifest
from retfiner.data.pairs import ImageCaptionDataset, NumberedPairs
from retfiner.data.sampler import BalancedBatchSampler
from retfiner.text.tokenizer import load_tokenizer
from retfiner.vision import BACKBONES, evaluation_transform, read_image
from tests.helpers.refinement import (
    damage_in_the_middle,
    report_of,
    write_pairs,
    write_text_encoder,
)

SHAPE = (3, 224, 224)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_text_encoder(tmp_path_factory.mktemp("bert") / "bert"))


def dataset(folder, pairs=6, damaged=()):
    manifest = read_manifest(write_pairs(folder, pairs, patients=3))
    for index in damaged:
        damage_in_the_middle(manifest.images[index].path)
    return ImageCaptionDataset(manifest, evaluation_transform(BACKBONES["RETFound"]))


def numbered(pairs):
    return NumberedPairs(pairs, pairs.manifest.rows)


def test_an_item_is_image_tensor_and_report(tmp_path):
    pairs = dataset(tmp_path)
    image, report = pairs[3]
    assert (len(pairs), report) == (6, report_of(3))
    expected = pairs.transform(read_image(tmp_path / "images" / "scan_003.jpg"))
    assert tuple(image.shape) == SHAPE
    assert torch.equal(image, expected)


def test_an_image_that_cannot_be_decoded_is_named_by_row_and_path(tmp_path):
    pairs = dataset(tmp_path, damaged=[2])
    with pytest.raises(InputError, match=r"row 4 of .*pairs\.csv: .*scan_002\.png") as caught:
        pairs[2]
    assert "--on_bad_row skip" in str(caught.value)


def test_numbers_are_the_rows_of_the_table_or_else_positions(tmp_path):
    pairs = dataset(tmp_path, damaged=[2])
    assert [item.row for item in map(numbered(pairs).__getitem__, range(6))] == [2, 3, 4, 5, 6, 7]
    assert NumberedPairs(pairs)[5].row == 5
    assert isinstance(numbered(pairs)[2].item, InputError)


def test_a_batch_has_all_that_a_step_needs(tmp_path, tokenizer):
    pairs = numbered(dataset(tmp_path))
    batch, left_out = Collate(tokenizer, 30, SHAPE)([pairs[i] for i in (4, 0, 3)])
    assert left_out == []
    assert torch.equal(batch.images, torch.stack([pairs[i].item[0] for i in (4, 0, 3)]))
    assert batch.rows.tolist() == [6, 2, 5]
    for ids, mask, length, index in zip(
        batch.input_ids, batch.attention_mask, batch.lengths, (4, 0, 3), strict=True
    ):
        expected = tokenizer(report_of(index))["input_ids"]
        assert ids[:length].tolist() == expected
        assert mask.tolist() == [1] * length + [0] * (len(ids) - length)
        assert ids[length:].eq(tokenizer.pad_token_id).all()
    assert batch.input_ids.shape[1] == max(batch.lengths)


def test_reports_are_cut_at_max_tokens_with_sep_kept(tmp_path, tokenizer):
    pairs = numbered(dataset(tmp_path))
    batch, _ = Collate(tokenizer, 5, SHAPE)([pairs[0], pairs[1]])
    assert batch.input_ids.shape == (2, 5)
    assert batch.input_ids[:, -1].eq(tokenizer.sep_token_id).all()


def test_an_unreadable_pair_is_an_error(tmp_path, tokenizer):
    pairs = numbered(dataset(tmp_path, damaged=[2]))
    outcome, left_out = Collate(tokenizer, 30, SHAPE)([pairs[i] for i in range(4)])
    assert isinstance(outcome, InputError)
    assert "row 4 of" in str(outcome)
    assert left_out == []


def test_skip_drops_unreadable_pairs_and_says_which(tmp_path, tokenizer):
    pairs = numbered(dataset(tmp_path, damaged=[2, 4]))
    collate = Collate(tokenizer, 30, SHAPE, on_bad_row="skip")
    batch, left_out = collate([pairs[i] for i in range(6)])
    assert batch.rows.tolist() == [2, 3, 5, 7]
    assert len(batch.images) == len(batch.input_ids) == len(batch.lengths) == 4
    assert [row for row, _ in left_out] == [4, 6]
    assert "scan_004.png" in left_out[1][1]


def test_a_batch_that_lost_all_but_one_pair_is_an_error(tmp_path, tokenizer):
    pairs = numbered(dataset(tmp_path, damaged=[0, 2]))
    collate = Collate(tokenizer, 30, SHAPE, on_bad_row="skip")
    outcome, _ = collate([pairs[i] for i in range(3)])
    assert "2 of 3 images cannot be decoded" in str(outcome)


@pytest.mark.parametrize(
    ("item", "got"),
    [
        ((torch.zeros(3, 32, 32), "r"), r"shape \(3, 32, 32\)"),
        ((torch.zeros(SHAPE, dtype=torch.uint8), "r"), "torch.uint8"),
        ((torch.zeros(SHAPE), 3), "Tensor', 'int"),
        (("r", torch.zeros(SHAPE)), "str', 'Tensor"),
        (torch.zeros(SHAPE), "Tensor"),
        ((torch.zeros(SHAPE), "r", 1), "tuple"),
    ],
)
def test_an_item_that_is_no_pair_is_explained(tokenizer, item, got):
    good = (torch.zeros(SHAPE), "r")
    pairs = NumberedPairs([good, item], [10, 20])
    outcome, _ = Collate(tokenizer, 30, SHAPE)([pairs[0], pairs[1]])
    assert isinstance(outcome, InputError)
    assert re.search(f"item 20 of the data set.*\n.*{got}", str(outcome))


def test_errors_cross_process_borders_whole():
    error = InputError("problem", got=1, expected=2, remedy="three")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problem) == (str(error), "problem")


@pytest.mark.parametrize(("size", "batch_size"), [(1025, 128), (7, 8), (8, 8), (9, 4), (13, 2)])
def test_batches_are_even_and_cover_everything_once(size, batch_size):
    batches = list(BalancedBatchSampler(size, batch_size, seed=0, shuffle=True))
    assert (
        len(batches)
        == len(BalancedBatchSampler(size, batch_size, 0, True))
        == -(-size // batch_size)
    )
    assert sorted(i for batch in batches for i in batch) == list(range(size))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_no_batch_of_one_where_there_are_two_pairs():
    for size in range(2, 40):
        for batch_size in range(3, 9):
            assert min(map(len, BalancedBatchSampler(size, batch_size, 0, False))) > 1


@pytest.mark.parametrize(("size", "processes"), [(27, 2), (100, 4), (5, 4), (9, 8)])
def test_processes_share_each_batch_evenly_and_see_every_pair_once(size, processes):
    batch_size = 3
    shares = [
        list(BalancedBatchSampler(size, batch_size, 0, True, rank, processes))
        for rank in range(processes)
    ]
    whole = list(BalancedBatchSampler(size, batch_size * processes, 0, True))
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert [i for part in parts for i in part] == batch, "as one process with larger batches"
        sizes = [len(part) for part in parts]
        assert min(sizes) >= 1 and max(sizes) <= min(batch_size, min(sizes) + 1)
    assert sorted(i for batch in whole for i in batch) == list(range(size))


def test_no_process_is_without_a_pair():
    for processes in range(2, 9):
        for batch_size in (2, 3, 5):
            for size in range(processes, 60):
                last = BalancedBatchSampler(size, batch_size, 0, False, processes - 1, processes)
                assert min(map(len, last)) > 0


def test_order_depends_on_seed_and_epoch():
    def order(seed, epoch, shuffle=True):
        batches = BalancedBatchSampler(50, 8, seed, shuffle)
        batches.sampler.set_epoch(epoch)  # as Lightning does
        return list(batches)

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1, shuffle=False) == order(0, 2, shuffle=False)
    neighbours = [i for batch in order(0, 0, shuffle=False) for i in batch]
    assert neighbours != list(range(50))  # mixed once, for a CSV lists patient after patient


def test_rows_survive_a_selection(tmp_path):
    path = write_pairs(tmp_path, pairs=5, patients=5)
    manifest = read_manifest(path).select([4, 1])
    pairs = ImageCaptionDataset(manifest, lambda image: torch.zeros(1))
    assert [pairs[i][1] for i in range(2)] == [report_of(4), report_of(1)]
    assert manifest.rows == [6, 3]
