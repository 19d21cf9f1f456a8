"""Weights are found as downloads and extraction name them; what is missing is named."""

from pathlib import Path

import pytest

from linprobe.config import ProbeConfig
from linprobe.find_weights import AUTO, PUBLISHED, find_weights
from retfiner.common.errors import InputError
from retfiner.vision import BACKBONES

RUN = "RETFound_itc-itm-mlm-gm_temp0.07_lr0.0001_bs128"


@pytest.fixture
def home(tmp_path):
    for folder in ("linear_probing/_weights", "pretrained_weights", f"RetFiner/models/{RUN}"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path / "linear_probing"


def find(home, init=AUTO, ft=None, backbone="RETFound"):
    found = find_weights(ProbeConfig(init_weights=init, ft_weights=ft, backbone=backbone), home)
    return found.init_weights, found.ft_weights


def touch(home, name):
    path = (home / name).resolve()
    path.touch()
    return path


def test_every_backbone_is_one_of_ours():
    assert PUBLISHED.keys() <= BACKBONES.keys()


def test_files_that_are_named_are_left_alone(home):
    named = Path("mine.pth"), Path("other.pth")
    assert find(home, *named, backbone="auto") == named


@pytest.mark.parametrize("folder", ["_weights", "../pretrained_weights"])
def test_a_published_file_is_found_in_either_folder(home, folder):
    second = touch(home, f"{folder}/RETFound_oct_weights.pth")
    assert find(home)[0].resolve() == second
    first = touch(home, f"{folder}/RETFound_mae_natureOCT.pth")
    assert find(home)[0].resolve() == first
    assert find(home, Path("mine.pth")) == (Path("mine.pth"), None)


def test_what_was_looked_for_is_said(home):
    with pytest.raises(InputError) as caught:
        find(home, ft=AUTO)
    text = str(caught.value)
    assert "no RETFound_mae_natureOCT.pth and no RETFound_oct_weights.pth in" in text
    assert "pretrained_weights/get.py RETFound, or give a file with --init_weights" in text


def test_names_stand_for_what_is_downloaded(home):
    base, refined = touch(home, "_weights/urfound_mm.pth"), home / "mine.pth"
    given = ProbeConfig(weights=["base=UrFound", f"refined={refined}"])
    assert find_weights(given, home).weights == [f"base={base}", f"refined={refined}"]
    at_home = ProbeConfig(weights=["mine=~/a.pth"])  # which not every shell expands behind =
    assert find_weights(at_home, home).weights == [f"mine={Path.home() / 'a.pth'}"]
    released = touch(home, "../pretrained_weights/RetFiner_UrFound.pth")
    found = find(home, Path("urfound"), Path("RetFiner-U"), backbone="auto")
    assert [path.resolve() for path in found] == [base, released]
    with pytest.raises(
        InputError, match=r"RetFiner-V is not downloaded yet(?s:.*)get\.py RetFiner-V"
    ):
        find_weights(ProbeConfig(weights=["a=UrFound", "b=RetFiner-V"]), home)


def test_without_a_refined_model_the_way_to_one_is_said(home):
    touch(home, "_weights/RETFound_oct_weights.pth")
    with pytest.raises(
        InputError,
        match=r"(?s)no refined RETFound.*train\.py --model_weights .*"
        r"RETFound_oct_weights\.pth --train_csv.*or .*get\.py RetFiner-R",
    ):
        find(home, ft=AUTO)  # fmt: skip
    touch(home, f"../RetFiner/models/{RUN}/best-model.ckpt")
    with pytest.raises(InputError, match=rf"extract your run: .*linprobing\.py .*{RUN}/best-model"):
        find(home, ft=AUTO)


@pytest.mark.parametrize(
    "name",
    [
        f"_weights/best-model_{RUN}_bscan.pth",
        "_weights/RetFiner_RETFound.pth",
        "../pretrained_weights/RetFiner_RETFound.pth",
    ],
)
def test_an_extracted_or_a_released_model_is_found(home, name):
    touch(home, "_weights/best-model_RETFound-Green_itc_bscan.pth")  # of another backbone
    refined = touch(home, name)
    assert find(home, Path("base.pth"), AUTO)[1].resolve() == refined


def test_of_several_refined_models_none_is_chosen_for_the_user(home):
    names = ("_weights/RetFiner_RETFound.pth", f"_weights/best-model_{RUN}_bscan.pth")
    for name in names:
        touch(home, name)
    with pytest.raises(InputError, match="choose it with --ft_weights") as caught:
        find(home, Path("base.pth"), AUTO)
    assert all(Path(name).name in str(caught.value) for name in names)


def test_auto_needs_a_backbone_with_published_files(home):
    with pytest.raises(InputError, match=r"--backbone auto(?s:.*)one of RETFound"):
        find(home, backbone="auto")
