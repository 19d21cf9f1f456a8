"""Scores of written reports against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from retfiner.evaluation.reports.scores import score_findings, score_words, split_words


def test_words_are_split_alike_whoever_wrote_them():
    assert split_words("Sub-RPE drusen, up to 65 µm.") == split_words(
        "sub - rpe drusen , up to 65 μm ."
    )


def test_chinese_and_japanese_are_scored_by_character():
    assert split_words("OCT示黄斑水肿，厚度250微米。") == [
        "oct", *"示黄斑水肿,厚度", "250", *"微米。",
    ]  # fmt: skip
    assert split_words("黄 斑 水 肿 ， ド ルーゼン") == split_words("黄斑水肿，ドルーゼン")
    scores = score_words(["黄斑区可见水肿"], ["黄斑区未见水肿"])
    assert (scores["bleu_1"], scores["rouge_l"]) == pytest.approx((6 / 7, 6 / 7))


@pytest.mark.parametrize(
    "report",
    ["Keine Drusen, subretinale Flüssigkeit.", "Pas de drusen.", "未见积液。", "Нет отёка."],
)
def test_findings_of_other_languages_are_not_guessed(report):
    scores = score_findings([report, "Drusen."], ["drusen.", "drusen."])
    assert scores["micro_f1"] is scores["same_findings"] is None and scores["findings"] == {}
    english = ["Müller cell cone, no drusen.", *["Drusen with fluid, 250 µm."] * 6]
    assert score_findings(english, english)["same_findings"] == 1


def test_the_same_text_scores_one():
    scores = score_words(["Drusen, no fluid at all."], ["drusen, no fluid at all."])
    meteor = scores.pop("meteor_exact_stem")
    assert all(value == pytest.approx(1.0) for value in scores.values())
    assert meteor == pytest.approx(1 - 0.5 / 7**3), "one chunk of seven words"


def test_bleu_by_hand():
    """Reference: a b c d e; written: a b c x. Precisions 3/4, 2/3, 1/2; brevity exp(1 - 5/4)."""
    scores = score_words(["a b c d e"], ["a b c x"])
    brevity = math.exp(1 - 5 / 4)
    assert scores["bleu_1"] == pytest.approx(brevity * 3 / 4)
    assert scores["bleu_2"] == pytest.approx(brevity * math.sqrt(3 / 4 * 2 / 3))
    assert scores["bleu_3"] == pytest.approx(brevity * (3 / 4 * 2 / 3 * 1 / 2) ** (1 / 3))


def test_bleu_is_that_of_the_corpus():
    both = score_words(["a b", "c d e f"], ["a x", "c d e f"])
    assert both["bleu_1"] == pytest.approx(5 / 6)


def test_rouge_l_by_hand():
    """Longest common subsequence of a b c d e and a x c e is a c e: 3/4 and 3/5."""
    scores = score_words(["a b c d e", "p q"], ["a x c e", "r s"])
    f1 = 2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5)
    assert scores["rouge_l"] == pytest.approx(f1 / 2)


def test_meteor_by_hand_with_stems_and_without_synonyms():
    """Drusen and membrane(s) match, in two chunks; F = 10PR / (R + 9P), penalty 0.5 (2/2)^3."""
    scores = score_words(["drusen and membrane"], ["drusen membranes"])
    precision, recall = 2 / 2, 2 / 3
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    assert scores["meteor_exact_stem"] == pytest.approx(mean * (1 - 0.5 * (2 / 2) ** 3))
    assert score_words(["oedema"], ["swelling"])["meteor_exact_stem"] == 0
    assert score_words(["oedema"], [""])["meteor_exact_stem"] == 0


def test_findings_by_hand():
    true = ["Drusen, no fluid.", "SRF and PED.", "No obvious abnormality.", "Drusen."]
    ours = ["drusen, no drusen elsewhere.", "subretinal fluid, no ped.", "normal.", "ga, srf."]
    scores = score_findings(true, ours)
    assert scores["findings"]["drusen"] == {
        "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2,
    }  # fmt: skip
    assert scores["findings"]["subretinal_fluid"]["precision"] == 0.5
    assert scores["findings"]["pigment_epithelial_detachment"]["precision"] is None
    assert scores["findings"]["macular_hole"]["f1"] is None
    assert scores["micro_f1"] == pytest.approx(2 * 2 / (4 + 4))
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert scores["same_findings"] == 0.5
