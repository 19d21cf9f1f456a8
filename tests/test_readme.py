"""What README, docs and notebook show is true: commands parse, links lead, tables agree, code runs.

Commands run after ``source .venv/bin/activate``, each block from the repository's folder.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from linprobe.config import ProbeConfig
from linprobe.prepare.config import PrepareConfig
from linprobe.report.config import ReportConfig
from linprobe.reproduce import ReproduceConfig
from linprobe.segmentation.config import SegmentConfig
from retfiner.browse.config import BrowseConfig
from retfiner.common.cli import build_parser
from retfiner.config import RefineConfig
from retfiner.data.check.prepare_pairs import PreparePairsConfig
from retfiner.data.phantoms.config import PhantomConfig
from retfiner.embed.config import EmbedConfig
from retfiner.evaluation.config import EvaluateConfig
from retfiner.explanation.config import ExplainConfig
from retfiner.explanation.pointing import PointingConfig
from retfiner.export.config import ExtractConfig
from retfiner.refine import refine
from retfiner.text.config import TextEncoderConfig
from retfiner.training.pretrain_config import PretrainConfig
from retfiner.vision import BACKBONES
from retfiner.vision.published.get import GetConfig
from tests.fuzz.run import FuzzConfig
from tests.helpers.image_files import bscans, write_e2e
from tests.helpers.refinement import (
    make_material,
    read_csv,
    settings,
    write_base_model,
    write_csv,
    write_image,
)

ROOT = Path(__file__).parents[1]
SCRIPTS = {
    "train.py": RefineConfig,
    "build_text_encoder.py": TextEncoderConfig,
    "get_vision_backbone_for_linprobing.py": ExtractConfig,
    "pretrain_base.py": PretrainConfig,
    "retfiner.data.phantoms": PhantomConfig,
    "probe.py": ProbeConfig,
    "report.py": ReportConfig,
    "segment.py": SegmentConfig,
    "reproduce.py": ReproduceConfig,
    "prepare_dataset.py": PrepareConfig,
    "prepare_pairs.py": PreparePairsConfig,
    "explain.py": ExplainConfig,
    "retfiner.browse": BrowseConfig,
    "retfiner.explanation.pointing": PointingConfig,
    "evaluate.py": EvaluateConfig,
    "embed.py": EmbedConfig,
    "get.py": GetConfig,
    "tests/fuzz/run.py": FuzzConfig,
}
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in ("*.md", "docs/*.md", "pretrained_weights/*.md", "benchmarks/*.md")
    for path in sorted(ROOT.glob(pattern))
}
README = PAGES["README.md"]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
TWO_SCREENS = 80
OUTSIDE = ("git", "pip", "source")
"""Commands that are not ours."""
NOT_OURS = {"path/to/file.py"}
"""Files that pages name and a user has."""


def commands(page):
    """Yield (folder, words) of every line of the page's shell blocks."""
    for block in re.findall(r"```bash\n(.*?)```", PAGES[page], flags=re.S):
        folder = ROOT
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words[:1] == ["cd"]:
                folder = (folder / words[1]).resolve()
                assert folder.is_dir(), f"{page}: there is no {folder}"
            elif words:
                yield folder, words


COMMANDS = [(page, *command) for page in PAGES for command in commands(page)]


@cache
def parser_of(script):
    return build_parser(SCRIPTS[script], "")


@cache
def flags_of(script):
    """Return the flags a script knows, without their dashes; a switch may also be denied."""
    named = parser_of(script).get_defaults().as_dict()
    return {*named, "config", "help"} | {f"no_{name}" for name in named}


@pytest.mark.parametrize(
    ("page", "folder", "words"), COMMANDS, ids=[f"{c[0]}: {' '.join(c[2])}"[:70] for c in COMMANDS]
)
def test_commands_work_from_where_they_stand(page, folder, words):
    program, *rest = words
    if program in OUTSIDE:
        return
    if program.startswith("./"):
        assert os.access(folder / program, os.X_OK), f"{program} is not in {folder}"
        return
    if program == "torchrun":
        rest = rest[rest.index("train.py") :]
    elif rest[0] == "-m":
        rest = rest[1:]
    if rest[0] == "pytest":
        path, _, name = rest[1:4]
        assert re.search(rf"def test_\w*{name}", (folder / path).read_text(encoding="utf-8"))
        return
    script, *arguments = rest
    name = script if script in SCRIPTS else Path(script).name
    assert name in SCRIPTS, f"{page} shows {script}, which no test knows"
    if script.endswith(".py"):
        assert (folder / script).is_file(), f"{page}: {script} is not in {folder}"
    else:
        assert importlib.util.find_spec(script)
    parser_of(name).parse_args(arguments)


