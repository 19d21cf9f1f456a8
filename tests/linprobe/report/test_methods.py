"""The methods paragraph says what the runs' records say."""

import pandas as pd
import pytest

from linprobe.report.loading import load
from linprobe.report.methods import methods_paragraph
from linprobe.report.summary import summarise
from retfiner.common.predictions import make_table
from tests.helpers.probing_runs import make_predictions, write_predictions

MODELS = ("baseline/M", "refined/M")


def paragraph(tmp_path, unit, settings):
    for model in MODELS:
        table = make_predictions(model, "OCTID", 0, strength=1, probe=settings["probe"])
        if unit == "patient":  # whose images are all of one class
            table["patient"] = table["label"] + (table.groupby("label").cumcount() // 2).astype(str)
        write_predictions(tmp_path, table, image_size=224, representation_method="concat_prenorm",
                          **settings)  # fmt: skip
    loaded = load(tmp_path, [], [MODELS]).by_unit(unit)
    numbers = {"scales": {}, "resamples": 20, "swaps": 9, "seed": 0}
    summary = summarise(loaded, "auroc", **numbers)
    return methods_paragraph(loaded, [summary], [], 20, 9)


def test_a_linear_probe(tmp_path):
    numbers = {"weight_decay": 0.01, "label_smoothing": 0.1, "warmup_epochs": 10, "epochs": 1000}
    text = paragraph(tmp_path, None, {"probe": "linear", "views": 4, **numbers})
    for said in (
        "We compared baseline/M, refined/M on 1 data set: OCTID (AMRD, CSR, DR, MH, NORMAL; "
        "80 test images of 40 patients, trained on 100 images of 50 patients).",
        "Encoders (RETFound) stayed frozen; B-scans were resized to 224 pixels and represented by "
        "the mean of the patch tokens and the CLS token before the final norm, concatenated and "
        "layer-normalised.",
        "AdamW (learning rate 0.001, weight decay 0.01, label smoothing 0.1, 10 epochs of warm-up, "
        "half-cosine decay over at most 1000 epochs)",
        "on stored augmented views of each image.",
        "The metric is AUROC. Intervals are",
        "of 20 bootstrap resamples of the test set's patients",
        "(9 permutations)",
        "Software: retfiner ",
        "Weights (SHA-256): baseline/M ",
    ):
        assert said in text
    assert "  " not in text and "None" not in text and "%s" not in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"probe": "knn", "neighbours": 20, "knn_temperature": 0.07},
         "the 20 most similar training images voted, weighted by exp(cosine similarity / 0.07)"),
        ({"probe": "prototype"}, "(Snell et al., 2017; Wang et al., 2019)."),
        ({"probe": "attentive"}, "(Darcet et al., 2025)"),
        ({"probe": "logistic"}, "a logistic regression was fitted"),
    ],
)  # fmt: skip
def test_every_other_probe_is_described(tmp_path, settings, said):
    text = paragraph(tmp_path, "patient", settings)
    assert said in text
    assert "Probabilities of the images of each patient were averaged." in text


def test_how_other_predictions_came_about_is_said(tmp_path):
    write_predictions(tmp_path, make_predictions("ours", "OCTID", 0, strength=1))
    others = [make_predictions(name, "OCTID", 0, strength=1, probe=probe)
              for name, probe in (("words", "zero_shot"), ("theirs", ""))]  # fmt: skip
    pd.concat(others).to_csv(tmp_path / "t.csv", index=False)
    loaded = load(tmp_path, [tmp_path / "t.csv"], [("ours", "words"), ("ours", "theirs")])
    numbers = {"scales": {}, "resamples": 20, "swaps": 9, "seed": 0}
    text = methods_paragraph(loaded, [summarise(loaded, "auroc", **numbers)], [], 20, 9)
    assert "words classified without labels, by the cosine" in text
    assert "Predictions of theirs were brought along." in text


def test_what_neighbours_vote_on_was_not_trained(tmp_path):
    """Labels and values are described as trained only where something trains."""
    about = {"learning_rate": 1e-3, "probe": "linear", "neighbours": 20, "knn_temperature": 0.07}
    for probe, trained in (("linear", True), ("knn", False)):
        for model in MODELS:
            table = make_table([[1.0], [3.0]] * 4, [1.0, 2.5] * 4, ["age"], task="regression",
                               model=model, data_set="D_age", weights="w" + model[0], probe=probe,
                               image=[f"{k}.png" for k in range(8)])  # fmt: skip
            write_predictions(tmp_path / probe, table, **about | {"probe": probe})
        loaded = load(tmp_path / probe, [], [MODELS])
        numbers = {"scales": {}, "resamples": 20, "swaps": 9, "seed": 0}
        text = methods_paragraph(loaded, [summarise(loaded, "r2", **numbers)], [], 20, 9)
        assert ("trained on by squared error" in text) == trained
        assert "sign flips" not in text  # one data set: nothing was tested over data sets
        assert "8 test images). " in text  # drawn as images: not "images of 8 images"


def test_what_a_mil_probe_pooled_is_said_and_nothing_was_averaged(tmp_path):
    text = paragraph(tmp_path, "patient", {"probe": "mil", "unit": "patient"})
    assert "gated attention over the images of each patient" in text
    assert "were averaged" not in text
