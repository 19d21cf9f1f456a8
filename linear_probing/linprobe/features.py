"""Features of images: the frozen backbone sees each image once a view.

A view is a transform together with what its random numbers derive from. The numbers of an image
depend on that and on the image's content alone: not on its place, the batch, or the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from linprobe.datasets import Split, read_bscan
from linprobe.store import FeatureStore, encoder_digest, feature_key
from retfiner.common.errors import InputError
from retfiner.common.processes import available_cores, handing_over, start_reader
from retfiner.common.progress import progress
from retfiner.common.seeds import generator
from retfiner.vision import (
    PATCH_TOKENS,
    AugmentedTransform,
    Backbone,
    EvaluationTransform,
    feature_width,
)


@dataclass(frozen=True)
class View:
    """One way to show an image to the encoder; ``stream`` is empty where nothing is random."""

    transform: EvaluationTransform | AugmentedTransform
    stream: tuple[int | str, ...] = ()

    def show(self, gray: Tensor, digest: str) -> Tensor:
        """Turn (1, S, S) in [0, 1], resized, of a file with this SHA-256 into (C, S, S)."""
        if isinstance(self.transform, AugmentedTransform):
            return self.transform.augmented(gray, generator(*self.stream, digest))
        return self.transform.normalised(gray)


class _Shown(Dataset):
    """Images as the encoder takes them: (C, S, S), or the error that reading one raised."""

    def __init__(self, split: Split, view: View) -> None:
        self.split, self.view = split, view

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Tensor | InputError:
        try:
            image = read_bscan(self.split.paths[index])
        except InputError as error:
            return error  # raised in the main process, where it is not wrapped into another
        gray = self.view.transform.resized(image)
        return self.view.show(gray, self.split.digests[index])


class Extractor:
    """Computes features of a kind (``method``), or takes them from the store.

    The encoder is put into evaluation mode and onto the device, otherwise left alone.
    ``num_workers`` processes read images, 0 for none; it sees ``batch_size`` at once.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: str,
        store: FeatureStore,
        *,
        device: torch.device,
        num_workers: int = 0,
        batch_size: int = 64,
    ) -> None:
        self.backbone, self.method, self.store = backbone, method, store
        self.device, self.num_workers, self.batch_size = device, num_workers, batch_size
        self.digest = encoder_digest(backbone)
        self.images_encoded = 0
        tokens = method == PATCH_TOKENS
        self.feature_width = backbone.patches * backbone.width if tokens else feature_width(
            backbone.width, method
        )  # fmt: skip
        backbone.encoder.eval().requires_grad_(False).to(device)
        self._dtype = next(backbone.encoder.parameters()).dtype
        self._kept_as = torch.float16 if tokens else self._dtype

    def stored(self, split: Split, views: Sequence[View], title: str = "") -> Tensor:
        """Give features by view, (V, N, F), computing and storing those that are not there yet.

        Raises:
            InputError: If an image cannot be read or features cannot be stored.
        """
        keys = [
            feature_key(self.digest, self.method, view.transform, view.stream, split.digests)
            for view in views
        ]
        shape = (len(views), len(split), self.feature_width)
        if self.method == PATCH_TOKENS:
            return self._mapped(split, views, keys, title)
        features = torch.empty(shape, dtype=self._dtype)
        with progress(title, len(views) * len(split)) as bar:
            for index, (key, view) in enumerate(zip(keys, views, strict=True)):
                table = self.store.read(key, len(split))
                if table is None or table.shape[1] != shape[2]:
                    table = self._encode_all(split, view, bar).numpy()
                    self.store.write(key, table)  # one at a time: interrupted, it goes on from here
                else:
                    bar.update(len(split))
                features[index] = torch.from_numpy(table)
        return features

    def _mapped(
        self, split: Split, views: Sequence[View], keys: Sequence[str], title: str
    ) -> Tensor:
        """Give stored patch tokens as they lie on the disk: they may be more than fits in memory.

        Raises:
            InputError: If there is not enough room for them, besides what `stored` raises.
        """
        [view], [key] = views, keys
        size = 2 * len(split) * self.feature_width
        if self.store.mapped(key, (len(split), self.feature_width)) is None:
            self.store.require(size)
            told = f"{title}, {size / 1e9:.2g} GB of patch tokens"
            with progress(told, len(split)) as bar:
                self.store.write(key, self._encode_all(split, view, bar).numpy())
        table = self.store.mapped(key, (len(split), self.feature_width))
        return torch.from_numpy(table)[None]

    def fresh(self, split: Split, view: View, title: str = "") -> Tensor:
        """Compute the features of one view, (N, F), and store nothing; errors as of `stored`."""
        with progress(title, len(split)) as bar:
            return self._encode_all(split, view, bar)

    def _encode_all(self, split: Split, view: View, bar: tqdm) -> Tensor:
        features = torch.empty(len(split), self.feature_width, dtype=self._kept_as)
        done = 0
        for shown in self.batches(split, view, self.batch_size):
            features[done : done + len(shown)] = self.encode(shown).cpu()
            done += len(shown)
            bar.update(len(shown))
        self.images_encoded += len(split)
        return features

    def batches(self, split: Split, view: View, size: int) -> Iterator[Tensor]:
        """Read images in their order and show them: (B, C, S, S), B of them at once.

        Raises:
            InputError: If images cannot be read; they are named.
        """
        loader = DataLoader(
            _Shown(split, view),
            batch_size=size,
            num_workers=self.num_workers,
            collate_fn=handing_over(list),
            worker_init_fn=start_reader,
        )
        done = 0
        for shown in loader:
            if any(isinstance(one, InputError) for one in shown):
                raise _unreadable(split.paths[done:])
            done += len(shown)
            yield torch.stack(shown)

    def encode(self, images: Tensor) -> Tensor:
        """Encode (B, C, S, S) images, (B, F), in the precision of the weights, never in less."""
        images = images.to(self.device, self._dtype)
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.backbone.features(images, self.method)


def _unreadable(paths: Sequence[Path]) -> InputError:
    """Name every image that cannot be read, not just the first."""

    def look(path: Path) -> list[InputError]:
        try:
            read_bscan(path)
        except InputError as error:
            return [error]
        return []

    with ThreadPoolExecutor(8) as pool:
        errors = [error for found in pool.map(look, paths) for error in found]
    told = "\n  ".join(error.in_one_line for error in errors[:20])
    more = f"and {len(errors) - 20} more" if len(errors) > 20 else None
    remedy = "replace or remove them"
    return InputError(f"{len(errors)} images cannot be used:\n  {told}", got=more, remedy=remedy)


def reading_processes(requested: int | None, device: torch.device) -> int:
    """Leave most cores to an encoder that runs on them; let a GPU not wait for images."""
    if requested is not None:
        return requested
    cores = available_cores()
    return min(8, max(1, cores // 4) if device.type == "cpu" else cores)
