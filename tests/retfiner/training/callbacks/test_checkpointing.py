"""What Lightning's parts do differently in a run that goes on."""

import pytorch_lightning as pl
import torch

from retfiner.training.callbacks.checkpointing import BestCheckpoint, rewind_progress
from retfiner.training.callbacks.early_stopping import ResumableEarlyStopping
from retfiner.training.callbacks.epoch_means import EpochMeans
from retfiner.training.module import RefinementModule
from retfiner.training.monitor import Monitor
from tests.helpers.processes import together

LOSS = Monitor("loss", "val/loss", "min")


def test_the_lowest_loss_is_known_in_a_moved_folder(tmp_path):
    old, new = BestCheckpoint(tmp_path / "old", LOSS), BestCheckpoint(tmp_path / "new", LOSS)
    path = str(tmp_path / "old" / "best-model.ckpt")
    old.best_model_score = old.kth_value = torch.tensor(2.0)
    old.best_model_path = old.kth_best_model_path = path
    old.best_k_models = {path: torch.tensor(2.0)}
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "best-model.ckpt").touch()
    new.load_state_dict(old.state_dict())
    assert new.best_k_models == {str(tmp_path / "new" / "best-model.ckpt"): torch.tensor(2.0)}
    assert not new.check_monitor_top_k(_Alone(), torch.tensor(2.5))
    assert new.check_monitor_top_k(_Alone(), torch.tensor(1.5))


def loaded(rank, folder):
    """Go on from a best epoch whose file lies on the first machine alone."""
    best = BestCheckpoint(folder / str(rank), LOSS)
    path = str(folder / str(rank) / "best-model.ckpt")
    state = best.state_dict() | {
        "best_model_path": path,
        "best_k_models": {path: torch.tensor(2.0)},
    }
    best.load_state_dict(state)
    return len(best.best_k_models)


def test_all_processes_know_the_lowest_loss_if_the_first_has_its_file(tmp_path):
    """Else they would not ask each other the same questions."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "best-model.ckpt").touch()
    assert together(2, tmp_path, loaded, tmp_path) == [1, 1]


def test_without_an_epoch_there_is_no_lowest_loss(tmp_path):
    new = BestCheckpoint(tmp_path / "new", LOSS)
    new.load_state_dict(BestCheckpoint(tmp_path / "old", LOSS).state_dict())
    assert new.check_monitor_top_k(_Alone(), torch.tensor(9.0))


class _Alone:
    """A trainer of one process, as far as ModelCheckpoint asks."""

    class strategy:  # noqa: N801
        @staticmethod
        def reduce_boolean_decision(decision):
            return decision


def test_patience_is_what_was_asked_for_now():
    old, new = ResumableEarlyStopping(LOSS, 3), ResumableEarlyStopping(LOSS, 9)
    old.wait_count = 3
    new.load_state_dict(old.state_dict())
    assert (new.patience, new.wait_count) == (9, 3)


def counters(ready, done, started=None):
    started = done if started is None else started
    return {"ready": ready, "started": started, "processed": done, "completed": done}


def loop(batch, epoch):
    return {
        "epoch_progress": {"total": dict(epoch), "current": dict(epoch)},
        "epoch_loop.batch_progress": {
            "total": counters(batch["ready"] + 5, batch["completed"] + 5),
            "current": dict(batch),
            "is_last_batch": True,
        },
        "epoch_loop.val_loop.batch_progress": {
            "total": counters(7, 7), "current": counters(7, 7), "is_last_batch": True,
        },
    }  # fmt: skip


def test_a_batch_that_was_only_fetched_has_not_begun():
    found = loop(counters(4, 3), counters(2, 1, started=2))
    assert rewind_progress(found, "batch") == 3
    assert found["epoch_loop.batch_progress"]["current"] == counters(3, 3)
    assert found["epoch_loop.batch_progress"]["total"] == counters(8, 8)
    assert not found["epoch_loop.batch_progress"]["is_last_batch"]
    assert found["epoch_progress"]["current"] == counters(2, 1, started=2)


def test_an_epoch_of_which_no_step_was_made_has_not_begun():
    found = loop(counters(1, 0), counters(2, 1, started=2))
    assert rewind_progress(found, "epoch") == 0
    assert found["epoch_progress"]["current"] == counters(1, 1)
    assert found["epoch_loop.batch_progress"]["total"] == counters(5, 5)


def test_a_validation_that_was_cut_short_is_to_be_made_again():
    found = loop(counters(4, 4), counters(2, 1, started=2))
    assert rewind_progress(found, "validation") == 0
    assert (
        found["epoch_loop.batch_progress"] == loop(counters(4, 4), {})["epoch_loop.batch_progress"]
    )
    assert found["epoch_loop.val_loop.batch_progress"]["total"] == counters(1, 0, started=1)


class Losses(RefinementModule):
    """What a step leaves behind, and what is logged of it."""

    def __init__(self):
        pl.LightningModule.__init__(self)
        self.logged = {}

    def left(self, value, pairs):
        self.batch_losses, self.batch_pairs = {"itc": torch.tensor(value)}, pairs
        return self

    def log_dict(self, values):
        self.logged = {name: value.item() for name, value in values.items()}


def test_means_weigh_batches_by_their_pairs_and_go_on():
    module, means, again = Losses(), EpochMeans(), EpochMeans()
    means.on_train_batch_end(None, module.left(2.0, 3), None, None, 0)
    again.load_state_dict(means.state_dict())
    again.on_train_batch_end(None, module.left(6.0, 1), None, None, 1)
    again.on_train_epoch_end(None, module)
    assert module.logged == {"train/itc": 3.0}
    assert again.state_dict() == {"sums": {}, "pairs": 0}
