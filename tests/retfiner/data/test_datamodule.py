"""Settings to loaders: who is on which side, which workers, which batches."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import active_children
from types import SimpleNamespace

import pytest
import torch

from retfiner import refine
from retfiner.common import processes
from retfiner.common.errors import InputError
from retfiner.common.processes import count_workers
from retfiner.data.batch import Collate
from retfiner.data.datamodule import PairsDataModule
from retfiner.data.manifest import read_manifest, split_by_patient
from retfiner.text.tokenizer import load_tokenizer
from retfiner.training.distributed.join import BatchJoiner
from retfiner.vision import evaluation_transform, load_backbone
from tests.helpers.bounded import bounded
from tests.helpers.refinement import (
    OWN_DATASET,
    damage_in_the_middle,
    load_pairs,
    make_material,
    read_csv,
    settings,
    write_csv,
    write_pairs,
)

DATASET = f"""{OWN_DATASET}
from torch.utils.data import Dataset

class Whole(Pairs, Dataset):
    pass

class Unnamed(Whole):
    def __init__(self, transform, image_root):
        super().__init__(transform, image_root)
        del self.patients

class Wrong(Whole):
    def __init__(self, transform, image_root):
        super().__init__(transform, image_root)
        self.patients = self.patients[:-1]

class Split(Whole):
    def __init__(self, transform, image_root, split):
        super().__init__(transform, image_root)
        self.rows = self.rows[:16] if split == "train" else self.rows[16:]

class Plain(Whole):
    def __init__(self, image_root):
        super().__init__(None, image_root)

class TakesAll(Whole):
    def __init__(self, **given):
        super().__init__(**given)
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    (folder / "mine.py").write_text(DATASET)
    return make_material(folder)


@pytest.fixture(scope="module")
def transform(material):
    return evaluation_transform(load_backbone(material.weights))


def own(material, name, tmp_path, **changes):
    folder = material.csv.parent
    return settings(
        material, tmp_path, train_csv=None, dataset=f"{folder / 'mine.py'}:{name}",
        image_root=folder, **changes,
    )  # fmt: skip


def module(config, transform):
    tokenizer = load_tokenizer(config.text_encoder)
    collate = Collate(tokenizer, config.max_text_tokens, (3, 32, 32), config.on_bad_row)
    return PairsDataModule(
        load_pairs(config, transform),
        collate,
        BatchJoiner(),
        batch_size=config.batch_size,
        seed=config.seed,
        num_workers=config.num_workers,
        worker_start=None if config.worker_start == "auto" else config.worker_start,
    )


def rows_of(loader):
    return [collated.batch.rows.tolist() for collated in loader]


@pytest.mark.parametrize("kind", ["table", "class"])
def test_rows_of_one_image_are_known(material, transform, tmp_path, kind):
    """Rows 3 and 9 of a patient's: the same image with two reports."""
    folder = tmp_path / "same"
    table = write_pairs(folder, pairs=12, patients=6)
    rows = read_csv(table)
    rows[9][0], rows[9][2] = rows[3][0], rows[3][2]
    write_csv(table, rows)
    changes = {"train_csv": table, "batch_size": 12, "val_fraction": 0.2}
    if kind == "class":
        (folder / "mine.py").write_text(DATASET)
        changes |= {
            "train_csv": None,
            "dataset": f"{folder / 'mine.py'}:Whole",
            "image_root": folder,
        }
    loaded = module(settings(material, tmp_path, **changes), transform)
    seen = {}
    for loader in (loaded.train_dataloader(), loaded.val_dataloader()):
        for collated in loader:
            batch = collated.batch
            seen |= dict(zip(batch.rows.tolist(), batch.image_ids.tolist(), strict=True))
    first = 2 if kind == "table" else 0  # a spreadsheet's second row is the first of the table
    assert len(seen) == 12 and len(set(seen.values())) == 11
    assert seen[first + 3] == seen[first + 9]


def test_a_run_goes_on_with_as_many_processes(material, transform, tmp_path):
    loaded = module(settings(material, tmp_path), transform)
    loaded.load_state_dict({"batches_given": 1})  # of before there were several
    loaded.trainer = SimpleNamespace(world_size=2)
    with pytest.raises(InputError, match=r"1 x 8 pairs a batch then, 2 x 8 now"):
        loaded.load_state_dict({"batches_given": 1, "processes": 1})
    loaded.load_state_dict({"batches_given": 1, "processes": 2})


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(processes, "available_cores", lambda: 12)
    assert [count_workers(None, beside) for beside in (1, 2, 4, 16)] == [8, 6, 3, 1]
    assert count_workers(5, 4) == 5


