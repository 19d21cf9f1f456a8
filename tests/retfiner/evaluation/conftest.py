"""A small model that was really refined, once for all tests of this folder."""

from __future__ import annotations

import pytest

from retfiner.refine import refine
from tests.helpers.refinement import make_material, settings


@pytest.fixture(scope="session")
def refined(tmp_path_factory):
    """Return the material and the run's folder."""
    folder = tmp_path_factory.mktemp("refined")
    material = make_material(folder, pairs=48, patients=16)
    run = refine(settings(material, folder / "models", max_epochs=1))
    return material, run.folder
