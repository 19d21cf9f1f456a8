"""Words, whether blanks part them or not."""

from retfiner.text.words import PARTED, split_words, without_needless_blanks


def test_blanks_part_words_and_chinese_and_japanese_need_none():
    assert split_words("Sub-RPE fluid, 1.5 mm: Ödem") == [
        "Sub",
        "RPE",
        "fluid",
        "1",
        "5",
        "mm",
        "Ödem",
    ]
    assert split_words("OCT：黄斑水肿。ドル") == ["OCT", *"黄斑水肿", *"ドル"]
    assert PARTED.findall("Sub-RPE fluid, 黄斑x") == ["Sub-RPE", "fluid,", "黄", "斑", "x"]


def test_blanks_that_a_vocabulary_of_characters_leaves_are_taken_out():
    written = "oct 示 黄 斑 水 肿 ， 厚 度 250 微 米 。 ， ，"
    assert without_needless_blanks(written) == "oct示黄斑水肿，厚度250微米。，，"
    for text in ("no change , 1.5 mm", "größer , Ödem", "отёк макулы"):
        assert without_needless_blanks(text) == text
