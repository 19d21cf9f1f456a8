"""A data set of one's own, from a file that no process has imported before."""

import pickle
from pathlib import Path

import pytest

from retfiner.common.errors import InputError
from retfiner.data.custom import UserDataset, load_dataset_class, takes

PLAIN = """
class Pairs:
    def __init__(self, transform):
        self.transform = transform
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return [self.transform(index), f"report {index}"]
"""


def write(folder: Path, text: str) -> str:
    (folder / "mine.py").write_text(text)
    return f"{folder / 'mine.py'}:Pairs"


def double(index: int) -> int:
    return 2 * index


def test_a_class_gets_what_it_asks_for(tmp_path):
    reference = write(tmp_path, PLAIN)
    data = UserDataset(reference, transform=double, image_root=None)
    assert (len(data), data[3]) == (4, [6, "report 3"])
    assert not takes(reference, "split")


def test_keyword_arguments_get_everything(tmp_path):
    text = "class Pairs(list):\n    def __init__(self, **given):\n        self.given = given\n"
    data = UserDataset(write(tmp_path, text), transform=double, split="train")
    assert data.pairs.given == {"transform": double, "split": "train"}


def test_a_split_argument_is_seen(tmp_path):
    text = "class Pairs(list):\n    def __init__(self, split):\n        super().__init__([split])\n"
    reference = write(tmp_path, text)
    assert takes(reference, "split")
    assert UserDataset(reference, split="validation", transform=double)[0] == "validation"


def test_a_class_without_constructor_is_taken(tmp_path):
    text = (
        "from torch.utils.data import Dataset\n"
        "class Pairs(Dataset):\n    def __len__(self): return 1\n"
        "    def __getitem__(self, i): return i\n"
    )
    assert UserDataset(write(tmp_path, text), transform=double)[0] == 0


def test_it_can_be_sent_to_a_process_that_has_never_seen_the_file(tmp_path):
    text = PLAIN.replace(
        "self.transform = transform", "self.transform = transform; self.l = lambda: 0"
    )
    data = UserDataset(write(tmp_path, text), transform=double)
    again = pickle.loads(pickle.dumps(data))  # the lambda inside could not be pickled
    assert again[2] == data[2]


@pytest.mark.parametrize(
    "reference", ["mine.py", "mine.py:", "mine.txt:Pairs", "mine.py:not a name", "Pairs", ""]
)
def test_a_reference_of_another_form(reference):
    with pytest.raises(InputError, match="--dataset cannot be understood") as caught:
        load_dataset_class(reference)
    assert "path/to/file.py:Class" in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        load_dataset_class(f"{tmp_path / 'nothing.py'}:Pairs")


def test_no_class_names_those_there_are(tmp_path):
    reference = write(tmp_path, PLAIN + "\nthing = 3\n").replace(":Pairs", ":thing")
    with pytest.raises(InputError, match=r"no class thing.*\n.*Pairs"):
        load_dataset_class(reference)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("import no_such_module_anywhere\n", "ModuleNotFoundError"),
        ("class Pairs(\n", "SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_imported(tmp_path, text, got):
    with pytest.raises(InputError, match=f"cannot be imported.*\n.*{got}"):
        load_dataset_class(write(tmp_path, text))


def test_arguments_that_are_not_known(tmp_path):
    text = PLAIN.replace("transform):", "transform, colour, size=3):")
    with pytest.raises(InputError, match=r"arguments that are not known.*\n.*colour\n") as caught:
        UserDataset(write(tmp_path, text), transform=double, split="train")
    assert "transform, split" in str(caught.value)


def test_a_class_that_is_no_data_set(tmp_path):
    with pytest.raises(InputError, match="is not a data set"):
        UserDataset(write(tmp_path, "class Pairs:\n    pass\n"), transform=double)
