"""What is tried: valid files with changes, and settings drawn at random.

Every target takes a seeded ``random.Random`` and a folder, and ends without an exception or with an
InputError (or, for command lines, the parser's own exit). All else is a finding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import random
import struct
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from linprobe.config import ProbeConfig
from linprobe.prepare.tables import read_table as read_sheet
from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.common.patients import read_split_table
from retfiner.common.predictions import read_run
from retfiner.config import RefineConfig
from retfiner.data.manifest import read_manifest
from retfiner.data.pair_table import read_reports
from retfiner.vision import load_backbone, read_image
from retfiner.vision.images import count_images, why_unusable
from tests.helpers.image_files import (
    bscans,
    compressed_by_pillow,
    dicom,
    topcon_compressed,
    topcon_raw,
    write_dicom,
    write_e2e,
    write_img,
    write_topcon,
    write_vol,
)
from tests.helpers.refinement import SIZE, write_base_model

Target = Callable[[random.Random, Path], None]
VOLUME = bscans(3, 12, 16)


# ---- bytes


def mutated(rng: random.Random, content: bytes) -> bytes:
    """Change bytes as damage and malice do: bits, numbers, cuts, repeats, insertions."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        # Headers decide what a reader does: half of the changes fall there.
        reach = min(len(data), 300) if rng.random() < 0.6 else len(data)
        place = rng.randrange(reach)
        kind = rng.randrange(7)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place] = rng.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            value = rng.choice(
                (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 65535, 65536, rng.getrandbits(32))
            )
            data[place : place + 4] = struct.pack(rng.choice("<>") + "I", value)
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            del data[place : place + rng.randrange(1, 40)]
        elif kind == 5:
            data[place:place] = rng.randbytes(rng.randrange(1, 40))
        else:
            data[place:place] = data[place : place + rng.randrange(1, 200)]
    return bytes(data)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _numpy(save: Callable[..., None], *arrays: object, **named: object) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def seeds(folder: Path) -> dict[str, list[bytes]]:
    """Give valid files by suffix."""
    plain, colour = Image.fromarray(VOLUME[0]), Image.fromarray(VOLUME.transpose(1, 2, 0))
    deep = Image.fromarray(bscans(1, 12, 16, top=65535)[0])
    pages = {"save_all": True, "append_images": [Image.fromarray(v) for v in VOLUME[1:]]}

    def written(name: str, write: Callable[[Path], object]) -> bytes:
        write(folder / name)
        return (folder / name).read_bytes()

    jpeg2000 = compressed_by_pillow(dicom(VOLUME), VOLUME)
    jpeg = compressed_by_pillow(dicom(VOLUME), VOLUME, lossless=False)
    window = dicom(VOLUME[0], WindowCenter=100, WindowWidth=50, RescaleSlope=1, RescaleIntercept=0)
    return {
        ".png": [_saved(plain, "PNG"), _saved(colour, "PNG"), _saved(deep, "PNG"),
                 _saved(plain.convert("P"), "PNG"), _saved(plain, "GIF"), _saved(colour, "WEBP")],
        ".jpg": [_saved(plain, "JPEG"), _saved(colour, "JPEG", progressive=True),
                 _saved(plain, "JPEG2000")],
        ".tif": [_saved(plain, "TIFF"), _saved(deep, "TIFF"), _saved(plain, "TIFF", **pages),
                 _saved(colour, "TIFF", compression="tiff_lzw"),
                 _saved(plain, "TIFF", compression="tiff_deflate"),
                 _saved(plain, "TIFF", compression="jpeg")],
        ".bmp": [_saved(plain, "BMP"), _saved(colour, "BMP")],
        ".npy": [_numpy(np.save, VOLUME), _numpy(np.save, VOLUME[0] / np.float32(255))],
        ".npz": [_numpy(np.savez, bscans=VOLUME, label=np.int64(1)),
                 _numpy(np.savez_compressed, bscans=VOLUME)],
        ".dcm": [written("a.dcm", lambda p: write_dicom(p, dicom(VOLUME))),
                 written("b.dcm", lambda p: write_dicom(p, jpeg2000)),
                 written("c.dcm", lambda p: write_dicom(p, jpeg)),
                 written("d.dcm", lambda p: write_dicom(p, window))],
        ".vol": [written("a.vol", lambda p: write_vol(p, VOLUME / np.float32(255)))],
        ".e2e": [written("a.e2e", lambda p: write_e2e(p, {1: VOLUME.astype(np.uint16)}))],
        ".img": [written("a.img", lambda p: write_img(p, VOLUME))],
        ".fda": [written("a.fda", lambda p: write_topcon(p, topcon_compressed(VOLUME)))],
        ".fds": [written("a.fds", lambda p: write_topcon(p, topcon_raw(VOLUME.astype("<u2"))))],
    }  # fmt: skip


