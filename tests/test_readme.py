"""What the README shows is true: commands parse, tables agree with the code, code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from linprobe.config import ProbeConfig
from linprobe.prepare.config import PrepareConfig
from linprobe.report.config import AblationConfig, ReportConfig
from retfiner.browse.config import BrowseConfig
from retfiner.common.cli import build_parser
from retfiner.config import RefineConfig
from retfiner.data.check.prepare_pairs import PreparePairsConfig
from retfiner.data.phantoms.config import PhantomConfig
from retfiner.evaluation.config import EvaluateConfig
from retfiner.explanation.config import ExplainConfig
from retfiner.explanation.pointing import PointingConfig
from retfiner.export.config import ExtractConfig
from retfiner.refine import refine
from retfiner.text.config import TextEncoderConfig
from retfiner.training.pretrain_config import PretrainConfig
from retfiner.vision import BACKBONES
from tests.helpers.image_files import bscans, write_e2e
from tests.helpers.refinement import make_material, settings, write_base_model, write_image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = {
    "train.py": RefineConfig,
    "build_text_encoder.py": TextEncoderConfig,
    "get_vision_backbone_for_linprobing.py": ExtractConfig,
    "pretrain_base.py": PretrainConfig,
    "retfiner.data.phantoms": PhantomConfig,
    "probe.py": ProbeConfig,
    "report.py": ReportConfig,
    "prepare_dataset.py": PrepareConfig,
    "prepare_pairs.py": PreparePairsConfig,
    "ablation.py": AblationConfig,
    "explain.py": ExplainConfig,
    "retfiner.browse": BrowseConfig,
    "retfiner.explanation.pointing": PointingConfig,
    "evaluate.py": EvaluateConfig,
}


def commands(text):
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.S):
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def python_commands(text):
    for words in commands(text):
        if words[0] == "python":
            yield (words[2], words[3:]) if words[1] == "-m" else (words[1], words[2:])


@pytest.mark.parametrize(
    ("script", "arguments"), list(python_commands(README)), ids=lambda value: str(value)[:40]
)
def test_commands_parse(script, arguments):
    assert script in SCRIPTS, f"the README shows {script}, which no test knows"
    if not script.startswith("retfiner."):
        assert any((ROOT / stage / script).is_file() for stage in ("RetFiner", "linear_probing"))
    build_parser(SCRIPTS[script], "").parse_args(arguments)


def test_shell_scripts_exist_and_can_be_run():
    shown = {words[0] for words in commands(README) if words[0].startswith("./")}
    assert {"./quickstart.sh", "./run_tests.sh"} <= shown
    for script in shown:
        folders = (ROOT, ROOT / "RetFiner", ROOT / "linear_probing")
        path = next(folder / script for folder in folders if (folder / script).exists())
        assert path.is_file() and path.stat().st_mode & 0o111, script


def test_quickstart_uses_flags_that_exist():
    text = (ROOT / "quickstart.sh").read_text().replace("\\\n", " ")
    found = 0
    for script, config in SCRIPTS.items():
        for line in re.findall(rf"python (?:-m )?{re.escape(script)}(.*)", text):
            found += 1
            known = set(build_parser(config, "").get_defaults().as_dict()) | {"config"}
            assert set(re.findall(r"--(\w+)", line)) <= known, line
    assert found >= 5


def test_every_flag_in_the_readme_exists():
    known = {"help", "config"}
    for config in SCRIPTS.values():
        known |= set(build_parser(config, "").get_defaults().as_dict())
    shown = set(re.findall(r"`--(\w+)", README))
    assert shown <= known, shown - known


def test_backbone_table_is_the_registry():
    for spec in BACKBONES.values():
        row = f"| `{spec.name}` | {spec.title} | {spec.licence} | <{spec.source}> |"
        assert row in README, f"the README lacks or changes: {row}"


def test_python_example_runs(tmp_path, monkeypatch):
    example = re.search(r"```python\n(.*?)```", README, flags=re.S).group(1)
    weights = tmp_path / "linear_probing" / "_weights" / "best-model_NAME_bscan.pth"
    weights.parent.mkdir(parents=True)
    write_base_model(weights)
    write_image(tmp_path / "scan.png", 0)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["features"].shape == (1, 2 * names["backbone"].width)


def test_python_example_of_a_whole_model_runs(tmp_path, monkeypatch):
    [example] = re.findall(
        r"```python\n(from retfiner import load_model\n.*?)```", README, flags=re.S
    )
    material = make_material(tmp_path / "material", pairs=12, patients=6)
    run = refine(settings(material, tmp_path / "RetFiner" / "models", max_epochs=1)).folder
    run.rename(run.with_name("NAME"))
    write_image(tmp_path / "scan.png", 0)
    write_e2e(tmp_path / "volume.e2e", {1: bscans(13, top=65535)})
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["similarity"].shape == (2, 2)
    assert names["matches"].shape == (2,)
    assert names["features"].shape[0] == len(names["vectors"]) == 2
    assert [word.text for word in names["explanation"].words] == ["Subretinal", "fluid"]
    assert len(names["reports"]) == 2
