"""Checkpoints from elsewhere: nothing in them runs, and none takes more memory than it is large."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from linprobe.weights import load_model
from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.export.extract import ExtractConfig, extract, read_refined_backbone
from retfiner.export.loading import read_model
from retfiner.refine import refine
from retfiner.vision import load_backbone, read_checkpoint
from tests.helpers.bounded import assert_refused, bounded
from tests.helpers.refinement import make_material, settings


class Runs:
    """Pickled, it is a call; whoever unpickles it makes the call."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def calls(marker: Path):
    """Ways to leave a mark when unpickled: by the system, by Python, through an allowed class."""
    return {
        "os.system": Runs(os.system, f"touch {marker}"),
        "eval": Runs(eval, f"open({str(marker)!r}, 'w')"),
        "open": Runs(open, str(marker), "w"),
        "exec": Runs(exec, f"import pathlib; pathlib.Path({str(marker)!r}).touch()"),
        "getattr": Runs(getattr, "text", "upper"),
        "torch.load": Runs(torch.load, str(marker)),
        "torch.save": Runs(torch.save, 1, str(marker)),
        "torch.hub": Runs(torch.hub.load, "a/b", "c"),
    }


def weights():
    return {"model": OrderedDict({"cls_token": torch.zeros(1, 1, 48)})}


def write_zip_checkpoint(path, content):
    torch.save(content, path)


def write_legacy_checkpoint(path, content):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_plain_pickle(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))


