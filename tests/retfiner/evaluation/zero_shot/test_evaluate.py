"""Zero-shot classification against plain loops, scikit-learn, and the probing report."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as sk

from linprobe.report.build import build_report
from linprobe.report.config import ReportConfig
from retfiner.common.errors import InputError
from retfiner.common.metrics import chance
from retfiner.common.predictions import classes_of, find_runs, read_run
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.run import evaluate
from retfiner.evaluation.zero_shot.image_folder import read_image_folder
from retfiner.export.loading import read_model
from retfiner.vision import evaluation_transform, read_image
from tests.helpers.probing_runs import make_predictions, write_predictions

CLASSES = {"drusen": ["drusen in the fovea", "B-scan with drusen"], "fluid": ["subretinal fluid"]}
"""Written in the vocabulary that the small text encoder knows."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled") / "Toy"
    rng = np.random.default_rng(0)
    for split, count in (("train", 1), ("val", 1), ("test", 9)):
        for label in (*CLASSES, "healthy"):
            (root / split / label).mkdir(parents=True)
            for number in range(count if label != "healthy" else count // 9):
                pixels = rng.integers(0, 256, (40, 48), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"P{number:03d}_OD.png")
    return root


@pytest.fixture(scope="module")
def prompts(folder):
    path = folder.parent / "toy.yaml"
    lines = [f"{name}: {texts}" for name, texts in CLASSES.items()]
    path.write_text("\n".join([*lines, "healthy: [no fluid]"]) + "\n")
    return path


def configure(refined, data, tmp_path, **changes):
    values = {"task": "zero_shot", "model": refined[1], "data": data, "device": "cpu",
              "num_workers": 0, "precision": "32-true", "results": tmp_path,
              "bootstrap": 50}  # fmt: skip
    return EvaluateConfig(**(values | changes))


def naive(refined, data):
    loaded = read_model(refined[1])
    model, transform = loaded.model, evaluation_transform(loaded.model.backbone)
    rows = []
    with torch.no_grad():
        classes = []
        for texts in [*CLASSES.values(), ["no fluid"]]:
            units = []
            for text in texts:
                ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
                units.append(model.embed_texts(ids, torch.ones_like(ids))[0].double().numpy())
            mean = np.mean(units, axis=0)
            classes.append(mean / np.linalg.norm(mean))
        for path in data.paths:
            tokens = model.encode_images(transform(read_image(path))[None])
            image = model.embed_images(tokens)[0].double().numpy()
            scores = np.array([image @ c for c in classes]) / model.temperature.item()
            rows.append(np.exp(scores) / np.exp(scores).sum())
    return np.array(rows)


def test_numbers_are_the_oracles_and_the_run_is_where_the_report_reads_it(
    refined, folder, prompts, tmp_path
):
    numbers = evaluate(configure(refined, folder, tmp_path, prompts=prompts, name="toy"))
    data = read_image_folder(folder, "test")
    expected, labels = naive(refined, data), np.array(data.labels)
    [place] = find_runs(tmp_path)
    assert place.parts[-4] == "zero_shot" and place.parts[-3].startswith("toy-")
    table, about = read_run(place)
    classes = ["drusen", "fluid", "healthy"]
    scores = table[[f"p_{name}" for name in classes]].to_numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert (classes_of(table), table["image"].tolist()) == (classes, data.names)
    assert set(table["probe"]) == {"zero_shot"} and about["notes"] == numbers["notes"]
    values = numbers["metrics"]["values"]
    predicted = expected.argmax(1)
    assert values["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(labels, predicted)
    )
    assert values["f1"] == pytest.approx(
        sk.f1_score(labels, predicted, average="weighted", zero_division=0)
    )
    assert values["mcc"] == pytest.approx(sk.matthews_corrcoef(labels, predicted))
    assert values["auroc"] == pytest.approx(
        sk.roc_auc_score(labels, expected, multi_class="ovr", average="weighted"), abs=1e-6
    )
    assert values["average_precision"] == pytest.approx(
        sk.average_precision_score(np.eye(3)[labels], expected, average="weighted"), abs=1e-6
    )
    assert numbers["metrics"]["bootstrap"]["unit"] == "patient"
    assert numbers["metrics"]["chance"]["balanced_accuracy"] == pytest.approx(1 / 3)
    again = evaluate(configure(refined, folder, tmp_path, prompts=prompts, name="toy"))
    assert again["folder"] == numbers["folder"], "the same run is not written twice"


def test_a_folder_of_classes_without_splits(refined, folder, prompts, tmp_path):
    whole = evaluate(configure(refined, folder, tmp_path, prompts=prompts))
    plain = evaluate(configure(refined, folder / "test", tmp_path, prompts=prompts))
    assert plain["metrics"]["values"] == whole["metrics"]["values"]
    assert plain["split"] is None
    with pytest.raises(InputError, match="no effect on a folder without splits"):
        evaluate(configure(refined, folder / "test", tmp_path, prompts=prompts, split="test"))
    with pytest.raises(InputError, match="no split trial"):
        evaluate(configure(refined, folder, tmp_path, prompts=prompts, split="trial"))
    with pytest.raises(InputError, match="no folder"):
        evaluate(configure(refined, folder / "nowhere", tmp_path))


def test_chance_is_what_guessing_scores():
    labels = [0] * 50 + [1] * 30 + [2] * 20
    rng = np.random.default_rng(0)
    guesses = rng.integers(3, size=(120, 100))
    found = chance(labels, 3)
    accuracy = [sk.balanced_accuracy_score(labels, g) for g in guesses]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(accuracy), abs=0.015)
    f1 = [sk.f1_score(labels, g, average="weighted", zero_division=0) for g in guesses]
    assert found["f1"] == pytest.approx(np.mean(f1), abs=0.015)
    ap = [
        sk.average_precision_score(np.eye(3)[labels], np.full((100, 3), 1 / 3), average="weighted")
    ]
    assert found["average_precision"] == pytest.approx(np.mean(ap))


def test_the_report_compares_a_zero_shot_model_with_probes(tmp_path):
    name = "Noor_Eye_Hospital"
    for model, strength in (("baseline/toy", 1.0), ("refined/toy", 2.0)):
        table = make_predictions(model, name, 0, strength=strength, fraction=0.5)
        write_predictions(tmp_path, table)
    untrained = {"train_images": 0, "train_patients": 0, "probe": "zero_shot", "data_version": ""}
    table = make_predictions("zero_shot/toy", name, 0, strength=0.5, **untrained)
    write_predictions(tmp_path, table)
    config = ReportConfig(
        base=["baseline/toy"], refined=["refined/toy", "zero_shot/toy"], results=tmp_path,
        output=tmp_path / "r", bootstrap=50, swaps=99,
    )  # fmt: skip
    report = build_report(config)
    assert report.summary.models == ["baseline/toy", "refined/toy", "zero_shot/toy"]
    assert any("differ in their probes" in remark for remark in report.remarks)
    assert "zero_shot/toy" in (tmp_path / "r" / "index.html").read_text()
    write_predictions(tmp_path, table.assign(image="other/" + table["image"]), learning_rate=1.0)
    with pytest.raises(InputError, match=r"stand there twice|differ"):
        build_report(config)
