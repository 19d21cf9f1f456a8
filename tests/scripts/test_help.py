"""--help of every command: by topic, to be read in a terminal, quick."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("RetFiner", "linear_probing", "pretrained_weights")
SCRIPTS = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.py"))
COMMANDS = [*map(str, SCRIPTS), "-m retfiner.browse", "-m retfiner.data.phantoms"]
HEADINGS = {
    "embed.py": ["Model and images", "Work"],
    "prepare_pairs.py": ["Files", "Table", "Split", "Checks", "Run"],
    "train.py": [
        "Model", "Data", "Table", "Exams", "Objectives", "Optimisation", "Hardware", "Run",
    ],
    "evaluate.py": [
        "What is evaluated", "Pairs, for --task retrieval and report", "Retrieval",
        "Zero-shot classification", "Written reports, for --task report", "Run",
    ],
    "probe.py": [
        "Model", "Data", "Results", "Probe", "Linear probe", "Augmentation, for the linear probe",
        "Nearest neighbours, for --probe knn", "Logistic regression, for --probe logistic",
        "Class means (prototype probe)", "Attention, for --probe attentive and mil",
        "Fine-tuning, for --probe finetune", "Hardware",
    ],
}  # fmt: skip
NO_HEAVY = "torch, transformers, pandas, sklearn, scipy.stats, matplotlib"


def help_of(command, columns=None):
    words = command.split() if command.startswith("-m") else [command]
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, *words, "--help"], capture_output=True, text=True, check=True, timeout=60,
        env=environment | ({} if columns is None else {"COLUMNS": str(columns)}),
    )  # fmt: skip
    return done.stdout


def flags_of(text):
    """Each flag or word with its lines, all headings left out."""
    return re.findall(r"^  (?=\S)(?:.*\n)(?:    .*\n?)*", text.partition("options:")[2], flags=re.M)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.rsplit("/", 1)[-1])
def test_each_flag_takes_a_line_or_two_and_says_its_default(command):
    text = help_of(command)
    assert max(map(len, text.splitlines())) <= 100
    assert not re.search(r"type:|null|<class|None|Path\(|Optional", text)
    flags = flags_of(text)
    own = ("-h, --help", "--config", "--print_config")
    assert len(flags) > len(own)
    for lines in flags:
        words = " ".join(lines.split())
        assert len(lines.splitlines()) <= 2, lines
        assert words.startswith(own) or "default" in words or words.endswith("(required)"), lines


@pytest.mark.parametrize("script", HEADINGS)
def test_flags_stand_below_their_topics(script):
    text = help_of(next(str(path) for path in SCRIPTS if path.name == script))
    assert re.findall(r"^(\S.*):$", text, flags=re.M)[1:] == HEADINGS[script]  # after "options"


def test_flags_are_many_only_below_headings():
    for command in COMMANDS:
        text = help_of(command)
        if len(re.findall(r"^\S.*:$", text, flags=re.M)) == 1:
            assert len(flags_of(text)) <= 3 + 10, command


def test_it_fits_a_narrow_terminal_and_grows_no_wider_than_100():
    script = str(ROOT / "RetFiner" / "train.py")
    narrow = [line for line in help_of(script, 72).splitlines() if "{" not in line]
    assert max(map(len, narrow)) <= 72
    assert help_of(script, 300) == help_of(script)
