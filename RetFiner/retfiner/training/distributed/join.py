"""From what a worker of this process hands over to the batch that all processes share."""

from __future__ import annotations

import torch
from tqdm import tqdm

from retfiner.common.errors import InputError
from retfiner.data.batch import Collated, join_reports
from retfiner.model import Batch, Joined
from retfiner.training.distributed.collectives import all_gather_objects, all_gather_rows, rank


class BatchJoiner:
    """Raise or say in the main process what went wrong in a worker, and join the batch's parts.

    Attributes:
        left_out: Pairs that could not be decoded and are trained without, with the reason of each.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}

    def __call__(self, collated: Collated, part: str = "training", pin: bool = False) -> Batch:
        """Return this process's batch, which knows the reports that other processes hold.

        Args:
            collated: What a worker handed over.
            part: ``training`` or ``validation``, which number their pairs apart.
            pin: Whether to lay joined reports where a GPU reads without the work before it having
                ended.

        Raises:
            InputError: If the batch could not be built, in any process.
        """
        is_broken = isinstance(collated.batch, InputError)
        parts = all_gather_objects(collated if is_broken else _without_images(collated))
        reports: list[Batch] = []
        for other in parts:
            if isinstance(other.batch, InputError):
                raise other.batch
            reports.append(other.batch)
        for other in parts:
            self._note(other.left_out, part)
        assert isinstance(collated.batch, Batch)
        if len(parts) == 1:
            return collated.batch
        sizes = tuple(len(report.lengths) for report in reports)
        joined = join_reports(reports, rank(), lambda rows: all_gather_rows(rows, sizes))
        return collated.batch._replace(joined=_pinned(joined) if pin else joined)

    def _note(self, left_out: list[tuple[int, str]], part: str) -> None:
        for number, reason in left_out:
            key = f"{part} {number}"
            if key not in self.left_out:
                self.left_out[key] = reason
                if rank() == 0:
                    tqdm.write(f"left out ({len(self.left_out)} so far): {reason}")


def _without_images(collated: Collated) -> Collated:
    """Leave out what is large and no other process needs."""
    assert isinstance(collated.batch, Batch)
    groups = collated.batch.groups
    slim = None if groups is None else groups._replace(marks=torch.empty(0))
    return collated._replace(batch=collated.batch._replace(images=torch.empty(0), groups=slim))


def _pinned(joined: Joined) -> Joined:
    return joined._replace(
        input_ids=joined.input_ids.pin_memory(),
        attention_mask=joined.attention_mask.pin_memory(),
        report_ids=joined.report_ids.pin_memory(),
        image_ids=joined.image_ids.pin_memory(),
    )
