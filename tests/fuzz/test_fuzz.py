"""The same inputs at every run; ``tests/fuzz/run.py`` tries others for longer."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.inputs import TARGETS, attempt

EXAMPLES = 40
"""Of each kind, more than seven hundred in all."""


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_an_input_error_comes_out(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("fuzz")
    found = {"accepted": 0, "refused": 0}

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def run(seed):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[attempt(name, seed, folder)] += 1

    run()
    assert sum(found.values()) >= EXAMPLES, found
