"""The descriptions that come with the product, and those of users."""

from __future__ import annotations

import pytest

from linprobe.prepare.registry import DATASETS
from retfiner.common.errors import InputError
from retfiner.data.phantoms.tasks import TASKS
from retfiner.evaluation.zero_shot.prompts import FOLDER, check_classes, find_prompts, read_prompts

CLASSES = {name: list(spec.classes) for name, spec in DATASETS.items()} | {
    name: list(recipes) for name, (recipes, _) in TASKS.items()
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_data_set_has_several_descriptions_of_each_class(name):
    path = find_prompts(name, None)
    prompts = read_prompts(path)
    check_classes(prompts, CLASSES[name], path)
    everything = [text for texts in prompts.values() for text in texts]
    assert len(everything) == len(set(everything)), "no description serves two classes"
    assert all(len(texts) >= 4 for texts in prompts.values())
    assert all(len(text.split()) >= 2 for text in everything), "not only a name"
    assert max(len(text.split()) for text in everything) <= 14, "fits in 30 WordPieces"


def test_no_file_is_left_over():
    assert {path.stem for path in FOLDER.iterdir()} == set(CLASSES)


def write(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_keys_are_taken_as_written(tmp_path):
    path = write(tmp_path, "NO: [no  fluid]\n1: a single description\nyes:\n  - drusen\n  - RPE\n")
    assert read_prompts(path) == {
        "NO": ["no fluid"],
        "1": ["a single description"],
        "yes": ["drusen", "RPE"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "holds no descriptions"),
        ("", "holds no descriptions"),
        ("a: {b: c}\n", "form"),
        ("a: [[b]]\n", "form"),
        ("a: []\n", "without a description"),
        ("a: ['']\n", "without a description"),
        ("a: b\na: c\n", "twice"),
        ("a: [b\n", "cannot be read"),
    ],
)
def test_what_is_no_table_of_descriptions_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_prompts(write(tmp_path, text))


def test_nothing_in_the_file_is_executed(tmp_path):
    marker = tmp_path / "marker"
    path = write(tmp_path, f"a: !!python/object/apply:os.system ['touch {marker}']\nb: c\n")
    with pytest.raises(InputError, match="tags are not read"):
        read_prompts(path)
    assert not marker.exists()


def test_missing_and_unknown_classes_are_named(tmp_path):
    path = write(tmp_path, "AMD: drusen\nDMME: cysts\n")
    with pytest.raises(InputError, match=r"no description of: DME; no images of: DMME"):
        check_classes(read_prompts(path), ["AMD", "DME"], path)
    with pytest.raises(InputError, match="no descriptions of the classes"):
        find_prompts("Unheard_of", None)
