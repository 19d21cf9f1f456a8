"""Tables, settings, arrays and results from elsewhere are read as text and numbers alone."""

from __future__ import annotations

import json
import os
import struct
import zipfile

import pytest

from linprobe.prepare.tables import read_table as read_sheet
from linprobe.store import FeatureStore
from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256
from retfiner.common.predictions import fingerprint, read_about, read_run, read_table
from retfiner.config import RefineConfig
from retfiner.data.manifest import read_manifest
from retfiner.evaluation.zero_shot.prompts import read_prompts
from retfiner.vision import read_image
from tests.helpers.bounded import assert_refused, bounded
from tests.helpers.refinement import write_csv, write_image

# ---- CSV

HEADER = "image,report,patient_id\n"
TABLES = {
    "a cell of 50 MB": HEADER + f'a.png,"{"x" * 50_000_000}",p\n',
    "a quote that never ends": HEADER + 'a.png,"' + "x\n" * 1_000_000,
    "10^6 columns": ",".join(f"c{k}" for k in range(1_000_000)) + "\n",
    "10^6 columns, ours among them": ",".join(["image,report,patient_id", *map(str, range(10**6))]),
    "10^6 cells in a row": HEADER + "a" + "," * 1_000_000 + "b\n",
    "NUL": HEADER + "a\0.png,x\0y,p\0\n",
    "only NUL": "\0" * 100_000,
    "no line": "",
    "a header alone": HEADER,
    "surrogates": HEADER.encode() + b"\xed\xa0\x80.png,x,p\n",
    "a page": "<!doctype html><html>" * 1000,
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 100,
    "UTF-16": HEADER.encode("utf-16"),
    "the same column twice": "image,image,report,patient_id\na,b,c,d\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_are_none(tmp_path, name):
    content = TABLES[name]
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(lambda: read_manifest(tmp_path / "a.csv"), megabytes=500)


def test_formulas_are_words(tmp_path):
    """Nothing evaluates a cell; reports that begin with = stay as they are."""
    write_image(tmp_path / "a.png", 0)
    formulas = [
        "=cmd|' /C calc'!A0",
        "@SUM(1+1)*cmd|' /C calc'!A0",
        "+1+A1",
        "-2+B3",
        '=HYPERLINK("x")',
    ]
    rows = [["a.png", formula, f"p{k}"] for k, formula in enumerate(formulas)]
    assert read_manifest(write_csv(tmp_path / "a.csv", rows)).reports == formulas


@pytest.mark.parametrize("columns", ["image,class,patient,split\n", "image\n", "\0", ""])
def test_split_tables_that_are_none(tmp_path, columns):
    (tmp_path / "split.csv").write_text(columns + "a,b\n" + '"' + "x" * 200_000)
    assert_refused(lambda: read_sheet(tmp_path / "split.csv", ("image", "class")))


# ---- settings

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} [{','.join(['*' + chr(97 + k)] * 9)}]\n" for k in range(20)
)
SETTINGS = {
    "a call": "lr: !!python/object/apply:os.system ['touch {marker}']\n",
    "a call, new": "lr: !!python/object/new:os.system ['touch {marker}']\n",
    "a module": "lr: !!python/module:os\n",
    "a name": "lr: !!python/name:os.system\n",
    "a tag of anybody's": "lr: !evil 1\n",
    "a billion laughs": LAUGHS,
    "a laugh in a flag": LAUGHS.replace("a:", "losses:", 1),
    "merged": "base: &b {{lr: 1}}\nmore:\n  <<: *b\n",
    "an anchor of its own": "losses: &a [itc, *a]\n",
    "lists in lists": "lr: " + "[" * 100_000,
    "mappings in mappings": "{{a: " * 100_000,
    "2 MB": "note: '" + "x" * 2_000_000 + "'\n",
    "a class path": "lr: {{class_path: os.system, init_args: {{command: 'touch {marker}'}}}}\n",
    "a key that is none": "? [a]\n: 1\n",
    "two documents": "lr: 1\n---\nlr: 2\n",
    "NUL": "lr: \0\n",
    "no mapping": "- lr\n",
    "a number of 10^5 digits": "seed: " + "9" * 100_000 + "\n",
    "an unknown key": "eval: touch {marker}\n",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_run_nothing_and_end_with_status_2(tmp_path, name):
    marker = tmp_path / "marker"
    (tmp_path / "a.yaml").write_text(SETTINGS[name].format(marker=marker))
    words = [
        "--config",
        str(tmp_path / "a.yaml"),
        "--model_weights",
        "a.pth",
        "--train_csv",
        "a.csv",
    ]
    outcome = bounded(lambda: parse(RefineConfig, "", words))
    assert (outcome.kind, outcome.text) == ("SystemExit", "2"), outcome
    assert outcome.megabytes < 100
    assert not marker.exists()


@pytest.mark.parametrize("name", ["a call", "a billion laughs", "lists in lists", "2 MB", "NUL"])
def test_prompts_that_are_none(tmp_path, name):
    (tmp_path / "a.yaml").write_text(SETTINGS[name].format(marker=tmp_path / "marker"))
    assert_refused(lambda: read_prompts(tmp_path / "a.yaml"), megabytes=100)
    assert not (tmp_path / "marker").exists()


# ---- arrays, features, results


def npy(shape, dtype="<f4", values=b"", version=1, text=None):
    header = text or f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"
    packed = header.encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(packed))
    return b"\x93NUMPY" + bytes([version, 0]) + size + packed + values


