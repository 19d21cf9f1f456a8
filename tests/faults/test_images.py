"""Images that vanish or go bad while a run reads them."""

from __future__ import annotations

import shutil

import pytest
import pytorch_lightning as pl
import torch

from retfiner.common.errors import InputError
from retfiner.refine import refine
from retfiner.vision import read_checkpoint
from tests.helpers.refinement import OWN_DATASET, make_material, settings


@pytest.fixture
def material(tmp_path):
    return make_material(tmp_path / "material", pairs=24, patients=12)


class AtEpoch(pl.Callback):
    """Do something to the world when an epoch begins."""

    def __init__(self, epoch, act):
        self.epoch, self.act = epoch, act

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.act()


@pytest.fixture
def at_second_epoch(monkeypatch):
    """Let a function run between the first and the second epoch of the next run."""

    def install(act):
        fit = pl.Trainer.fit

        def with_act(self, *arguments, **named):
            self.callbacks.append(AtEpoch(1, act))
            return fit(self, *arguments, **named)

        monkeypatch.setattr(pl.Trainer, "fit", with_act)

    return install


def remove(path):
    path.unlink()


def make_folder(path):
    path.unlink()
    path.mkdir()


def cut(path):
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    ("act", "workers"),
    [
        (remove, 0),
        *(pytest.param(act, 0, marks=pytest.mark.slow) for act in (make_folder, cut)),
        *(pytest.param(act, 1, marks=pytest.mark.slow) for act in (remove, make_folder, cut)),
    ],
)
def test_an_image_that_goes_bad_in_the_middle_of_a_run(
    material, tmp_path, at_second_epoch, act, workers
):
    images = sorted((material.csv.parent / "images").glob("*.png"))
    at_second_epoch(lambda: [act(image) for image in images])
    output = tmp_path / "models"
    with pytest.raises(InputError, match=r"row \d+ of .*pairs\.csv(.|\n)*scan_\d+\.png"):
        refine(settings(material, output, num_workers=workers))
    folder = next(output.iterdir())
    for name in ("last.ckpt", "best-model.ckpt"):
        content = read_checkpoint(folder / name).content
        assert all(v.isfinite().all() for v in content["state_dict"].values())
    assert content["epoch"] == 0


@pytest.mark.slow
def test_with_skip_the_run_goes_on_without_it(material, tmp_path, at_second_epoch, capfd):
    image = sorted((material.csv.parent / "images").glob("*.png"))[0]
    at_second_epoch(lambda: remove(image))
    refine(settings(material, tmp_path / "models", on_bad_row="skip"))
    assert "left out (1 so far)" in "".join(capfd.readouterr())


@pytest.mark.slow
def test_not_a_number(material, tmp_path):
    """In an image of a user's own data set, from its third epoch on."""
    source = OWN_DATASET.replace(
        'return [self.transform(read_image(self.root / row["image"])), row["report"]]',
        'image = self.transform(read_image(self.root / row["image"]))\n'
        "        self.reads = getattr(self, 'reads', 0) + 1\n"
        "        if self.reads > 60: image = image * float('nan')\n"
        '        return [image, row["report"]]',
    )
    assert "nan" in source
    (tmp_path / "own.py").write_text(source)
    config = settings(
        material,
        tmp_path / "models",
        train_csv=None,
        dataset=f"{tmp_path / 'own.py'}:Pairs",
        image_root=material.csv.parent,
        max_epochs=4,
    )
    with pytest.raises(InputError, match=r"the loss is not finite(.|\n)*mend the images of pairs"):
        refine(config)
    folder = next((tmp_path / "models").iterdir())
    for name in ("last.ckpt", "best-model.ckpt"):
        state = read_checkpoint(folder / name).content["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values())
    shutil.rmtree(folder)
