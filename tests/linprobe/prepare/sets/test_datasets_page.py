"""docs/data_sets.md says what the code does: data sets, licences, addresses, counts, commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from linprobe.config import ProbeConfig
from linprobe.prepare import kermany
from linprobe.prepare.config import PrepareConfig
from linprobe.prepare.registry import DATASETS, find_spec
from retfiner.common.cli import parse

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "data_sets.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S))


def commands(script):
    for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.S):
        for line in block.splitlines():
            words = shlex.split(line)
            if words[:2] == ["python", script]:
                yield words[2:]


@pytest.mark.parametrize("name", DATASETS)
def test_each_data_set_has_its_section(name):
    spec, section = DATASETS[name], SECTIONS[name]
    assert spec.name == name
    for fact in (
        f"<{spec.where}>",
        f"**Licence**: {spec.licence}\n",
        f"**Cite**: {spec.citation}\n",
    ):
        assert fact in section
    classes = re.search(r"\*\*Classes\*\*: (.*?)- \*\*Patient", section, flags=re.S)[1]
    assert all(re.search(rf"\b{label}\b", classes) for label in spec.classes)
    assert all(
        re.search(rf"\b{count}\b|\b{count:,}\b", classes) for count in spec.published.values()
    )
    assert ("White borders left by rotation are set to zero" in section.replace("\n  ", " ")) == (
        spec.zero_borders
    )
    assert f"| [{name}](#{name.lower()}) |" in PAGE


@pytest.mark.parametrize("words", list(commands("prepare_dataset.py")), ids=" ".join)
def test_commands_to_prepare_are_valid_and_of_effect(words):
    config = parse(PrepareConfig, "", words)
    if not config.list and config.name != "folder":
        spec = find_spec(config.name)
        assert spec.volumes or config.bscan is None
        assert (config.slice_axis is None) or spec.name == "Harvard_Glaucoma"
        assert (config.label is None) or spec.name == "NEHUT2D"


def test_commands_name_the_table_that_a_data_set_needs():
    found = 0
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("linear_probing/*.sh")):
        for line in path.read_text(encoding="utf-8").splitlines():
            command = re.search(r"prepare_dataset\.py (\w+) --source .*", line)
            if command is not None and command[1] in DATASETS:
                assert DATASETS[command[1]].table in command[0], f"{path.name}: {line}"
                found += 1
    assert found > len(DATASETS)


def test_commands_to_probe_are_valid():
    found = [parse(ProbeConfig, "", words).data_set for words in commands("probe.py")]
    assert found == [["OCTDL"]]


def test_shares_that_are_not_the_usual_ones_are_said():
    for name, spec in DATASETS.items():
        usual = (0.5, 0.25, 0.25)
        assert spec.split == ((0.8, 0.1, 0.1) if name == "Kermany" else usual)
    assert "80/10/10" in SECTIONS["Kermany"]
    assert kermany.SPEC.split[1] / sum(kermany.SPEC.split[:2]) == pytest.approx(1 / 9)
