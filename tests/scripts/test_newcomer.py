"""From nothing to a report by what the commands themselves say comes next, pasted as printed."""

import shlex
import shutil

import pytest

from tests.helpers.probing_data import write_data_set
from tests.helpers.refinement import make_material
from tests.helpers.scripts import copy_repository, paste


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return copy_repository(tmp_path_factory.mktemp("new"))


def next_of(done):
    """The commands below Next, as they would be copied from the terminal."""
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.partition("Next:")[2].strip().splitlines()]


def test_a_model_script_says_what_is_missing(repository):
    said = paste("./retfound.sh", repository).stderr
    assert "RETFound is not downloaded yet" in said and "get.py RETFound" in said
    assert "RETFound_oct_weights.pth" in said and "../pretrained_weights" in said
    said = paste("./retfound.sh --init_weights base.pth", repository).stderr
    assert "RetFiner-R is not downloaded yet" in said
    said = paste("./mae.sh --init_weights base.pth", repository).stderr
    assert "base.pth" in said


@pytest.mark.slow
def test_each_next_line_can_be_pasted(repository):
    material = make_material(repository.parent / "my data")
    base = repository / "pretrained_weights" / "RETFound_oct_weights.pth"
    shutil.copy(material.weights, base)
    write_data_set(repository / "linear_probing" / "_data" / "OCTID")
    words = ["--csv", material.csv, "--output", repository.parent / "my pairs"]
    [train] = next_of(
        paste(
            f"python ../RetFiner/prepare_pairs.py {shlex.join(map(str, words))} --num_workers 0",
            repository,
        )
    )
    train = train.replace("path/to/visionmodel.pth", shlex.quote(str(base)))
    train += f" --text_encoder {shlex.quote(str(material.text_encoder))}"
    few = "--max_epochs 1 --batch_size 8 --num_workers 0 --accelerator cpu"
    [extract] = next_of(paste(f"{train} {few} --output_dir ../RetFiner/models", repository))
    done = paste(extract, repository)
    assert done.returncode == 0, done.stderr

    few = "--seed 0 --views 2 --device cpu --num_workers 0"
    other, report = next_of(paste(f"./retfound.sh {few}", repository))
    assert next_of(paste(other, repository)) == [report]
    done = paste(report, repository)
    assert done.returncode == 0, done.stderr
    assert "OCTID" in done.stdout
