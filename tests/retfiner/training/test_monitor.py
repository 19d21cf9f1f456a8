"""What decides which epoch is kept."""

import pandas as pd
import pytest

from retfiner.common.errors import InputError
from retfiner.training.monitor import find_monitors

ALL = ["itc", "itm", "mlm", "gm"]


def find(*names, losses=ALL, is_contrastive=True, has_guard=True):
    return find_monitors(names, losses, is_contrastive, has_guard)


def test_a_loss_is_best_where_it_is_low_and_the_guard_where_it_is_high():
    table = pd.DataFrame(
        {
            "epoch": [0, 1, 2, 3],
            "val/loss": [3.0, 1.0, 1.0, 2.0],
            "guard/refined": [0.1, 0.2, 0.4, 0.4],
            "val/text_to_image_recall@5": [0.9, 0.1, 0.1, 0.1],
        }
    )
    kept = [
        int(monitor.best_row(table)["epoch"])
        for monitor in find("loss", "guard", "text_to_image_recall@5", "last")
    ]
    assert kept == [1, 2, 0, 3]  # the first of equals, as Lightning keeps it


def test_the_last_epoch_always_beats_those_before():
    [last] = find("last")
    assert last.column is None
    assert last.is_better(float("nan"), 5.0)


def test_better_means_strictly_better():
    loss, guard = find("loss", "guard")
    assert loss.is_better(1.0, None)
    assert loss.is_better(0.9, 1.0)
    assert not loss.is_better(1.0, 1.0)
    assert guard.is_better(1.1, 1.0)
    assert not guard.is_better(0.9, 1.0)


@pytest.mark.parametrize(
    ("names", "run", "said"),
    [
        (["accuracy"], {}, "no metric"),
        (["guard"], {"has_guard": False}, "not measured"),
        (["itm"], {"losses": ["itc"]}, "not measured"),
        (["image_to_text_recall@5"], {"losses": ["mlm"], "is_contrastive": False}, "not measured"),
        (["loss", "loss"], {}, "twice"),
    ],
)
def test_what_a_run_does_not_measure_is_said(names, run, said):
    with pytest.raises(InputError, match=said):
        find(*names, **run)
