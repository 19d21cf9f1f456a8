"""get_vision_backbone_for_linprobing.py as a user runs it, from any folder and for any path."""

import shutil

import pytest
import torch

from retfiner.refine import refine
from retfiner.vision import load_backbone
from tests.helpers.refinement import make_material, settings
from tests.helpers.scripts import REFINEMENT, run_script

SCRIPT = "get_vision_backbone_for_linprobing.py"
WEIGHTS = REFINEMENT.parent / "linear_probing" / "_weights"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose folder has a name that no other has, with a space, an umlaut and an =."""
    folder = tmp_path_factory.mktemp("run")
    material = make_material(folder, pairs=12, patients=6)
    done = refine(settings(material, folder / "mein Ordner", max_epochs=1)).folder
    return done.rename(done.with_name(f"{folder.name} über=1 {id(folder)}"))


def trained(run):
    state = torch.load(run / "best-model.ckpt", weights_only=True)["state_dict"]
    prefix = "model.vision_encoder."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def test_it_writes_where_linear_probing_looks(run, tmp_path):
    """By a relative path, from a folder that has nothing to do with the repository."""
    written = WEIGHTS / f"best-model_{run.name}_bscan.pth"
    try:
        done = run_script(SCRIPT, "--path_to_model", "best-model.ckpt", cwd=run)
        assert done.returncode == 0, done.stderr
        assert str(written) in done.stdout
        content = torch.load(written, weights_only=True)
        expected = trained(run)
        assert content["model"].keys() == expected.keys()
        assert all(torch.equal(content["model"][key], expected[key]) for key in expected)
        assert content["retfiner"]["backbone"] == "RETFound"
    finally:
        written.unlink(missing_ok=True)


def test_format_and_output_for_a_name_as_lightning_gives_it(run, tmp_path):
    path = tmp_path / "epoch=3-step=70.ckpt"
    shutil.copy(run / "best-model.ckpt", path)
    output = tmp_path / "neuer Ordner" / "ü.safetensors"
    done = run_script(
        SCRIPT, f"--path_to_model={path}", "--format", "safetensors", "--output", output
    )
    assert done.returncode == 0, done.stderr
    state = load_backbone(output).encoder.state_dict()
    assert all(torch.equal(state[key], value) for key, value in trained(run).items())
