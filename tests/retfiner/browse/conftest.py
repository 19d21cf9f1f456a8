"""A small refined model with its table, and the page as a user has it."""

from __future__ import annotations

import sys

import pytest
from streamlit.testing.v1 import AppTest

from retfiner import load_model
from retfiner.browse.server import APP
from retfiner.refine import refine
from tests.helpers.refinement import make_material, settings


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("browsed"), pairs=12, patients=6)


@pytest.fixture(scope="session")
def refined(material, tmp_path_factory):
    """Refine with given losses; each set of them once."""
    runs = {}

    def refined_with(*losses):
        if losses not in runs:
            folder = tmp_path_factory.mktemp("runs")
            changes = {"losses": list(losses)} if losses else {}
            runs[losses] = refine(settings(material, folder, max_epochs=1, **changes)).folder
        return runs[losses]

    return refined_with


@pytest.fixture(scope="session")
def model(refined):
    return load_model(refined(), device="cpu")


@pytest.fixture(scope="session")
def paths(material):
    return sorted((material.csv.parent / "images").iterdir())


@pytest.fixture
def open_page(material, refined, monkeypatch):
    """Open the page of a model refined with given losses."""

    def opened(*losses):
        words = [str(refined(*losses)), "--data", str(material.csv), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", [str(APP), *words])
        return AppTest.from_file(APP, default_timeout=60).run()

    return opened