_SEEDS: dict[Path, dict[str, list[bytes]]] = {}


def _seeds_of(folder: Path) -> dict[str, list[bytes]]:
    if folder not in _SEEDS:
        _SEEDS[folder] = seeds(folder)
    return _SEEDS[folder]


def image_target(suffix: str) -> Target:
    """Make the target of an image format."""

    def target(rng: random.Random, folder: Path) -> None:
        name = f"fuzz_16x3{suffix}" if suffix == ".img" else f"fuzz{suffix}"
        path = folder / name
        path.write_bytes(mutated(rng, rng.choice(_seeds_of(folder)[suffix])))
        why_unusable(path)
        count = count_images(path)
        image = read_image(f"{path}#{rng.randrange(min(count, 4))}")
        assert image.ndim == 2 and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1

    return target


# ---- tables


def _text(rng: random.Random) -> str:
    words = ("image", "report", "patient_id", "patient", "split", "class", "train", "a.png", "nan",
             '"', '""', ",", ";", "\n", "\r", "\r\n", "\0", "\t", " ", "#1", "=1+1", "ä", "\ufeff",
             "\u2028", "😀", "/", "..", "x" * 300, "1e9", "-1")  # fmt: skip
    return "".join(rng.choice(words) for _ in range(rng.randrange(40)))


def table_target(rng: random.Random, folder: Path) -> None:
    """Tables of pairs, splits and downloads."""
    path = folder / "split.csv"
    header = rng.choice(
        ("image,report,patient_id\n", "image,class,patient,split\n", "image,patient\n", "")
    )
    content = (header + _text(rng)).encode(rng.choice(("utf-8", "utf-16", "utf-8-sig")), "replace")
    path.write_bytes(mutated(rng, content) if rng.random() < 0.5 else content)
    readers = (
        lambda: read_manifest(path, on_bad_row="skip"),
        lambda: read_manifest(path),
        lambda: read_reports(path),
        lambda: read_split_table(folder),
        lambda: read_sheet(path, ("image", "patient")),
    )
    for reader in readers:
        with contextlib.suppress(InputError):
            reader()


# ---- checkpoints


def checkpoint_target(rng: random.Random, folder: Path) -> None:
    """Keys renamed, prefixed, lost, added and reshaped; and what a file says about itself."""
    path = folder / "base.pth"
    if not path.exists():
        write_base_model(path)
    content = torch.load(path, weights_only=True)
    state = dict(content["model"])
    for _ in range(rng.randrange(4)):
        tensors = [key for key, value in state.items() if isinstance(value, torch.Tensor)]
        key = rng.choice(sorted(tensors, key=str))
        kind = rng.randrange(6)
        value = state.pop(key)
        if kind == 1:
            prefixes = ("module.", "backbone.", "model.", "x.", "", "head.", "norm.")
            state[f"{rng.choice(prefixes)}{key}"] = value
        elif kind == 2:
            axis = rng.randrange(max(1, value.ndim))
            state[key] = value.repeat_interleave(2, axis) if value.ndim else value
        elif kind == 3:
            state[key] = rng.choice(
                (value.flatten(), value[None], value[:0], value.to(torch.int64))
            )
        elif kind == 4:
            state[key] = rng.choice(("text", 1, None, [value], {"a": value}))
        elif kind == 5:
            state[rng.choice((7, ("a", 1), "", "blocks.99.norm1.weight", key + ".weight"))] = value
    prefix = rng.choice(("", "", "module.", "model.", "backbone.", "module.backbone."))
    state = {prefix + key if isinstance(key, str) else key: value for key, value in state.items()}
    own = content["retfiner"] | rng.choice(
        ({}, {"image_size": rng.choice((0, -8, 7, 64, SIZE))}, {"num_heads": rng.choice((0, 3, 4))},
         {"backbone": rng.choice(("MAE", "DINOv3", "timm/x", "", "EyeCLIP"))}, {"mean": [1]})
    )  # fmt: skip
    layout = rng.choice(("model", "teacher", "state_dict", ""))
    made = {layout: state} if layout else state
    torch.save(made | ({"retfiner": own} if rng.random() < 0.7 else {}), folder / "fuzz.pth")
    names = ("auto", "RETFound", "MAE", "VisionFM", "UrFound", "DINOv2", "MIRAGE", "RETFound-Green")
    load_backbone(
        folder / "fuzz.pth",
        rng.choice(names),
        rng.choice((None, None, 32, 48)),
        rng.choice((None, 4)),
    )


