"""Which reports count as identical."""

from __future__ import annotations

import subprocess
import sys

import pytest

from retfiner.data.batch import identify_reports, normalise_report


@pytest.mark.parametrize(
    "other", ["no fluid.", "NO FLUID.", "  No   fluid. ", "No\tfluid.\n", "No\u00a0fluid."]
)
def test_case_and_white_space_do_not_count(other):
    first, second = identify_reports(["No fluid.", other])
    assert first == second
    assert normalise_report(other) == "no fluid."


@pytest.mark.parametrize("other", ["No fluids.", "No fluid", "fluid. No", "Nofluid.", ""])
def test_everything_else_counts(other):
    first, second = identify_reports(["No fluid.", other])
    assert first != second


def test_case_beyond_ascii():
    first, second, third = identify_reports(["ÖDEM, große Drusen", "ödem, GROSSE drusen", "odem"])
    assert first == second != third


def test_numbers_are_nonnegative_and_do_not_collide():
    ids = identify_reports([f"report {i}" for i in range(20_000)])
    assert ids.dtype.is_floating_point is False and (ids >= 0).all()
    assert ids.unique().numel() == 20_000


def test_another_process_gives_the_same_number():
    code = (
        "from retfiner.data.batch import identify_reports;"
        "print(int(identify_reports(['No fluid'])[0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) == int(identify_reports(["No fluid"])[0])
