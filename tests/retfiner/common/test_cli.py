"""One field, one flag, one line of help, for any dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from retfiner.common.cli import as_plain, build_parser, flag, parse
from retfiner.common.numbers import NonNegativeFloat, OpenUnitInterval, PositiveInt


@dataclass(frozen=True)
class Settings:
    table: Path = flag("a table")
    size: PositiveInt = flag("side in pixels", 224)
    seeds: list[int] = flag("seeds of the runs", [0, 1])
    names: list[str] | None = flag("names, or none", None)
    kind: Literal["a", "b"] = flag("which kind", "a")
    loud: bool = flag("say more", False)


def test_defaults_and_types():
    settings = parse(Settings, "", ["--table", "t.csv"])
    assert settings == Settings(Path("t.csv"))
    assert type(settings.size) is int


def test_a_list_takes_several_words():
    settings = parse(
        Settings, "", ["--table", "t", "--seeds", "3", "4", "5", "--names", "x", "--loud"]
    )
    assert (settings.seeds, settings.names, settings.loud) == ([3, 4, 5], ["x"], True)
    assert all(type(seed) is int for seed in settings.seeds)


def test_each_instance_has_a_list_of_its_own():
    first, second = Settings(Path("t")), Settings(Path("t"))
    first.seeds.append(9)
    assert second.seeds == [0, 1]
    assert parse(Settings, "", ["--table", "t"]).seeds == [0, 1]


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_switch_can_be_set_in_a_file(tmp_path, value):
    (tmp_path / "c.yaml").write_text(f"table: t\nloud: {value}\n")
    assert parse(Settings, "", ["--config", str(tmp_path / "c.yaml")]).loud is (value == "true")


@pytest.mark.parametrize(
    "words",
    ["", "--table t --siz 3", "--table t --size 0", "--table t --kind c", "--table t extra"],
)
def test_mistakes_end_with_status_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(Settings, "", words.split())
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err


def test_a_mistake_is_told_with_the_flag_and_without_types(capsys):
    with pytest.raises(SystemExit):
        parse(Grouped, "", ["--table", "t", "--scales", "1", "-2"])
    said = capsys.readouterr().err
    assert "error: --scales" in said and "-2 does not conform to restriction v>=0" in said
    assert "<class" not in said and "Union" not in said


def test_help_says_what_the_script_and_each_flag_do(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(Settings, "Does a thing.", ["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "Does a thing." in shown
    assert "side in pixels" in shown and "default: 224" in shown


def test_the_environment_sets_nothing(monkeypatch):
    parser = build_parser(Settings, "")
    for prefix in ("", f"{parser.prog.upper()}_", "APP_"):
        monkeypatch.setenv(f"{prefix}SIZE", "7")
    assert parser.parse_args(["--table", "t"]).size == 224


def test_plain_values_can_be_written_down():
    plain = as_plain({"settings": Settings(Path("a/b")), 3: (Path("c"), None, 1.5)})
    assert plain["settings"]["table"] == "a/b"
    assert plain["settings"]["seeds"] == [0, 1]
    assert plain["3"] == ["c", None, 1.5]


@dataclass(frozen=True)
class Words:
    name: str | None = flag("a name", None, positional=True)
    source: list[Path] = flag("folders", [], repeatable=True)
    frame: bool | None = flag("zero the frame", None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", Words()),
        ("OCTDL --frame", Words("OCTDL", [], True)),
        ("OCTDL --no_frame", Words("OCTDL", [], False)),
        ("OCTDL --source a b --source c", Words("OCTDL", [Path("a"), Path("b"), Path("c")])),
        ("--source a --frame", Words(None, [Path("a")], True)),
    ],
)
def test_a_word_without_a_flag_a_flag_given_twice_and_a_question_left_open(words, expected):
    assert parse(Words, "", words.split()) == expected


def test_a_switch_with_a_no_can_be_set_in_a_file(tmp_path):
    (tmp_path / "c.yaml").write_text("frame: false\nsource: [a]\n")
    assert parse(Words, "", ["X", "--config", str(tmp_path / "c.yaml"), "--source", "b"]) == Words(
        "X", [Path("a"), Path("b")], False
    )


def test_a_word_that_must_be_given_is_asked_for(capsys):
    @dataclass(frozen=True)
    class Needed:
        name: int = flag("a number", positional=True)

    assert parse(Needed, "", ["3"]).name == 3
    with pytest.raises(SystemExit):
        parse(Needed, "", [])
    assert "name" in capsys.readouterr().err


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What goes in."""

    table: Path = flag("a table")
    share: OpenUnitInterval = flag("share of the rows", 0.25)


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What comes out."""

    scales: list[NonNegativeFloat] | None = flag("scales; by default 1 each", None)
    which: Literal["all"] | PositiveInt | None = flag("all of them, or one", None)
    place: str = flag("address", "here", metavar="HOST")
    loud: bool = flag("say more", False)


@dataclass(frozen=True, kw_only=True)
class Grouped(Outputs, Inputs):
    """Both."""


def test_inherited_flags_stand_below_their_class_with_kind_and_default(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = build_parser(Grouped, "Does 95 % of a thing.").format_help()
    own, inputs, outputs = text.split("\n\n", 2)[2].split("\n\n")
    assert "Does 95 % of a thing." in text
    assert own.splitlines()[0] == "options:"
    assert [" ".join(line.split()) for line in inputs.splitlines()] == [
        "What goes in:",
        "--table PATH a table (required)",
        "--share 0-1 share of the rows (default: 0.25)",
    ]
    assert [" ".join(line.split()) for line in outputs.splitlines()] == [
        "What comes out:",
        "--scales X ... scales; by default 1 each",
        "--which {all}|N all of them, or one (default: none)",
        "--place HOST address (default: here)",
        "--loud say more (default: off)",
    ]
    assert text.startswith("usage: ") and "--table PATH [flags]\n" in text.splitlines(True)[0]


@dataclass(frozen=True)
class Home:
    """Two kinds of paths."""

    one: Path = flag("a file", Path("x"))
    several: list[Path] = flag("files", [])


def test_a_tilde_is_the_home_folder_also_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/doctor who")
    (tmp_path / "settings.yaml").write_text("one: ~/a b.pth\nseveral: [~/c, d]\n")
    found = parse(Home, "", ["--config", str(tmp_path / "settings.yaml")])
    assert found.one == Path("/home/doctor who/a b.pth")
    assert found.several == [Path("/home/doctor who/c"), Path("d")]