def checkpoint_bytes_target(rng: random.Random, folder: Path) -> None:
    """A checkpoint's bytes changed: archive, old format and safetensors."""
    path = folder / "base.pth"
    if not path.exists():
        write_base_model(path)
    made = folder / rng.choice(("a.pth", "b.pth", "c.safetensors"))
    if not made.exists():
        content = torch.load(path, weights_only=True)
        if made.suffix == ".pth":
            torch.save(content, made, _use_new_zipfile_serialization=made.name == "a.pth")
        else:
            from safetensors.torch import save_file

            save_file(dict(content["model"]), made, {"retfiner": json.dumps(content["retfiner"])})
    target = folder / f"fuzz{made.suffix}"
    target.write_bytes(mutated(rng, made.read_bytes()))
    load_backbone(target)


# ---- settings


def _word(rng: random.Random) -> str:
    return str(rng.choice((
        0, 1, -1, 2, 0.5, 1e-4, 1e400, "nan", "inf", "", "a", "none", "null", "true",
        "[]", "[1]", "{}",
        "itc", "itm itc", "cosine", "auto", "a.csv", "/", "!!python/name:os", "&a [*a]", "*a",
        "\t", "- a",
        "a: b", "0x10", "1_000", "١", "9" * 30, "--lr", "x" * 2000, "{a: 1", "'", '"', "%s",
        "error", "skip",
    )))  # fmt: skip


def settings_target(kind: type) -> Target:
    """Make the target of a configuration: flags, and a file of settings."""
    names = [field.name for field in dataclasses.fields(kind)]
    needed = {"model_weights": "a.pth", "train_csv": "a.csv", "init_weights": "a.pth"}
    needed = {name: value for name, value in needed.items() if name in names}

    def target(rng: random.Random, folder: Path) -> None:
        words: list[str] = []
        for name, value in needed.items():
            if rng.random() < 0.9:
                words += [f"--{name}", value]
        for _ in range(rng.randrange(5)):
            name = rng.choice(names)
            words += [f"--{name}", *(_word(rng) for _ in range(rng.choice((0, 1, 1, 1, 2))))]
        if rng.random() < 0.5:
            lines = [f"{rng.choice(names)}: {_word(rng)}\n" for _ in range(rng.randrange(5))]
            (folder / "fuzz.yaml").write_text("".join(lines) + rng.choice(("", _text(rng))))
            words += ["--config", str(folder / "fuzz.yaml")]
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            try:
                parse(kind, "", words)
            except SystemExit as exit_:
                assert exit_.code in (0, 2)

    return target


# ---- results


def _json(rng: random.Random, depth: int = 3) -> object:
    kind = rng.randrange(8 if depth else 5)
    plain = (None, rng.randrange(-5, 5), rng.random(), _text(rng)[:20], True)
    if kind < 5:
        return plain[kind]
    if kind == 5:
        return [_json(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {_text(rng)[:5]: _json(rng, depth - 1) for _ in range(rng.randrange(4))}


def results_target(rng: random.Random, folder: Path) -> None:
    """A run's predictions, and what is known about it."""
    from tests.hostile.test_tables_and_settings import PREDICTIONS, write_run

    place = folder / "v" / "m-00" / "d" / "seed0-00"
    names = ("format", "seed", "settings", "context", "notes", "versions", "fingerprint", "model")
    change = {rng.choice(names): _json(rng)} if rng.random() < 0.6 else {}
    text = mutated(rng, PREDICTIONS.encode()) if rng.random() < 0.6 else PREDICTIONS.encode()
    write_run(place, change, text.decode("utf-8", "surrogateescape"))
    if rng.random() < 0.4:
        path = place / "run.json"
        path.write_bytes(mutated(rng, path.read_bytes()))
    read_run(place)


SUFFIXES = (
    ".png", ".jpg", ".tif", ".bmp", ".npy", ".npz", ".dcm", ".vol", ".e2e", ".img", ".fda", ".fds",
)  # fmt: skip
TARGETS: dict[str, Target] = {
    **{f"image {suffix}": image_target(suffix) for suffix in SUFFIXES},
    "tables": table_target,
    "checkpoint keys": checkpoint_target,
    "checkpoint bytes": checkpoint_bytes_target,
    "RefineConfig": settings_target(RefineConfig),
    "ProbeConfig": settings_target(ProbeConfig),
    "results": results_target,
}


def attempt(name: str, seed: int, folder: Path) -> typing.Literal["accepted", "refused"]:
    """Try one input.

    Args:
        name: Of :data:`TARGETS`.
        seed: What the input derives from.
        folder: For its file.

    Returns:
        Whether it was accepted or refused with an InputError; anything else goes through.
    """
    try:
        TARGETS[name](random.Random(f"{name}/{seed}"), folder)
    except InputError:
        return "refused"
    return "accepted"
