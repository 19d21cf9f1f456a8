"""What the cut leaves of reports, counted by hand."""

import pytest

from retfiner.common.errors import InputError
from retfiner.data.after_cut import cut_reports, require_readable, unknown_note
from retfiner.text.tokenizer import train_tokenizer

REPORTS = ["one two three four", "one two three five", "one two six", "one two six", "seven"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(REPORTS * 3, 200)


def test_reports_that_the_cut_makes_alike_are_counted_once_each(tokenizer):
    found = cut_reports(tokenizer, REPORTS, 5)
    assert (found.distinct, found.alike, found.largest, found.cut) == (4, 2, 2, 2)
    assert found.texts == 3
    assert found.lengths.tolist() == [6, 6, 5, 5, 3]
    assert (found.unknown, found.unread) == (0, 0)
    require_readable(found, 0.3)  # two may be chance
    letters = [f"one two three {word}" for word in ("four", "five", "six", "seven", "one")]
    found = cut_reports(tokenizer, [*letters, *REPORTS], 5)
    require_readable(found, 0.8)
    with pytest.raises(InputError, match="5 of 7 different reports are one") as caught:
        require_readable(found, 0.3)
    assert "--strip_common" in str(caught.value) and "--max_alike 1" in str(caught.value)


def test_a_report_that_most_rows_repeat_counts_once(tokenizer):
    found = cut_reports(tokenizer, [*REPORTS, *["seven"] * 20], 30)
    assert (found.distinct, found.alike, found.largest) == (4, 0, 1)
    require_readable(found, 0.3)


def test_reports_that_become_few_texts_are_an_error(tokenizer):
    words = ("one", "two", "three", "four", "five")
    reports = [f"{word} {word} two {' '.join(['six'] * k)}" for word in words for k in range(1, 6)]
    found = cut_reports(tokenizer, reports, 5)
    assert (found.distinct, found.texts, found.largest) == (25, 5, 5)
    with pytest.raises(InputError, match=f"{found.distinct} different reports are {found.texts} t"):
        require_readable(found, 0.3)
    require_readable(found, 1)


def test_one_report_for_all_is_an_error(tokenizer):
    with pytest.raises(InputError, match=r"all reports say the same[\s\S]*--report_column"):
        require_readable(cut_reports(tokenizer, ["one two"] * 9, 30), 1)


def test_a_language_that_the_encoder_does_not_know_is_an_error(tokenizer):
    found = cut_reports(tokenizer, ["黄斑水肿", "未见积液", "one two"], 30)
    assert found.unread == pytest.approx(2 / 3)
    with pytest.raises(InputError, match=r"does not know the words[\s\S]*--from_reports"):
        require_readable(found, 1)
    some = cut_reports(tokenizer, ["one two three four five six ω", "one two"], 30)
    require_readable(some, 1)
    assert "11 %" in unknown_note(some)
