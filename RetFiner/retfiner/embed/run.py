"""From images to a Parquet file of vectors, part by part, so that a run can be cut off at any time.

A part is written whole or not at all, beside the output; the same command goes on after the parts
that are there. Devices share the parts among them. Each image is decoded once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retfiner.common.errors import InputError
from retfiner.common.faults import explained_faults
from retfiner.common.files import file_sha256
from retfiner.common.progress import LOADING, progress
from retfiner.data.pair_table import Reading, by_its_training
from retfiner.embed.config import EmbedConfig
from retfiner.embed.images import EmbeddedImage, list_images
from retfiner.vision.sniff import checkpoint_of

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from retfiner.vision.preprocessing import EvaluationTransform

ABOUT = b"retfiner"
"""Where a Parquet file's own description says what its vectors are."""


class Encoder(NamedTuple):
    """What turns normalised images (B, C, S, S) into (B, D) float32 on the CPU."""

    transform: EvaluationTransform
    embed: Callable[[torch.Tensor], torch.Tensor]


@explained_faults()
def embed(config: EmbedConfig) -> Path:
    """Embed all images and write the file.

    Returns:
        Its path.

    Raises:
        InputError: If anything the user gave cannot be used, or the parts of another run are there.
    """
    weights = checkpoint_of(config.model) if config.model.is_dir() else config.model
    if not weights.is_file():
        raise InputError(f"there are no weights at {weights}", expected="a file, or a run's folder")
    trained = _settings_of(weights)
    reading, slices = Reading.as_trained(trained, config.data), trained.get("slice_column")
    with by_its_training():
        images = list_images(config.data, config.image_column, config.image_root, reading, slices)
    folder = config.output.with_suffix(".parts")
    listed = hashlib.sha256("".join(f"{image.address}\n" for image in images).encode())
    about = {"model": file_sha256(weights), "space": config.space, "images": listed.hexdigest()}
    if config.overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    elif config.output.exists():
        raise InputError(f"{config.output} is there already", remedy="--overwrite begins anew")
    _claim(folder, about | {"part_size": config.part_size})
    parts = range(-(-len(images) // config.part_size))
    missing = [part for part in parts if not _place(folder, part).exists()]
    done = len(parts) - len(missing)
    print(f"Images:         {len(images):,}, {done} of {len(parts)} parts done before")
    if config.devices == 1 or len(missing) < 2:
        _embed_parts(0, config, weights, images, [missing])
    else:
        with progress(LOADING):
            import torch.multiprocessing as mp

        shares = [missing[rank :: config.devices] for rank in range(config.devices)]
        mp.spawn(_embed_parts, (config, weights, images, shares), config.devices)
    lost = _merge([_place(folder, part) for part in parts], config.output, about)
    shutil.rmtree(folder)
    if lost:
        print(f"Note:           {lost:,} images cannot be read: no vector, and why, in their rows")
    print(f"Vectors:        {config.output}")
    return config.output


def _settings_of(weights: Path) -> Mapping[str, Any]:
    """Read the settings of a run off its checkpoint; none of a backbone's weights."""
    if weights.suffix != ".ckpt":
        return {}
    with progress(LOADING):
        from retfiner.vision import read_checkpoint

    return read_checkpoint(weights).metadata.get("settings", {})


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Make the folder of parts, or make sure that those in it are of this very run."""
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / "about.json"
    if not own.exists():
        own.write_text(json.dumps(about))
    differing = [key for key, value in json.loads(own.read_text()).items() if about[key] != value]
    if differing:
        raise InputError(
            f"{folder} holds parts of another run",
            got=f"another {' and '.join(differing)}",
            expected="the same model, images, space and part_size",
            remedy="--overwrite begins anew; or give another --output",
        )


def _place(folder: Path, part: int) -> Path:
    return folder / f"{part:06d}.parquet"


def _embed_parts(
    rank: int,
    config: EmbedConfig,
    weights: Path,
    images: Sequence[EmbeddedImage],
    shares: Sequence[Sequence[int]],
) -> None:
    """Embed a device's share of the parts."""
    if not shares[rank]:
        return
    with progress(LOADING):
        import pyarrow.parquet as pq

    encoder = load_encoder(config, weights, rank)
    for part in shares[rank]:
        first = part * config.part_size
        own = images[first : first + config.part_size]
        table = _embed_part(encoder, own, config, f"part {part + 1}")
        place = _place(config.output.with_suffix(".parts"), part)
        pq.write_table(table, place.with_suffix(".tmp"))
        place.with_suffix(".tmp").replace(place)


def load_encoder(config: EmbedConfig, weights: Path, rank: int = 0) -> Encoder:
    """Load a backbone, or a run's whole model, on a device.

    Raises:
        InputError: If it cannot be read, or has no space that it shares with reports.
    """
    import torch

    from retfiner.api import RefinedModel
    from retfiner.common.devices import resolve_device
    from retfiner.export.loading import read_model
    from retfiner.training.precision import resolve_precision
    from retfiner.vision import evaluation_transform, load_backbone

    device = resolve_device(config.device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", rank % torch.cuda.device_count())
    precision = resolve_precision(config.precision, device.type)
    if weights.suffix == ".ckpt":
        loaded = read_model(weights, device, precision=precision)
        backbone = loaded.model.backbone
        if config.space == "shared":
            RefinedModel(loaded).require_contrast()
            return Encoder(loaded.transform, loaded.embed_images)
    else:
        if config.space == "shared":
            raise InputError("a backbone alone has no space that it shares with reports",
                             got="--space shared", expected="the folder of a run")  # fmt: skip
        backbone = load_backbone(weights, config.backbone)
        backbone.encoder.to(device).eval()

    @torch.no_grad()
    def features(pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision != "32-true"):
            return backbone.features(pixels.to(device)).float().cpu()

    return Encoder(evaluation_transform(backbone), features)


def _embed_part(
    encoder: Encoder, images: Sequence[EmbeddedImage], config: EmbedConfig, title: str
) -> pa.Table:
    import pyarrow as pa

    from retfiner.evaluation.embedding import read_batches

    vectors: list[list[float] | None] = [None] * len(images)
    problems: list[str | None] = [image.unclear for image in images]
    addresses = [image.address for image in images]
    clear = [place for place, image in enumerate(images) if image.unclear is None]
    size, workers = config.batch_size, config.num_workers
    for batch in read_batches(addresses, encoder.transform, title, size, workers, clear):
        for position, why in batch.unreadable.items():
            problems[position] = why
        if batch.positions:
            embedded = encoder.embed(batch.images).tolist()
            for position, vector in zip(batch.positions, embedded, strict=True):
                vectors[position] = vector
    return pa.table({
        "image": [str(image.address) for image in images],
        "exam": [image.exam for image in images],
        "row": pa.array([image.row for image in images], pa.int64()),
        "vector": pa.array(vectors, pa.list_(pa.float32())),
        "problem": pa.array(problems, pa.string()),
    })  # fmt: skip


def _merge(parts: Sequence[Path], output: Path, about: dict[str, Any]) -> int:
    """Join the parts, one in memory at a time; return how many images could not be read."""
    import pyarrow.parquet as pq

    lost = 0
    temporary = output.with_suffix(".tmp")
    schema = pq.read_schema(parts[0]).with_metadata({ABOUT: json.dumps(about).encode()})
    with pq.ParquetWriter(temporary, schema) as writer:
        for part in parts:
            table = pq.read_table(part)
            lost += table.num_rows - table["vector"].drop_null().length()
            writer.write_table(table.cast(schema))
    temporary.replace(output)
    return lost
