"""A flag without effect is an error that says where it would have one."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfiner.common.errors import InputError
from retfiner.evaluation.config import EvaluateConfig

GIVEN = {"model": Path("m"), "data": Path("d")}


@pytest.mark.parametrize(
    ("task", "name", "value"),
    [
        ("zero_shot", "rerank_top", 4),
        ("zero_shot", "part", "all"),
        ("report", "bootstrap", 10),
        ("report", "split", "val"),
        ("retrieval", "decode", "beam"),
        ("retrieval", "prompts", Path("p.yaml")),
        ("report", "beams", 2),
        ("report", "top_p", 0.5),
        ("report", "thumbnails", True),
    ],
)
def test_a_flag_without_effect_is_refused(task, name, value):
    with pytest.raises(InputError, match=f"--{name} has no effect"):
        EvaluateConfig(task=task, **GIVEN, **{name: value})


def test_flags_with_effect_are_taken():
    EvaluateConfig(task="report", decode="beam", beams=2, **GIVEN)
    EvaluateConfig(task="report", decode="nucleus", top_p=0.5, **GIVEN)
    EvaluateConfig(task="report", page=Path("p.html"), thumbnails=True, **GIVEN)
    EvaluateConfig(task="retrieval", rerank_top=0, save=Path("x.npz"), **GIVEN)


def test_rankings_have_a_known_kind():
    with pytest.raises(InputError, match="unknown kind"):
        EvaluateConfig(task="retrieval", save=Path("x.xlsx"), **GIVEN)