def test_the_readme_says_once_which_shell():
    assert README.count("source .venv/bin/activate") == 1


def test_quickstart_uses_flags_that_exist_and_scripts_that_the_pages_show():
    text = (ROOT / "quickstart.sh").read_text().replace("\\\n", " ")
    shown = {word for _, _, words in COMMANDS for word in words}
    assert {"./quickstart.sh", "./run_tests.sh"} <= shown
    ran = re.findall(r"python (?:-m )?([\w./]+)(.*)", text)
    assert len(ran) >= 5
    for script, arguments in ran:
        assert script in shown
        assert set(re.findall(r"--(\w+)", arguments)) <= flags_of(script), arguments


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("benchmarks")])
def test_every_flag_that_is_named_exists(page):
    known = set().union(*map(flags_of, SCRIPTS))
    shown = set(re.findall(r"`--(\w+)", PAGES[page]))
    assert shown <= known, shown - known


@pytest.mark.parametrize(
    ("page", "script"),
    [("docs/training.md", "train.py"), ("docs/probing_and_data_sets.md", "probe.py")],
)
def test_defaults_that_are_numbers_are_those_of_the_flags(page, script):
    defaults = parser_of(script).get_defaults().as_dict()
    found = 0
    for named, shown in re.findall(r"^\| (`--[^|]+) \| ([\d.e, -]+) \|", PAGES[page], flags=re.M):
        flags = re.findall(r"`--(\w+)`", named)
        values = [defaults[name] for name in flags]
        values = values[0] if isinstance(values[0], list) else values
        assert [float(value) for value in re.split(r",? ", shown)] == values, named
        found += 1
    assert found >= 2


def code_spans(page):
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.S)
    return re.findall(r"`([^`\n]+)`", prose)


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_files_and_modules_that_are_named_exist(page):
    places = (ROOT, ROOT / "RetFiner", ROOT / "RetFiner" / "retfiner", ROOT / "linear_probing")
    places += ((ROOT / page).parent,)
    sources = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    for span in code_spans(page):
        path = span.split()[1] if span.startswith("python ") else span
        path = path.split("::")[0].split(":")[0]
        if re.fullmatch(r"(retfiner|linprobe)(\.\w+)+", path):
            assert importlib.util.find_spec(path), f"{page}: no module {path}"
        elif re.fullmatch(r"[\w./-]+\.(py|sh)", path) and path not in NOT_OURS:
            found = any((place / path).exists() for place in places)
            assert found or path in sources, f"{page}: there is no {path}"
        elif re.fullmatch(r"(retfiner|linprobe|tests|benchmarks|docs|RetFiner)/[\w/.-]*", path):
            assert any((place / path).exists() for place in places), f"{page}: there is no {path}"


