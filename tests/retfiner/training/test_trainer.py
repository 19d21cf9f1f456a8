"""What Lightning is told."""

from retfiner.training.distributed.launch import resolve_hardware
from retfiner.training.monitor import Monitor
from retfiner.training.stop_signals import StopSignals
from retfiner.training.trainer import build_trainer


def test_no_stage_runs_in_inference_mode(tmp_path):
    """On GPUs a validation before training would leave split weights that take no gradients."""
    trainer = build_trainer(
        resolve_hardware("cpu"),
        tmp_path,
        StopSignals(),
        monitors=[Monitor("last", None, "max")],
        steps_per_epoch=10,
        max_epochs=1,
        patience=1,
    )
    assert not trainer.validate_loop.inference_mode
    assert not trainer.fit_loop.epoch_loop.val_loop.inference_mode
