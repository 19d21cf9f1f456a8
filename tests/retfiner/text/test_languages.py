"""Reports in German and Chinese: a vocabulary out of them, and a multilingual one, read them."""

import pytest
from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizerFast

from retfiner.common.errors import InputError
from retfiner.data.after_cut import cut_reports, require_readable, unknown_note
from retfiner.refine import refine
from retfiner.text.tokenizer import (
    SPECIAL_TOKENS,
    load_tokenizer,
    tokenizer_as_text,
    tokenizer_from_text,
    train_tokenizer,
)
from tests.helpers.refinement import make_material, read_csv, settings, write_csv
from tests.helpers.scripts import run_script

ENGLISH = ["Subretinal fluid in the fovea.", "Drusen temporal of the fovea, no fluid."]
GERMAN = ["Subretinale Flüssigkeit, größeres Ödem.", "Drusen temporal der Fovea, Drüsen frei."]
CHINESE = ["黄斑区视网膜下积液，中心凹增厚。", "玻璃膜疣，未见积液。"]


@pytest.mark.parametrize("reports", [GERMAN, CHINESE], ids=["German", "Chinese"])
def test_a_vocabulary_out_of_reports_reads_them(reports):
    tokenizer = train_tokenizer(reports * 5, 400)
    found = cut_reports(tokenizer, reports, 64)
    assert found.unknown == 0
    ids = tokenizer(reports[0])["input_ids"]
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(decoded.split()) == "".join(reports[0].lower().split()), "nothing is lost"


def test_german_keeps_its_umlauts_and_chinese_its_characters():
    german = train_tokenizer(GERMAN * 5, 400)
    assert german.tokenize("Drüsen Drusen") == ["drüsen", "drusen"]
    again = tokenizer_from_text(tokenizer_as_text(german))
    assert again.tokenize("Drüsen Drusen") == ["drüsen", "drusen"], "in a checkpoint, too"
    chinese = train_tokenizer(CHINESE * 5, 400)
    assert chinese.tokenize("黄斑区未见积液") == list("黄斑区未见积液")


def multilingual(folder):
    """Write a cased vocabulary of all three languages, as multilingual BERTs have them."""
    trainer = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    texts = [*ENGLISH, *GERMAN, *CHINESE] * 5
    trainer.train_from_iterator(
        texts, vocab_size=600, min_frequency=1, show_progress=False,
        special_tokens=list(SPECIAL_TOKENS),
    )  # fmt: skip
    BertTokenizerFast(vocab=trainer.get_vocab(), do_lower_case=False).save_pretrained(folder)
    return load_tokenizer(folder)


def test_a_multilingual_one_reads_all_and_an_english_one_is_refused(tmp_path):
    tokenizer = multilingual(tmp_path / "multilingual")
    for reports in (ENGLISH, GERMAN, CHINESE):
        found = cut_reports(tokenizer, reports, 64)
        require_readable(found, 1)
        assert found.unknown == 0
    english = train_tokenizer(ENGLISH * 5, 400)
    found = cut_reports(english, CHINESE, 64)
    assert found.unknown == 1
    with pytest.raises(InputError, match="does not know the words"):
        require_readable(found, 1)
    some = cut_reports(english, [*ENGLISH * 4, *(f"{r} fovea." for r in GERMAN)], 64)
    assert unknown_note(cut_reports(english, ENGLISH, 64)) is None
    assert some.unknown < 0.5


@pytest.mark.parametrize("reports", [GERMAN, CHINESE], ids=["German", "Chinese"])
def test_from_reports_to_a_refined_model(tmp_path, reports):
    material = make_material(tmp_path, pairs=12, patients=6)
    rows = [[image, f"{reports[i % 2]} {i}", patient]
            for i, (image, _, patient) in enumerate(read_csv(material.csv))]  # fmt: skip
    write_csv(material.csv, rows)
    own = tmp_path / "own"
    done = run_script("build_text_encoder.py", "--from_reports", material.csv, "--output", own,
                      "--width", "64", "--layers", "1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = settings(material._replace(text_encoder=own), tmp_path / "runs", max_epochs=1)
    assert (refine(run).folder / "best-model.ckpt").is_file()
