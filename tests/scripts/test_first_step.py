"""What a run imports until its first step, and probing until its first feature: what it uses."""

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers.refinement import make_material

ROOT = Path(__file__).parents[2]
UNUSED = ("sklearn", "pandas", "scipy.signal", "scipy.stats", "torchmetrics.functional", "IPython")

TRAIN_ONE_STEP = """
import importlib.abc, json, os, runpy, sys
from importlib.machinery import PathFinder
unused = json.loads(sys.argv[1])
def libraries():
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    for spec in specs:
        if spec is not None and spec.cached and spec.origin.startswith(sys.prefix):
            yield os.path.getsize(spec.origin), os.path.exists(spec.cached)
class StopAfterAStep(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "retfiner.training.module":
            return None
        spec = PathFinder.find_spec(name, path)
        fill = spec.loader.exec_module
        def exec_module(module):
            fill(module)
            step = module.RefinementModule.optimizer_step
            def first_step(self, *given, **named):
                step(self, *given, **named)
                print("stepped with", [name for name in unused if name in sys.modules])
                print("bytes", json.dumps(list(libraries())), flush=True)
                os._exit(0)
            module.RefinementModule.optimizer_step = first_step
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, StopAfterAStep())
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*words):
    done = subprocess.run(
        [sys.executable, "-c", *map(str, words)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_steps_before_what_it_needs_later_or_never(tmp_path):
    material = make_material(tmp_path)
    said = run(
        TRAIN_ONE_STEP, json.dumps(UNUSED), ROOT / "RetFiner" / "train.py",
        "--model_weights", material.weights, "--text_encoder", material.text_encoder,
        "--train_csv", material.csv, "--output_dir", tmp_path / "models", "--batch_size", 4,
        "--num_workers", 0, "--accelerator", "cpu",
    )  # fmt: skip
    assert "stepped with []\n" in said
    if (Path(sys.prefix) / ".installed").exists():  # by install.sh, which compiles what is imported
        libraries = json.loads(said.partition("bytes ")[2])
        compiled_anew = sum(size for size, is_compiled in libraries if not is_compiled)
        assert compiled_anew < sum(size for size, _ in libraries) / 50


def test_probing_and_extraction_read_no_library_of_another_step():
    code = (
        "import json, sys; import {}\n"
        "print([name for name in json.loads(sys.argv[1]) if name in sys.modules])"
    )
    never = ["sklearn", "scipy.stats", "matplotlib", "pytorch_lightning"]
    assert run(code.format("linprobe.probing"), json.dumps([*never, "transformers"])) == "[]\n"
    assert run(code.format("retfiner.export.extract"), json.dumps([*never, "pandas"])) == "[]\n"
