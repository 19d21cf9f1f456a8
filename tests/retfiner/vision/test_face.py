"""The room's face: what it offers, and what is not imported before it is needed."""

import subprocess
import sys

import pytest

import retfiner.vision


def test_everything_it_names_is_there():
    for name in retfiner.vision.__all__:
        assert getattr(retfiner.vision, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        retfiner.vision.nothing  # noqa: B018


@pytest.mark.parametrize(
    "module", ["retfiner.data.manifest", "retfiner.vision.images", "retfiner.vision.sniff"]
)
def test_who_looks_at_files_alone_need_not_wait_for_torch(module):
    heavy = "{'torch', 'timm', 'transformers', 'sklearn', 'pandas'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