def test_one_csv_is_split_by_patient(material, transform, tmp_path):
    config = settings(material, tmp_path, val_fraction=0.25, seed=4)
    pairs = load_pairs(config, transform)
    expected = split_by_patient(read_manifest(material.csv), 0.25, 4)
    assert pairs.train_numbers == expected[0].rows
    assert pairs.validation_numbers == expected[1].rows
    assert (pairs.train_size, pairs.validation_size) == (18, 6)  # 9 and 3 of 12 patients


def test_two_csvs_are_taken_as_they_are(material, transform, tmp_path):
    other = write_pairs(tmp_path, pairs=4, patients=2, name="val.csv", first=100)
    pairs = load_pairs(settings(material, tmp_path, val_csv=other), transform)
    assert (pairs.train_size, pairs.validation_size) == (24, 4)


def test_a_patient_in_both_csvs_is_an_error(material, transform, tmp_path):
    rows = [[str(material.csv.parent / row[0]), *row[1:]] for row in read_csv(material.csv)]
    other = write_csv(tmp_path / "val.csv", rows[:3])
    with pytest.raises(InputError, match="both sides") as caught:
        load_pairs(settings(material, tmp_path, val_csv=other), transform)
    assert "patient-0" not in str(caught.value)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_part_of_one_pair_is_an_error(material, transform, tmp_path, part):
    small = write_pairs(tmp_path, pairs=1, patients=1, name="one.csv", first=100)
    changes = (
        {"train_csv": small, "val_csv": material.csv} if part == "training" else {"val_csv": small}
    )
    with pytest.raises(InputError, match=rf"the {part} part is too small.*\n.*1 pair\n"):
        load_pairs(settings(material, tmp_path, **changes), transform)


def test_skipped_rows_are_counted(material, transform, tmp_path):
    rows = read_csv(material.csv)
    rows[3][0], rows[7][1] = "nowhere.png", ""
    broken = write_csv(tmp_path / "broken.csv", rows)
    config = settings(
        material, tmp_path, train_csv=broken, image_root=material.csv.parent, on_bad_row="skip"
    )
    pairs = load_pairs(config, transform)
    assert pairs.train_size + pairs.validation_size == 22
    assert [row for row, _ in pairs.manifests[0].skipped] == [5, 9]


def test_a_data_set_with_patients_is_split_as_the_same_csv(material, transform, tmp_path):
    mine = load_pairs(own(material, "Whole", tmp_path, seed=2), transform)
    csv = load_pairs(settings(material, tmp_path, seed=2), transform)
    assert mine.train_numbers == [row - 2 for row in csv.train_numbers]
    assert mine.validation_numbers == [row - 2 for row in csv.validation_numbers]
    image, report = mine.train[3]
    assert torch.equal(image, csv.train[3][0])
    assert report == csv.train[3][1]


@pytest.mark.parametrize("name", [None, "Whole", "Split"])
def test_training_and_validation_have_a_transform_each(material, transform, tmp_path, name):
    config = settings(material, tmp_path) if name is None else own(material, name, tmp_path)
    bicubic = replace(transform, interpolation="bicubic")
    tables = refine.read_tables(config)
    mixed = refine.load_pairs(config, tables, (bicubic, transform))
    bilinear = refine.load_pairs(config, tables, (transform, transform))
    assert (mixed.train_size, mixed.train_numbers) == (bilinear.train_size, bilinear.train_numbers)
    assert not torch.equal(mixed.train[0][0], bilinear.train[0][0])
    assert torch.equal(mixed.validation[0][0], bilinear.validation[0][0])
    all_bicubic = refine.load_pairs(config, tables, (bicubic, bicubic))
    assert torch.equal(mixed.train[0][0], all_bicubic.train[0][0])


def test_a_class_that_takes_no_transform_cannot_be_resized_otherwise(material, transform, tmp_path):
    config = own(material, "Plain", tmp_path)
    mixed = (replace(transform, interpolation="bicubic"), transform)
    with pytest.raises(InputError, match="--train_interpolation has no effect") as caught:
        refine.load_pairs(config, None, mixed)
    # Of --recipe published nobody gave it, so that nobody can leave it out.
    assert "--recipe published" in str(caught.value)
    assert "--train_interpolation bilinear" in str(caught.value)
    takes_all = own(material, "TakesAll", tmp_path)
    assert refine.load_pairs(takes_all, None, mixed).train_size > 1, "** is given a transform too"


