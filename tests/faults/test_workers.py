"""Processes that read images and are ended from outside."""

from __future__ import annotations

import os
import signal

import pytest

from retfiner.common.errors import InputError
from retfiner.refine import refine
from tests.helpers.refinement import OWN_DATASET, make_material, settings

KILLS = """
    def __getitem__(self, index):
        import os, signal
        if os.getpid() != MAIN:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.item(index)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker(tmp_path, kill):
    material = make_material(tmp_path / "material", pairs=16, patients=8)
    source = OWN_DATASET.replace("def __getitem__", "def item")
    source += KILLS.replace("MAIN", str(os.getpid())).replace("SIGKILL", kill.name)
    (tmp_path / "own.py").write_text(source)
    config = settings(
        material,
        tmp_path / "models",
        train_csv=None,
        dataset=f"{tmp_path / 'own.py'}:Pairs",
        image_root=material.csv.parent,
        num_workers=1,
    )
    with pytest.raises(InputError, match="ended from outside") as caught:
        refine(config)
    assert "--num_workers" in str(caught.value)