def headings(text):
    """Return the headings' anchors as code hosts make them."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)
    return [re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in found]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in headings(path.read_text(encoding="utf-8")), f"{page}: {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith(("docs", "CONTRIB"))])
def test_long_pages_begin_with_their_contents(page):
    text = PAGES[page]
    if len(text.splitlines()) > TWO_SCREENS:
        sections = headings("\n".join(re.findall(r"^## .+$", text, flags=re.M)))
        missing = [name for name in sections if f"](#{name})" not in text]
        assert not missing, f"the contents of {page} lack {missing}"


def test_every_page_is_in_the_index_and_in_the_readme():
    for path in (ROOT / "docs").iterdir():
        if path.suffix in (".md", ".ipynb") and path.name != "README.md":
            assert f"]({path.name}" in PAGES["docs/README.md"], path.name
            assert f"](docs/{path.name}" in README or path.name == "data_sets.md", path.name


def test_the_readme_is_four_screens():
    shown = sum(max(1, math.ceil(len(line) / 100)) for line in README.splitlines())
    shown += 10 * README.count("\n![")  # a picture is as high as some lines
    assert shown <= 160
    assert len(README.split()) <= 1300


def test_backbone_table_is_the_registry():
    for spec in BACKBONES.values():
        row = f"| `{spec.name}` | {spec.title} | {spec.licence} | <{spec.source}> |"
        assert row in PAGES["docs/files_and_tables.md"], f"the page lacks or changes: {row}"


def test_the_changelog_has_this_version():
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    found = re.findall(r"^## (\S+)", PAGES["CHANGELOG.md"], flags=re.M)
    assert found[0] == "Unreleased" and found[1] == version


def python_examples():
    return {
        page: blocks
        for page, text in PAGES.items()
        if (blocks := re.findall(r"```python\n(.*?)```", text, flags=re.S))
    }


def test_every_python_example_is_run_below():
    assert {page: len(blocks) for page, blocks in python_examples().items()} == {
        "docs/exams.md": 2,  # in tests/retfiner/test_exams.py
        "docs/python.md": 2,
    }


def test_python_example_runs(tmp_path, monkeypatch):
    _, example = python_examples()["docs/python.md"]
    weights = tmp_path / "linear_probing" / "_weights" / "best-model_NAME_bscan.pth"
    weights.parent.mkdir(parents=True)
    write_base_model(weights)
    write_image(tmp_path / "scan.png", 0)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "python.md", "exec"), names)
    assert names["features"].shape == (1, 2 * names["backbone"].width)


def test_python_example_of_a_whole_model_runs(tmp_path, monkeypatch):
    example, _ = python_examples()["docs/python.md"]
    material = make_material(tmp_path / "material", pairs=12, patients=6)
    run = refine(settings(material, tmp_path / "RetFiner" / "models", max_epochs=1)).folder
    run.rename(run.with_name("NAME"))
    write_image(tmp_path / "scan.png", 0)
    write_e2e(tmp_path / "volume.e2e", {1: bscans(13, top=65535)})
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "python.md", "exec"), names)
    assert names["similarity"].shape == (2, 2)
    assert names["matches"].shape == (2,)
    assert names["features"].shape[0] == len(names["vectors"]) == 2
    assert [word.text for word in names["explanation"].words] == ["Subretinal", "fluid"]
    assert len(names["reports"]) == 2


@pytest.fixture(scope="module")
def small_quickstart(tmp_path_factory):
    """A folder with a small ``quickstart/`` in it, laid out as quickstart.sh does."""
    folder = tmp_path_factory.mktemp("notebook")
    phantoms = folder / "quickstart" / "phantoms"
    material = make_material(phantoms, pairs=12, patients=6)
    write_image(phantoms / "images" / "P0078_OD_v1.png", 99)
    shown = ["images/P0078_OD_v1.png", "Marked SRF. Moderate intraretinal fluid.", "P0078"]
    write_csv(material.csv, [*read_csv(material.csv), shown])
    refine(settings(material, folder / "quickstart" / "models", max_epochs=1))
    return folder


@pytest.mark.slow
def test_the_notebook_runs_on_what_the_quickstart_makes(small_quickstart):
    ran = small_quickstart / "ran.ipynb"
    subprocess.run(
        [sys.executable, ROOT / "docs/run_notebook.py", NOTEBOOK, "--output", ran],
        cwd=small_quickstart,
        check=True,
        timeout=120,
    )
    committed = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    outputs = [
        [output["output_type"] for output in cell.get("outputs", [])]
        for cell in json.loads(ran.read_text(encoding="utf-8"))["cells"]
    ]
    assert outputs == [
        [output["output_type"] for output in cell.get("outputs", [])] for cell in committed["cells"]
    ], "docs/notebook.ipynb does not hold what its cells print and draw"
    assert sum(kinds.count("display_data") for kinds in outputs) == 3
    assert NOTEBOOK.stat().st_size < 1_000_000


def test_links_in_the_notebook_lead_somewhere():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for name, anchor in re.findall(r"\]\(([^)#]+)#?([^)]*)\)", text):
        path = ROOT / "docs" / name
        assert not anchor or anchor in headings(path.read_text(encoding="utf-8")), name


@pytest.mark.slow
def test_the_picture_of_the_readme_is_drawn(small_quickstart):
    quickstart, output = small_quickstart / "quickstart", small_quickstart / "overview.png"
    header = ["data_set", "base_mean", "refined_mean"]
    rows = [["Fluid_type", "30.0", "50.0"], ["Mean", "30.0", "50.0"]]
    write_csv(quickstart / "results" / "report" / "changes.csv", rows, header)
    script = ROOT / "benchmarks" / "overview.py"
    with (quickstart / "phantoms" / "pairs.csv").open(newline="", encoding="utf-8") as file:
        pair = next(csv.DictReader(file))
    shown = ["--image", pair["image"], "--word", pair["report"].split()[0].strip(".,")]
    subprocess.run(
        [sys.executable, script, "--quickstart", quickstart, "--output", output, *shown],
        check=True,
        timeout=120,
    )
    assert output.stat().st_size > 10_000
