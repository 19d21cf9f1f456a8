"""What Lightning is told."""

from retfiner.common.stopping import StopSignals
from retfiner.config import RefineConfig
from retfiner.launch import place
from retfiner.trainer import build_trainer


def test_no_stage_runs_in_inference_mode(tmp_path):
    """On GPUs a validation before training would leave split weights that take no gradients."""
    config = RefineConfig(model_weights=tmp_path, train_csv=tmp_path, accelerator="cpu")
    trainer = build_trainer(config, place(config), tmp_path, 10, StopSignals())
    assert not trainer.validate_loop.inference_mode
    assert not trainer.fit_loop.epoch_loop.val_loop.inference_mode
