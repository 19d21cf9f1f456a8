"""pretrain_base.py as a user runs it."""

from retfiner.vision import load_backbone
from tests.helpers.refinement import write_image
from tests.helpers.scripts import run_script


def test_a_base_model_from_a_folder_of_images(tmp_path):
    for index in range(6):
        write_image(tmp_path / "B-scans" / f"{index}.png", index)
    output = tmp_path / "weights" / "base.pth"
    done = run_script(
        "pretrain_base.py", "--images", tmp_path / "B-scans", "--output", output, "--width", "64",
        "--depth", "1", "--image_size", "32", "--patch_size", "8", "--epochs", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(output) in done.stdout
    backbone = load_backbone(output)
    assert (backbone.spec.name, backbone.width, backbone.image_size) == ("RETFound", 64, 32)