WRITERS = {
    "zip": write_zip_checkpoint,
    "legacy": write_legacy_checkpoint,
    "pickle": write_plain_pickle,
}
PLACES = {
    "alone": lambda call: call,
    "beside": lambda call: weights() | {"args": call},
    "as a weight": lambda call: {"model": {"cls_token": call}},
    "deep": lambda call: weights() | {"optimizer": {"state": [{0: (1, {"exp_avg": [call]})}]}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("writer", WRITERS)
def test_no_call_is_made(tmp_path, writer, place):
    marker = tmp_path / "marker"
    for name, call in calls(marker).items():
        path = tmp_path / f"{name}.pth"
        WRITERS[writer](path, PLACES[place](call))
        marker.unlink(missing_ok=True)  # pickling may have made one
        with pytest.raises(InputError):
            read_checkpoint(path)
        assert not marker.exists(), name


def test_every_door_is_the_same(tmp_path):
    """Base model, refined model, whole model, extraction, and a run to go on with."""
    marker, path = tmp_path / "marker", tmp_path / "RETFound.ckpt"
    torch.save(weights() | {"retfiner": Runs(os.system, f"touch {marker}")}, path)
    material = make_material(tmp_path / "material", pairs=8, patients=4)
    config = settings(material, tmp_path / "models", resume=path)
    base = settings(material, tmp_path / "models", model_weights=path)
    doors = {
        "load_backbone": lambda: load_backbone(path),
        "read_refined_backbone": lambda: read_refined_backbone(path),
        "read_model": lambda: read_model(path),
        "extract": lambda: extract(ExtractConfig(path_to_model=path, output=tmp_path / "out.pth")),
        "over a hostile output": lambda: extract(
            ExtractConfig(path_to_model=material.weights, output=path)
        ),
        "probe": lambda: load_model(material.weights, path),
        "train --model_weights": lambda: refine(base),
        "train --resume": lambda: refine(config),
    }
    for name, door in doors.items():
        assert_refused(door)
        assert not marker.exists(), name
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").iterdir())


def test_the_old_tar_format_of_torch_is_refused(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "old.pth"
    with tarfile.open(path, "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Runs(os.system, f"touch {marker}"))
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert_refused(lambda: read_checkpoint(path))
    assert not marker.exists()


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    assert_refused(lambda: read_checkpoint(path))


def rewritten(path, target, change):
    """Copy a checkpoint's archive, its members changed."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as written:
        for info in source.infolist():
            change(written, info, source.read(info))


@pytest.mark.slow
def test_a_pickle_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    torch.save(weights(), tmp_path / "a.pth")

    def packed(written, info, content):
        if info.filename.endswith("data.pkl"):
            with written.open(zipfile.ZipInfo(info.filename), "w", force_zip64=True) as member:
                member.write(content)
            info = zipfile.ZipInfo(info.filename + ".more")
            info.compress_type = zipfile.ZIP_DEFLATED
            with written.open(info, "w", force_zip64=True) as member:
                for _ in range(192):
                    member.write(bytes(1 << 20))
        else:
            written.writestr(info, content)

    rewritten(tmp_path / "a.pth", tmp_path / "bomb.pth", packed)
    assert (tmp_path / "bomb.pth").stat().st_size < 3 << 20
    assert_refused(lambda: read_checkpoint(tmp_path / "bomb.pth"), "an archive of")


def huge_tensors():
    values = torch.zeros(16)
    return {
        "repeated": values.as_strided((10**6, 10**6), (0, 0)),
        "repeated rows": values.expand(10**9, 16),
        "sparse": torch.sparse_coo_tensor(size=(10**6, 10**6)),
        "meta": torch.empty(10**6, 10**6, device="meta"),
    }


@pytest.mark.parametrize("kind", ["repeated", "repeated rows", "sparse", "meta"])
def test_a_tensor_that_is_larger_than_its_file_is_refused(tmp_path, kind):
    for layout in (
        {"model": {"pos_embed": huge_tensors()[kind]}},
        {"pos_embed": huge_tensors()[kind]},
    ):
        torch.save(layout, tmp_path / "RETFound.pth")
        assert_refused(lambda: load_backbone(tmp_path / "RETFound.pth", "RETFound"))


def test_a_shape_beyond_its_storage_takes_no_memory(tmp_path):
    """The pickle's numbers are changed afterwards: 10**11 values, of which a million are there."""
    path = tmp_path / "a.pth"
    torch.save({"model": {"w": torch.zeros(1000001)}}, path)
    large = struct.pack("<I", 1000001)

    def changed(written, info, content):
        if info.filename.endswith("data.pkl"):
            assert large in content
            content = content.replace(b"J" + large, b"\x8a\x06" + (10**11).to_bytes(6, "little"))
        written.writestr(info.filename, content)

    rewritten(path, tmp_path / "b.pth", changed)
    assert_refused(lambda: read_checkpoint(tmp_path / "b.pth"))


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["zip", "legacy"])
def test_recursion_is_an_error(tmp_path, writer):
    """Pickled by hand: lists in lists, which unpickling builds at any depth."""
    nested = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    path = tmp_path / "deep.pth"
    if writer == "legacy":
        path.write_bytes(nested)
    else:
        torch.save(weights(), tmp_path / "a.pth")
        rewritten(
            tmp_path / "a.pth",
            path,
            lambda written, info, content: written.writestr(
                info.filename, nested if info.filename.endswith("data.pkl") else content
            ),
        )
    assert_refused(lambda: read_checkpoint(path))


def safetensors_file(path, header, values=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + values)
    return path


def tensor_at(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAFETENSORS = {
    "header of 2^63 bytes": (b"{}", b"", 2**63),
    "header of 90 MB that is not there": (b"{}", b"", 90_000_000),
    "shape beyond its values": ({"w": tensor_at([10**6, 10**6], 0, 16)}, bytes(16)),
    "values beyond the file": ({"w": tensor_at([10**12], 0, 4 * 10**12)}, bytes(16)),
    "shape that overflows": ({"w": tensor_at([2**40, 2**40], 0, 0)}, b""),
    "negative shape": ({"w": tensor_at([-1], 0, 4)}, bytes(4)),
    "overlapping values": (
        {"a": tensor_at([4], 0, 16), "b": tensor_at([4], 0, 16)},
        bytes(16),
    ),
    "nesting": (b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
    "own metadata nested": (
        {"__metadata__": {"retfiner": "[" * 100_000}, "w": tensor_at([1], 0, 4)},
        bytes(4),
    ),
    "own metadata of other kinds": (
        {"__metadata__": {"retfiner": '{"backbone": [], "image_size": 1e99}'}},
        b"",
    ),
    "a pickle": (b"\x80\x02cposix\nsystem\n(S'true'\ntR.", b""),
}


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_safetensors_whose_header_lies(tmp_path, kind):
    path = safetensors_file(tmp_path / "RETFound.safetensors", *SAFETENSORS[kind])
    assert_refused(lambda: load_backbone(path, "RETFound"))


def test_metadata_that_asks_for_a_giant_model(tmp_path):
    own = {"backbone": "RETFound", "image_size": 10**9, "num_heads": 10**9, "provenance": {}}
    state = {"cls_token": torch.zeros(1, 1, 48), "pos_embed": torch.zeros(1, 17, 48)}
    torch.save({"model": state, "retfiner": own}, tmp_path / "a.pth")
    outcome = bounded(lambda: load_backbone(tmp_path / "a.pth"))
    assert outcome.kind == "InputError", outcome
    assert outcome.megabytes < 300


@pytest.mark.slow
def test_the_settings_of_a_run_to_go_on_with_are_only_data(tmp_path):
    """A checkpoint whose account of itself is of the right form but empty ends in words."""
    material = make_material(tmp_path / "material", pairs=8, patients=4)
    own = {"backbone": "RETFound", "image_size": 32, "num_heads": 4, "provenance": {}}
    for number, about in enumerate(
        ({}, {"settings": []}, {"settings": {}}, {"settings": {"lr": 1}})
    ):
        path = tmp_path / f"{number}.ckpt"
        torch.save({"state_dict": {"a": torch.zeros(1)}, "retfiner": own | about}, path)
        config: RefineConfig = settings(material, tmp_path / "models", resume=path)
        assert_refused(lambda config=config: refine(config), "cannot be resumed", 400)
