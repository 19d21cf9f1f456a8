"""WordPieces are joined to the words a reader sees."""

from __future__ import annotations

import pytest
from transformers import BertTokenizerFast

from retfiner.explanation.words import words_of


@pytest.fixture(scope="module")
def tokenizer():
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "full", "-", "thick", "##ness", "hole"]
    pieces += [",", ".", "1", "2", "mm", "sub", "##retinal", "fluid", "(", ")", "µm"]
    return BertTokenizerFast(vocab={piece: n for n, piece in enumerate(pieces)})


def test_words_and_their_pieces(tokenizer):
    report = "Full-thickness hole, 1.2 mm (subretinal fluid)."
    found = words_of(tokenizer, report, 40)
    ids = tokenizer(report)["input_ids"]
    named = {
        word.text: tokenizer.convert_ids_to_tokens([ids[p] for p in word.pieces]) for word in found
    }
    assert named == {
        "Full-thickness": ["full", "thick", "##ness"],
        "hole": ["hole"],
        "1.2": ["1", "2"],
        "mm": ["mm"],
        "subretinal": ["sub", "##retinal"],
        "fluid": ["fluid"],
    }
    for word in found:
        assert report[word.start : word.end] == word.text


def test_what_is_cut_has_no_pieces(tokenizer):
    found = words_of(tokenizer, "hole, fluid mm mm", 5)  # [CLS] hole , fluid [SEP]
    assert [(word.text, bool(word.pieces)) for word in found] == [
        ("hole", True), ("fluid", True), ("mm", False), ("mm", False),
    ]  # fmt: skip


def test_each_chinese_character_is_a_word(tokenizer):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"黄斑水肿，。", "oct"]
    vocabulary = {piece: n for n, piece in enumerate([*pieces, "ドル", "##ーゼン"])}
    other = BertTokenizerFast(vocab=vocabulary, strip_accents=False)
    report = "OCT：黄斑水肿，ドルーゼン。“黄斑”。"
    found = words_of(other, report, 40)
    assert [word.text for word in found] == ["OCT", *"黄斑水肿", "ドルーゼン", *"黄斑"]
    assert [len(word.pieces) for word in found] == [1, 1, 1, 1, 1, 2, 1, 1]
    for word in found:
        assert report[word.start : word.end] == word.text
    assert [word.text for word in words_of(other, report, 6) if not word.pieces] == [
        *"水肿", "ドルーゼン", *"黄斑",
    ]  # fmt: skip


def test_the_same_word_twice_is_two_words(tokenizer):
    first, second = words_of(tokenizer, "hole hole", 40)
    assert (first.pieces, second.pieces) == ((1,), (2,))
