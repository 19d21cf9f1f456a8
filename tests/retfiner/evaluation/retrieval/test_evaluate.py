"""Retrieval of a refined model against an oracle that knows neither batches nor chunks."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retfiner.common.errors import InputError
from retfiner.common.seeds import derive_seed
from retfiner.data.manifest import read_manifest, split_by_patient
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.retrieval.evaluate import Retrieval
from retfiner.evaluation.retrieval.ranking import Ranking
from retfiner.evaluation.run import evaluate
from retfiner.export.loading import read_model
from retfiner.vision import evaluation_transform, read_image
from tests.helpers.bounded import bounded
from tests.helpers.disk import no_file_larger_than
from tests.helpers.refinement import damage_in_the_middle, make_material, read_csv, write_csv


def configure(model, data, **changes):
    values = {"task": "retrieval", "model": model, "data": data, "device": "cpu", "num_workers": 0,
              "precision": "32-true", "bootstrap": 20}  # fmt: skip
    return EvaluateConfig(**(values | changes))


def naive(folder, manifest, top):
    """Every image with every report, one at a time, sorted by Python."""
    loaded = read_model(folder)
    model, transform = loaded.model, evaluation_transform(loaded.model.backbone)
    reports = list(dict.fromkeys(manifest.reports))
    with torch.no_grad():
        tokens = [model.encode_images(transform(read_image(a.path))[None]) for a in manifest.images]
        images = [model.embed_images(t)[0] for t in tokens]
        ids = [
            torch.tensor([loaded.tokenizer(r, truncation=True, max_length=30)["input_ids"]])
            for r in reports
        ]
        texts = [model.embed_texts(i, torch.ones_like(i))[0] for i in ids]

        def match(image, text):
            kv = model.multimodal_encoder.project_image(tokens[image])
            states = model.multimodal_encoder.fuse(ids[text], torch.ones_like(ids[text]), kv)
            return model.itm_head(states[:, 0]).softmax(1)[0, 1].item()

        found = {"image_to_text": ([], []), "text_to_image": ([], [])}
        own = [reports.index(report) for report in manifest.reports]
        for pair in range(len(manifest)):
            order = sorted(range(len(reports)), key=lambda t: -(images[pair] @ texts[t]).item())
            again = sorted(order[:top], key=lambda t: -match(pair, t)) + order[top:]
            for kind, listed in enumerate((order, again)):
                found["image_to_text"][kind].append([t == own[pair] for t in listed])
        for text in range(len(reports)):
            order = sorted(range(len(images)), key=lambda i: -(images[i] @ texts[text]).item())
            again = sorted(order[:top], key=lambda i: -match(i, text)) + order[top:]
            for kind, listed in enumerate((order, again)):
                found["text_to_image"][kind].append([own[i] == text for i in listed])
    return found


def scores_of(lists):
    ranks = np.array([listed.index(True) for listed in lists])
    precision = []
    for listed in lists:
        places = np.flatnonzero(listed) + 1
        precision.append((np.arange(1, len(places) + 1) / places).mean())
    return {
        **{f"recall@{k}": (ranks < k).mean() for k in (1, 5, 10)},
        "map": np.mean(precision),
        "median_rank": np.median(ranks + 1),
    }


def test_all_numbers_are_the_oracles(refined):
    material, folder = refined
    numbers = evaluate(configure(folder, material.csv, rerank_top=4, batch_size=5))
    _, validation = split_by_patient(read_manifest(material.csv), 0.34, 0)
    assert numbers["part"] == "validation", "the model's own training table"
    assert numbers["pairs"] == len(validation) == 18
    oracle = naive(folder, validation, top=4)
    for direction, kinds in oracle.items():
        for name, lists in zip(("itc", "itm"), kinds, strict=True):
            ours = numbers["retrieval"][name][direction]
            for metric, value in scores_of(lists).items():
                assert ours[metric]["value"] == pytest.approx(value, abs=1e-9), (name, metric)
                low, high = ours[metric]["interval"]
                assert low <= high


def retrieved(n_right, ranks, manifest_rows, image_ranks=None):
    """A retrieval by hand: who carries which, and where each report or image finds its other."""
    patients, reports = zip(*manifest_rows, strict=True)
    some = torch.zeros(len(ranks), 1)
    ranking = Ranking(torch.tensor(ranks), some[:, 0], torch.tensor(n_right), some, some, some)
    distinct = sorted(set(reports))
    images = torch.tensor(image_ranks or [0] * len(reports))
    ones = torch.ones_like(images)
    of_images = Ranking(images, images.double(), ones, images, images, images)
    return Retrieval(
        SimpleNamespace(patients=list(patients), reports=list(reports)),
        np.array([reports.index(report) for report in distinct]),
        np.array([distinct.index(report) for report in reports]),
        np.arange(len(reports)),
        {"image_to_text": of_images, "text_to_image": ranking},
    )


def test_a_report_that_several_patients_carry_is_one_query_and_one_draw():
    """Four patients share report a, which finds none; b and c are of p, d of q: all three do."""
    rows = [("p", "a"), ("q", "a"), ("r", "a"), ("s", "a"), ("p", "b"), ("p", "c"), ("q", "d")]
    found = retrieved([4, 1, 1, 1], [6, 0, 0, 0], rows)
    assert found.owners == ["report 0", "patient p", "patient p", "patient q"]
    numbers = found.score(400, 0)["text_to_image"]["recall@1"]
    assert numbers["value"] == pytest.approx(3 / 4)
    assert numbers["chance"] == pytest.approx((4 + 1 + 1 + 1) / 7 / 4)
    rng = np.random.default_rng(derive_seed(0, "bootstrap"))
    hits = {0: [1.0, 1.0], 1: [1.0], 2: [0.0]}  # patient p, patient q, report a
    drawn = [
        np.mean([hit for unit in rng.integers(3, size=3) for hit in hits[unit]]) for _ in range(400)
    ]
    assert numbers["interval"] == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_images_that_share_a_report_are_one_query_together():
    """The four images of report a find it, those of b, c and d find none: one report of four."""
    rows = [("p", "a"), ("q", "a"), ("r", "a"), ("s", "a"), ("p", "b"), ("p", "c"), ("q", "d")]
    found = retrieved([4, 1, 1, 1], [0, 0, 0, 0], rows, [0, 0, 0, 0, 3, 3, 3])
    numbers = found.score(400, 0)["image_to_text"]
    assert numbers["recall@1"]["value"] == pytest.approx(1 / 4) == numbers["recall@1"]["chance"]
    assert numbers["median_rank"]["value"] == 4, (
        "half of the weight finds its report there or later"
    )


def test_an_image_in_two_rows_is_one_image(refined, tmp_path):
    """Each image has two reports; the oracle knows the first row of each image alone."""
    material, folder = refined
    rows = read_csv(material.csv)[:12]
    other = [[image, f"{report} Again.", patient] for image, report, patient in rows]
    table = write_csv(tmp_path / "twice.csv", [*rows, *other])
    saved = tmp_path / "found.npz"
    images = {"image_root": material.csv.parent, "bootstrap": 0}
    numbers = evaluate(configure(folder, table, rerank_top=4, save=saved, **images))["retrieval"]
    with np.load(saved) as arrays:
        found = {name: arrays[name] for name in arrays}
    assert found["text_to_image_found"].max() <= 13, "rows 2 to 13: no image twice"
    asked, of = found["image_to_text_query"], found["image_to_text_found"]
    right = (of - 2) % 12 == (asked - 2)[:, None] % 12  # reports repeat no other word for word
    np.testing.assert_array_equal(found["image_to_text_right"], right)
    chance = {way: numbers["itc"][way]["recall@10"]["chance"] for way in numbers["itc"]}
    assert chance["text_to_image"] == pytest.approx(10 / 12), "one of twelve images"
    assert chance["image_to_text"] == pytest.approx(1 - 14 * 13 / (24 * 23)), "two of 24 reports"


def test_rankings_name_rows_of_the_table(refined, tmp_path):
    material, folder = refined
    saved = [tmp_path / "found.csv", tmp_path / "found.npz"]
    for path in saved:
        evaluate(configure(folder, material.csv, part="all", save=path, rerank_top=0))
    reports = {number: row[1] for number, row in enumerate(read_csv(material.csv), 2)}
    with saved[0].open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["direction"] for line in lines} == {"image_to_text", "text_to_image"}
    for line in lines:
        same = reports[int(line["query_row"])] == reports[int(line["found_row"])]
        assert same == bool(int(line["is_right"]))
    images = [line for line in lines if line["direction"] == "image_to_text"]
    assert len(images) == 48 * 10
    with np.load(saved[1]) as arrays:
        found = arrays["image_to_text_found"]
        np.testing.assert_array_equal(
            found, np.array([int(line["found_row"]) for line in images]).reshape(48, 10)
        )


def test_the_part_and_its_notes(refined, tmp_path):
    material, folder = refined
    whole = evaluate(configure(folder, material.csv, part="all"))
    assert whole["pairs"] == 48
    assert any("trained on these pairs" in note for note in whole["notes"])
    other = write_csv(tmp_path / "other.csv", read_csv(material.csv)[:10])
    numbers = evaluate(configure(folder, other, image_root=material.csv.parent))
    assert (numbers["part"], numbers["pairs"]) == ("all", 10)
    assert numbers["notes"] == [
        "The model was trained on 5 of these images, by their content and 5 of these patients, by "
        "their names."
    ], "its validation held the other five"
    copy = tmp_path / "a copy.csv"
    copy.write_bytes(material.csv.read_bytes())
    numbers = evaluate(configure(folder, copy, image_root=material.csv.parent))
    assert (numbers["part"], numbers["pairs"]) == ("validation", 18), "it is the training table"


def test_an_unreadable_image_is_named_or_left_out(refined, tmp_path):
    _, folder = refined
    other = make_material(tmp_path, pairs=12, patients=6)
    damage_in_the_middle(tmp_path / "images" / "scan_004.png")
    with pytest.raises(InputError, match="row 6 of"):
        evaluate(configure(folder, other.csv))
    numbers = evaluate(configure(folder, other.csv, on_bad_row="skip"))
    assert (numbers["pairs"], numbers["left_out"]) == (11, 1)


def test_the_same_seed_gives_the_same_numbers(refined):
    material, folder = refined
    first, again, other = (
        evaluate(configure(folder, material.csv, seed=seed))["retrieval"] for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_precision_is_carried_out(refined):
    material, folder = refined
    exact, rough = (
        evaluate(configure(folder, material.csv, precision=p, bootstrap=0))["retrieval"]
        for p in ("32-true", "bf16-mixed")
    )
    assert exact["itc"]["image_to_text"]["map"]["interval"] is None
    assert exact != rough, "sixteen bits give other ranks"
    assert exact["itc"]["image_to_text"]["recall@10"]["value"] == pytest.approx(
        rough["itc"]["image_to_text"]["recall@10"]["value"], abs=0.35
    )


def test_images_that_find_no_shared_memory_are_told_and_not_awaited(refined):
    material, folder = refined

    def fails():
        with no_file_larger_than(50_000):
            evaluate(configure(folder, material.csv, num_workers=1))

    found = bounded(fails, seconds=100)
    assert found.kind == "InputError", found
    assert "too little shared memory" in found.text