def test_a_data_set_with_split_makes_its_own_parts(material, transform, tmp_path):
    pairs = load_pairs(own(material, "Split", tmp_path), transform)
    assert (pairs.train_size, pairs.validation_size) == (16, 8)
    assert pairs.manifests is pairs.train_numbers is None


def test_a_data_set_that_knows_no_patients_is_split_only_when_told_so(
    material, transform, tmp_path
):
    with pytest.raises(InputError, match="cannot be split by patient") as caught:
        load_pairs(own(material, "Unnamed", tmp_path), transform)
    assert "--patient_column none" in str(caught.value)
    told = own(material, "Unnamed", tmp_path, patient_column="none", val_fraction=0.25)
    assert load_pairs(told, transform).validation_size == 6


def test_patients_must_be_as_many_as_items(material, transform, tmp_path):
    with pytest.raises(InputError, match="23 patients for 24 items"):
        load_pairs(own(material, "Wrong", tmp_path), transform)


@pytest.mark.parametrize(("seconds", "cores", "expected"), [(0.02, 8, 2), (0.06, 4, 4), (0, 8, 1)])
def test_workers_are_as_many_as_keep_the_device_busy(
    material, transform, tmp_path, monkeypatch, seconds, cores, expected
):
    """On a CPU, which trains on 100 pairs a second at most."""
    monkeypatch.setattr("retfiner.common.processes.available_cores", lambda: cores)
    made = module(settings(material, tmp_path, num_workers=None), transform)
    read = made.pairs.train.__getitem__
    monkeypatch.setattr(
        type(made.pairs.train), "__getitem__", lambda _, index: time.sleep(seconds) or read(index)
    )
    before = torch.random.get_rng_state()
    assert made.train_dataloader().num_workers >= expected  # what reading takes comes on top
    assert made.val_dataloader().num_workers <= cores
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batches_are_the_same_with_workers(material, transform, tmp_path):
    alone = module(settings(material, tmp_path, num_workers=0), transform)
    forked = module(settings(material, tmp_path, num_workers=2, worker_start="fork"), transform)
    for one, two in zip(alone.train_dataloader(), forked.train_dataloader(), strict=True):
        for left, right in zip(one.batch, two.batch, strict=True):
            assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


@pytest.mark.parametrize("part", ["train", "val"])
def test_workers_are_forked_before_the_first_batch_is_asked_for(
    material, transform, tmp_path, part
):
    """Later there are threads, and a fork copies the locks they hold."""
    data = module(settings(material, tmp_path, num_workers=2, worker_start="fork"), transform)
    data.load_state_dict({"batches_given": 1})
    before = set(active_children())
    loader = getattr(data, f"{part}_dataloader")()
    workers = set(active_children()) - before
    assert len(workers) == 2
    alone = module(settings(material, tmp_path, num_workers=0), transform)
    alone.load_state_dict({"batches_given": 1})
    expected = getattr(alone, f"{part}_dataloader")()
    for _epoch in range(2):
        assert rows_of(loader) == rows_of(expected)
    assert set(active_children()) - before == workers


def test_a_long_wait_for_images_is_said_and_goes_on(
    material, transform, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("retfiner.data.sampler.PATIENCE", 1)
    data = module(settings(material, tmp_path, num_workers=1, worker_start="fork"), transform)
    pairs = type(data.pairs.train)
    read = pairs.__getitem__
    expected = rows_of(data.train_dataloader())
    monkeypatch.setattr(pairs, "__getitem__", lambda self, n: time.sleep(0.2) or read(self, n))
    assert rows_of(data.train_dataloader()) == expected
    said = "note: no batch of images for 1 seconds"
    assert said in capsys.readouterr().out


def test_workers_that_do_not_answer_end_the_run_with_a_remedy(
    material, transform, tmp_path, monkeypatch
):
    monkeypatch.setattr("retfiner.data.sampler.PATIENCE", 1)
    monkeypatch.setattr("retfiner.data.datamodule._start_worker", lambda _worker: time.sleep(30))
    data = module(settings(material, tmp_path, num_workers=1, worker_start="fork"), transform)
    with pytest.raises(InputError, match="do not answer") as caught:
        data.train_dataloader()
    assert "--worker_start spawn" in str(caught.value)


def test_a_worker_that_leaves_without_a_word_is_noticed(material, transform, tmp_path, monkeypatch):
    """With the status of success, for which no signal is raised in the main process."""
    data = module(settings(material, tmp_path, num_workers=1, worker_start="fork"), transform)
    monkeypatch.setattr(type(data.pairs.train), "__getitem__", lambda self, n: os._exit(0))
    found = bounded(lambda: rows_of(data.train_dataloader()), seconds=60)
    assert found.kind == "RuntimeError", found
    assert "exited unexpectedly" in found.text


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(), FileNotFoundError()])
def test_a_worker_that_ends_while_it_hands_over_a_batch(material, transform, tmp_path, error):
    def batches(raised):
        yield from []
        raise raised

    data = module(settings(material, tmp_path, num_workers=1, worker_start="fork"), transform)
    loader = data.train_dataloader()
    with pytest.raises(InputError, match="a process that reads images was ended"):
        loader.take(batches(error))
    of_a_data_set = type(error)("Caught it in DataLoader worker process 0.")
    with pytest.raises(type(error), match="Caught"):
        loader.take(batches(of_a_data_set))