def long_header(length):
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", length)


ARRAYS = {
    "10^12 values": npy((10**6, 10**6)),
    "shape that overflows": npy((2**40, 2**40)),
    "negative": npy((-1, 8)),
    "shape of text": npy("('a', 'b')"),
    "100 axes": npy((1,) * 100),
    "objects": npy((8, 8), "|O", b"\x80\x02cposix\nsystem\n(S'true'\ntR."),
    "objects in a record": npy((8, 8), "[('a', '|O')]"),
    "a type of 2^31 bytes": npy((8, 8), "|V2147483647"),
    "text": npy((2, 2), "<U4", bytes(64)),
    "complex": npy((2, 2), "<c8", bytes(32)),
    "dates": npy((2, 2), "<M8[s]", bytes(32)),
    "a call for a header": npy((), text="__import__('os').system('true')"),
    "brackets": npy((), text="(" * 9000),
    "brackets, long": npy((), text="(" * 60_000 + ")" * 5000),
    "minus signs": npy((), text="-" * 9000 + "1"),
    "no header": b"\x93NUMPY\x01\x00",
    "a header of 4 GB": long_header(2**32 - 1),
    "version 3": npy((2, 2), version=3),
    "version 9": b"\x93NUMPY\x09\x09" + bytes(100),
}


def deflated(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, parts in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                for part in parts:
                    member.write(part)
    return path


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_claim(tmp_path, name):
    (tmp_path / "a.npy").write_bytes(ARRAYS[name])
    path = deflated(tmp_path / "a.npz", bscans=[ARRAYS[name]])

    def read_all():
        for read in (
            lambda: read_image(tmp_path / "a.npy"),
            lambda: read_image(path),
        ):
            with pytest.raises(InputError) as caught:
                read()
            assert "not enough memory" not in str(caught.value)
        return FeatureStore(tmp_path).read("a", 8)

    outcome = bounded(read_all)
    assert (outcome.kind, outcome.text) == ("returned", "None"), outcome
    assert outcome.megabytes < 100, outcome


def zeros(megabytes):
    return [bytes(1 << 20)] * megabytes


@pytest.mark.slow
def test_archives_of_zeros_are_not_unpacked(tmp_path):
    """What deflates a thousandfold is no scan; a header may be as long as it says."""
    volume = deflated(tmp_path / "a.npz", bscans=[npy((512, 1024, 1024), "|u1"), *zeros(64)])
    header = deflated(tmp_path / "b.npz", bscans=[long_header(2**30), *zeros(128)])
    for path in (volume, header):
        assert path.stat().st_size < 2 << 20
        assert_refused(lambda path=path: read_image(f"{path}#0"), megabytes=50)


PREDICTIONS = "model,data_set,image,label,p_a,p_b\nm,d,x,a,0.5,0.5\nm,d,y,b,0.5,0.5\n"


def write_run(folder, about=None, predictions=PREDICTIONS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.csv").write_text(predictions, encoding="utf-8", errors="surrogateescape")
    content = {
        "format": 2, "model": "m", "data_set": "d", "seed": 0, "settings": {}, "context": {},
        "notes": [], "versions": {}, "fingerprint": fingerprint({}),
        "predictions_sha256": file_sha256(folder / "predictions.csv"),
    }  # fmt: skip
    text = about if isinstance(about, str) else json.dumps(content | (about or {}))
    (folder / "run.json").write_text(text)
    return folder


@pytest.mark.slow
def test_results_that_are_damaged_or_worse(tmp_path):
    folder = tmp_path / "v" / "m-00" / "d" / "seed0-00"
    read_run(write_run(folder))
    for about in (
        "[" * 100_000, "[]", "{}", "1", "", "\0", {"settings": []}, {"seed": "0"}, {"model": 1},
        {"fingerprint": 1}, {"format": 10**400}, {"context": 1}, {"versions": []},
        {"notes": {}}, {"predictions_sha256": "0"}, {"settings": {"a": 1}},
    ):  # fmt: skip
        write_run(folder, about)
        assert_refused(lambda: read_run(folder))
        if isinstance(about, str):
            assert_refused(lambda: read_about(folder))
    for old, new in (
        ("p_a", "p_c"), (",0.5,0.5\nm,d,y", ",nan,0.5\nm,d,y"), ("0.5,0.5\nm", "9,-8\nm"),
        ("m,d,y", "m,d,x"), ("label", "lable"), ("0.5", "x"), (PREDICTIONS, ""),
        ("m,d,x,a,0.5,0.5\n", '"' + "x" * 10**6), ("m,d,x", "m,d,x" + "," * 10**5),
        (PREDICTIONS, "\udc80" * 1000),
    ):  # fmt: skip
        write_run(folder, predictions=PREDICTIONS.replace(old, new))
        assert_refused(lambda: read_run(folder))
        assert_refused(lambda: read_table(folder / "predictions.csv"))
    write_run(folder)
    for content in (b"", b"PK\x03\x04", os.urandom(500)):
        (folder / "predictions.csv").write_bytes(content)
        assert_refused(lambda: read_run(folder))


def test_refused_is_an_input_error_and_no_other():
    with pytest.raises(AssertionError):
        assert_refused(lambda: 1 / 0)
    with pytest.raises(AssertionError):
        assert_refused(lambda: "fine")
    assert assert_refused(lambda: (_ for _ in ()).throw(InputError("no"))).text == "no"
