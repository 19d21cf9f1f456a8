"""A wrong path or column is told before anything heavy is imported: in a second, not in ten."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.probing_data import write_data_set
from tests.helpers.refinement import make_material

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "timm", "pandas", "sklearn", "scipy.stats", "matplotlib")

RUN_ALL = """
import contextlib, io, json, runpy, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # who imports one of these fails
answers = []
for words in json.loads(sys.argv[2]):
    sys.argv, said, status = words, io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            if words[0].endswith(".py"):
                runpy.run_path(words[0], run_name="__main__")
            else:
                runpy.run_module(words[0], run_name="__main__")
        except SystemExit as end:
            status = end.code
    answers.append((status, said.getvalue()))
print(json.dumps(answers))
"""

TRAIN = "RetFiner/train.py --model_weights {weights} --text_encoder {bert}"
EVALUATE = "RetFiner/evaluate.py --task retrieval --model {weights}"
PROBE = "linear_probing/probe.py --data_root {tasks} --init_weights"
NO_WEIGHTS = "There is no checkpoint at nowhere"
NO_COLUMN = "lacks a column"
CASES = {
    "RetFiner/train.py --model_weights nowhere.pth --train_csv {csv} --text_encoder {bert}":
        NO_WEIGHTS,
    "RetFiner/train.py --model_weights mae-huge --train_csv {csv} --text_encoder {bert}":
        "MAE-Huge is not downloaded yet",
    "linear_probing/probe.py --weights base=MAE-Huge --data_root {tasks}":
        "MAE-Huge is not downloaded yet",
    f"{TRAIN} --train_csv nowhere.csv": "there is no file nowhere.csv",
    f"{TRAIN} --train_csv {{csv}} --val_csv nowhere.csv": "there is no file nowhere.csv",
    f"{TRAIN} --train_csv {{csv}} --report_column text": NO_COLUMN,
    f"{TRAIN} --train_csv {{csv}} --text_encoder nowhere": "no text encoder can be loaded",
    f"{TRAIN} --train_csv {{csv}} --image_root nowhere": "rows of",
    f"{TRAIN} --train_csv {{csv}} --resume nowhere": "there is nothing to resume",
    f"{TRAIN} --dataset nowhere.py:Pairs": "there is no file nowhere.py",
    "RetFiner/get_vision_backbone_for_linprobing.py --path_to_model nowhere.ckpt": NO_WEIGHTS,
    "RetFiner/evaluate.py --task retrieval --model nowhere --data {csv}": NO_WEIGHTS,
    f"{EVALUATE} --data nowhere.csv": "there is no file nowhere.csv",
    f"{EVALUATE} --data {{csv}} --image_column picture": NO_COLUMN,
    f"{EVALUATE} --data {{csv}} --text_encoder nowhere": "no tokenizer can be loaded",
    "RetFiner/evaluate.py --task zero_shot --model {weights} --data nowhere": "there is no folder",
    "RetFiner/explain.py --model nowhere --data {csv} --row 2": NO_WEIGHTS,
    "RetFiner/explain.py --model {weights} --image nowhere.png --report x": "There is no image",
    "RetFiner/explain.py --model {weights} --data {csv} --row 2 --report_column x": NO_COLUMN,
    "RetFiner/prepare_pairs.py --csv nowhere.csv --output never": "there is no file nowhere.csv",
    "RetFiner/prepare_pairs.py --csv {csv} --output never --image_column x": NO_COLUMN,
    "RetFiner/prepare_pairs.py --csv {csv} --output never --text_encoder nowhere":
        "no tokenizer can be loaded",
    "RetFiner/build_text_encoder.py --from_reports nowhere.csv --output never": "there is no file",
    "RetFiner/build_text_encoder.py --from_reports {csv} --report_column x --output never":
        NO_COLUMN,
    "RetFiner/build_text_encoder.py --source ./nowhere --output never": "no text encoder can be",
    "RetFiner/build_text_encoder.py --output {bert}": "exists and is no empty folder",
    "RetFiner/pretrain_base.py --images nowhere --output never.pth": "no such folder",
    f"{PROBE} nowhere.pth": NO_WEIGHTS,
    f"{PROBE} {{weights}} --ft_weights nowhere.pth": NO_WEIGHTS,
    f"{PROBE} {{weights}} --data_set nowhere": "No data set of this name",
    f"{PROBE} {{weights}} --data_root nowhere": "There is no folder nowhere",
    "linear_probing/report.py --base baseline/x --refined refined/x": "There are no results",
    "linear_probing/prepare_dataset.py OCTDL --source nowhere.zip": "There is no nowhere.zip",
    "linear_probing/prepare_dataset.py NOPE --source nowhere.zip": "There is no data set NOPE",
    "retfiner.browse nowhere --data {csv}": NO_WEIGHTS,
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each command answers where nothing heavy can be imported."""
    folder = tmp_path_factory.mktemp("wrong")
    material = make_material(folder / "material")
    write_data_set(folder / "tasks" / "OCTID")
    there = {
        "weights": material.weights, "csv": material.csv, "bert": material.text_encoder,
        "tasks": folder / "tasks",
    }  # fmt: skip
    lines = [[word.format(**there) for word in case.split()] for case in CASES]
    lines = [[str(ROOT / w[0]) if "/" in w[0] else w[0], *w[1:]] for w in lines]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(HEAVY), json.dumps(lines)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob("never*"))
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_path_is_told_without_torch(answers, case):
    status, said = answers[case]
    assert status == 2, said
    assert CASES[case] in said
    assert "Traceback" not in said
