"""The protocol's numbers, worked by hand."""

import pytest

from linprobe.probes.watch import Watch
from linprobe.schedule import batch_size_of, learning_rate_at, views_of

PUBLISHED = {"peak": 1e-3, "lowest": 1e-8, "warmup": 10, "epochs": 1000}


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, 0.0),
        (2.5, 2.5e-4),
        (10, 1e-3),
        (505, (1e-3 + 1e-8) / 2),  # half way between 10 and 1000: cos(pi / 2) = 0
        (340, 1e-8 + (1e-3 - 1e-8) * 0.75),  # a third of the way: (1 + cos(pi / 3)) / 2 = 0.75
        (1000, 1e-8),
    ],
)
def test_learning_rate(epoch, expected):
    assert learning_rate_at(epoch, **PUBLISHED) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_without_warm_up_it_starts_at_the_peak():
    assert learning_rate_at(0, peak=0.1, lowest=0.0, warmup=0, epochs=4) == 0.1
    assert learning_rate_at(2, peak=0.1, lowest=0.0, warmup=0, epochs=4) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("images", "expected"),
    [(1, 1), (3, 1), (4, 1), (8, 2), (31, 4), (32, 8), (127, 16), (255, 32), (256, 64), (9999, 64)],
)
def test_batch_is_the_largest_power_of_two_in_a_quarter(images, expected):
    assert batch_size_of(images) == expected


def test_batch_rule_can_be_changed():
    assert batch_size_of(100, largest=48, share=1.0) == 48
    assert batch_size_of(100, largest=64, share=0.5) == 32
    assert batch_size_of(5, largest=64, share=4.0) == 5  # never more than there are


@pytest.mark.parametrize(
    ("images", "expected"),
    [(1, 8), (100, 8), (1000, 8), (1200, 7), (2048, 4), (4096, 2), (100_000, 2)],
)
def test_more_views_of_fewer_images(images, expected):
    assert views_of(images) == expected


def follow(values, start=20, patience=20, min_delta=1e-3):
    """Run early stopping over (score, loss) pairs; return best and last epoch."""
    watch = Watch("--rate", patience, start=start, min_delta=min_delta)
    for epoch, (score, loss) in enumerate(values, start=1):
        watch.advance(epoch, score, loss)
        if watch.is_over:
            return watch.best_epoch, epoch
    return watch.best_epoch, None


def test_a_model_that_never_improves_stops_after_epoch_40():
    assert follow([(0.5, 1.0)] * 100) == (1, 40)


def test_waiting_starts_anew_with_each_better_epoch():
    values = [(0.5, 1.0)] * 29 + [(0.6, 1.0)] + [(0.55, 0.1)] * 70
    assert follow(values) == (30, 50)


def test_an_early_best_is_kept_though_not_waited_for():
    assert follow([(0.5, 1.0), (0.9, 1.0)] + [(0.7, 0.5)] * 80) == (2, 40)


def test_what_counts_as_better():
    def state():
        return Watch("--rate", 20, start=20, best_epoch=3, score=0.5, loss=1.0, waited=2)

    def is_better(score, loss):
        return state().advance(30, score, loss)

    assert is_better(0.502, 9.0)
    assert not is_better(0.5005, 0.1)  # neither better by 0.001 nor a tie
    assert is_better(0.5, 0.998)  # a tie, decided by the loss
    assert not is_better(0.5, 0.9995)
    assert not is_better(0.4, 0.1)
    for epoch, waited in ((30, 3), (20, 2)):
        watch = state()
        watch.advance(epoch, 0.4, 0.1)
        assert watch.waited == waited
