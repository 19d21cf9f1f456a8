"""Reports of a refined model: text, scores, seeds, and the page."""

from __future__ import annotations

import json
import re

import pytest

from retfiner.common.errors import InputError
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.reports.page import mark_findings
from retfiner.evaluation.run import evaluate
from retfiner.refine import refine
from tests.helpers.refinement import make_material, settings, write_csv


def configure(refined, **changes):
    values = {"task": "report", "model": refined[1], "data": refined[0].csv, "device": "cpu",
              "num_workers": 0, "precision": "32-true"}  # fmt: skip
    return EvaluateConfig(**(values | changes))


def test_reports_are_written_for_the_validation_part(refined, tmp_path):
    numbers = evaluate(configure(refined, output=tmp_path / "reports.json"))
    assert (numbers["part"], numbers["pairs"]) == ("validation", 18)
    rows = [line["row"] for line in numbers["reports"]]
    assert rows == sorted(set(rows)) and min(rows) >= 2
    written = [line["written"] for line in numbers["reports"]]
    assert not any("[" in text for text in written), "no special token is in a text"
    assert numbers["distinct_written"] == len(set(written))
    commonest = numbers["commonest_report"]
    true = [line["reference"] for line in numbers["reports"]]
    assert true.count(commonest) == max(true.count(text) for text in true)
    for kind in ("scores", "scores_of_other_images", "scores_of_commonest_report"):
        assert 0 <= numbers[kind]["rouge_l"] <= 1
    stored = json.loads((tmp_path / "reports.json").read_text())
    assert stored["reports"] == numbers["reports"]
    assert stored["settings"]["task"] == "report"


def test_the_seed_decides_drawn_reports_and_the_batch_does_not(refined):
    def texts(**changes):
        numbers = evaluate(configure(refined, decode="nucleus", top_p=0.95, **changes))
        return [line["written"] for line in numbers["reports"]]

    first = texts()
    assert first == texts() == texts(batch_size=5)
    assert first != texts(seed=1)


def test_beams_find_likelier_reports(refined):
    def total(**changes):
        numbers = evaluate(configure(refined, **changes))
        return sum(line["log_probability"] for line in numbers["reports"])

    assert total(decode="beam", beams=12) > total()


def test_the_page_shows_both_reports_and_carries_images_only_when_asked(refined, tmp_path):
    page = tmp_path / "page.html"
    evaluate(configure(refined, page=page, page_rows=4))
    text = page.read_text(encoding="utf-8")
    assert "Research output, not a diagnosis." in text
    assert "<img" not in text
    assert text.count('<th scope="row">') == 4
    assert not re.findall(r"(?:src|href)=[\"']?(?!data:)", text), "nothing is fetched"
    evaluate(configure(refined, page=page, page_rows=4, thumbnails=True))
    assert page.read_text(encoding="utf-8").count("data:image/jpeg;base64,") == 4


def test_findings_are_marked_by_agreement():
    both = mark_findings("Soft Drusen <b>, no SRF.", frozenset({"drusen"}), "missed")
    assert both == [
        ("Soft ", "", ""),
        ("Drusen", "both", "drusen"),
        (" <b>, no ", "", ""),
        ("SRF", "denied", "subretinal fluid"),
        (".", "", ""),
    ]
    alone = mark_findings("soft drusen", frozenset(), "invented")
    assert alone[1] == ("drusen", "invented", "drusen")


def test_a_model_without_gm_is_refused(tmp_path):
    material = make_material(tmp_path, pairs=16, patients=8)
    run = refine(settings(material, tmp_path / "models", max_epochs=1, losses=["mlm"]))
    with pytest.raises(InputError, match="cannot be used for writing reports"):
        evaluate(configure((material, run.folder)))
    with pytest.raises(InputError, match="cannot be used for retrieval"):
        evaluate(configure((material, run.folder), task="retrieval"))
    with pytest.raises(InputError, match="cannot be used for zero-shot"):
        evaluate(configure((material, run.folder), task="zero_shot", data=tmp_path))


def test_text_of_the_table_cannot_break_the_page(refined, tmp_path):
    folder = refined[0].csv.parent
    rows = [["images/scan_000.png", "a <drusen> & \"<b\"", "a"],
            ["images/scan_002.png", "no fluid & \"more\"", "b"]]  # fmt: skip
    table = write_csv(tmp_path / "odd.csv", rows)
    page = tmp_path / "page.html"
    evaluate(configure(refined, data=table, image_root=folder, page=page))
    text = page.read_text(encoding="utf-8")
    assert "<drusen" not in text
    assert "&lt;<mark" in text
    assert re.search(r'<mark class="(both|missed)" title="drusen">drusen</mark>&gt;', text)