@pytest.mark.slow
def test_spawned_workers_read_a_data_set_from_a_file(material, transform, tmp_path):
    """What macOS and Windows do: nothing of this process is there but what was pickled."""
    config = own(material, "Whole", tmp_path, num_workers=1, worker_start="spawn")
    spawned = module(config, transform).val_dataloader()
    assert spawned.multiprocessing_context.get_start_method() == "spawn"
    alone = module(own(material, "Whole", tmp_path), transform).val_dataloader()
    assert rows_of(spawned) == rows_of(alone)


def test_validation_batches_have_one_order(material, transform, tmp_path):
    loader = module(settings(material, tmp_path), transform).val_dataloader()
    assert rows_of(loader) == rows_of(loader)


def test_loading_leaves_the_global_generator_alone(material, transform, tmp_path):
    """Dropout draws from it: the numbers of a run must not depend on how images are read."""
    loader = module(settings(material, tmp_path), transform).train_dataloader()
    before = torch.random.get_rng_state()
    list(loader)
    assert torch.equal(torch.random.get_rng_state(), before)


def broken(tmp_path, material, **changes):
    csv = write_pairs(tmp_path, pairs=24, patients=12)
    config = settings(material, tmp_path, train_csv=csv, batch_size=24, **changes)
    row = next(row for row in load_pairs(config, None).train_numbers if row % 2 == 0)  # a PNG
    damage_in_the_middle(read_manifest(csv).images[row - 2].path)
    return config, row


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_found_in_a_worker_is_raised_here_and_names_the_row(
    material, transform, tmp_path, workers
):
    config, row = broken(tmp_path, material, num_workers=workers)
    data = module(config, transform)
    with pytest.raises(InputError, match=rf"row {row} of .*pairs\.csv"):
        for batch in data.train_dataloader():
            BatchJoiner()(batch)


def test_damage_that_is_skipped_is_said_and_counted_once(material, transform, tmp_path, capsys):
    config, row = broken(tmp_path, material, num_workers=2, on_bad_row="skip")
    data, join = module(config, transform), BatchJoiner()
    for _epoch in range(2):
        batches = [join(b) for b in data.train_dataloader()]
        assert [len(b.images) for b in batches] == [data.pairs.train_size - 1]
        assert row not in batches[0].rows
    assert len(join.left_out) == 1
    printed = capsys.readouterr().out
    assert printed.count("left out") == 1
    assert f"row {row} of" in printed


UNFINISHED = """
import gc
from retfiner.data.datamodule import Pairs, PairsDataModule

def collate(items):
    return items

pairs = [("image", "report")] * 8
data = PairsDataModule(Pairs(pairs, pairs), collate, None, batch_size=4, num_workers=2)
batches = iter(data.train_dataloader())
print(len(next(batches)))
"""
COLLECTED = """
cycle = [data, batches]
cycle.append(cycle)
del cycle, data, batches
gc.collect()
"""


@pytest.mark.parametrize("then", ["", pytest.param(COLLECTED, marks=pytest.mark.slow)])
def test_python_exits_where_workers_wait_for_more(then):
    """As after an error whose traceback holds the loader: nothing but a SIGTERM ends them."""
    done = subprocess.run(
        [sys.executable, "-c", UNFINISHED + then],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")


def test_number_of_workers():
    assert count_workers(0) == 0
    assert count_workers(11) == 11
    assert 1 <= count_workers(None) <= 8
