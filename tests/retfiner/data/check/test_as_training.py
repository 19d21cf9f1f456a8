"""The check before training says what training would do: the same rows, words, pictures, tables."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.data.check.prepare_pairs import PreparePairsConfig, prepare_pairs
from retfiner.data.check.quality_control import check_pairs
from retfiner.data.manifest import read_splits
from retfiner.data.pair_table import Columns, Reading
from retfiner.vision import BACKBONES, evaluation_transform, read_image
from tests.helpers.image_files import (
    as_deep,
    bscans,
    compressed_by_pillow,
    dicom,
    topcon_chunk,
    topcon_raw,
    write_dicom,
    write_e2e,
    write_img,
    write_png,
    write_tiff,
    write_topcon,
    write_vol,
)
from tests.helpers.refinement import (
    load_pairs,
    report_of,
    write_csv,
    write_image,
    write_text_encoder,
)

VOLUME = bscans(4)
EIGHT = VOLUME[1]
TWELVE = bscans(4, top=4095)
SOUND = 6
ROW = SOUND + 2
"""Where the odd row stands: behind the header and the sound ones."""
TRANSFORM = evaluation_transform(BACKBONES["RETFound"])
COLUMNS = ("image", "report", "patient_id", "slice")


def sound_rows(folder: Path) -> list[list[str]]:
    for k in range(SOUND):
        write_image(folder / f"sound_{k}.png", k)
    return [[f"sound_{k}.png", report_of(k), f"patient-{k}", ""] for k in range(SOUND)]


def said_by_training(table: Path, val: Path | None = None, **reading: object) -> dict[int, str]:
    parts = read_splits(table, val, val_fraction=0.4, on_bad_row="skip", reading=Reading(**reading))
    return dict(parts[0].skipped)


def said_by_check(table: Path, val: Path | None = None, **reading: object) -> dict[int, str]:
    checked = check_pairs(
        table, val, Columns(), image_root=None, decode="header", workers=0, deidentify=False,
        leave_out_flagged=True, val_fraction=0.4, seed=0, reading=Reading(**reading),
    )  # fmt: skip
    said: dict[int, str] = {}
    for problem in checked.problems:
        if problem.left_out:
            words = f"{problem.kind} ({problem.detail})" if problem.detail else problem.kind
            said.setdefault(checked.rows[problem.index].number, words)
    return said


def check_of(table: Path, **changes: object) -> PreparePairsConfig:
    settings: dict[str, object] = {"output": table.parent / "checked", "num_workers": 0}
    return PreparePairsConfig(csv=table, **(settings | changes))  # type: ignore[arg-type]


def cut(path: Path, by: int) -> Path:
    path.write_bytes(path.read_bytes()[:-by])
    return path


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def saved(path: Path, values: np.ndarray) -> Path:
    np.save(path, values)
    return path


def picture(path: Path, values: np.ndarray = EIGHT, **options: object) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def text(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def animation(path: Path) -> Path:
    return picture(path, save_all=True, append_images=[Image.fromarray(VOLUME[2])])


def archive(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def scrambled(path: Path) -> Path:
    image = compressed_by_pillow(dicom(VOLUME, Manufacturer="Carl Zeiss Meditec"), VOLUME)
    return replaced(write_dicom(path, image), b"\xff\x4f\xff\x51", b"\x12\x34\xff\x51")


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda f: f / "nowhere.png", "there is no file"),
    "a folder": (lambda f: (f / "a.png").mkdir() or f / "a.png", "a folder"),
    "empty": (lambda f: text(f / "a.jpg", b""), "is empty"),
    "a page": (lambda f: text(f / "a.png", b"<!doctype html>" * 20), "it begins with b'<!doc"),
    "cut PNG": (lambda f: cut(picture(f / "a.png"), 9), "the file is cut"),
    "cut JPEG": (lambda f: cut(picture(f / "a.jpg"), 9), "the file is cut"),
    "cut BMP": (lambda f: cut(picture(f / "a.bmp"), 9), "the file is cut"),
    "cut TIFF": (lambda f: cut(picture(f / "a.tif"), 900), "the file is cut"),
    "moving GIF": (lambda f: animation(f / "a.gif"), "an animation, GIF"),
    "moving PNG": (lambda f: animation(f / "a.png"), "an animation, PNG"),
    "moving WebP": (lambda f: animation(f / "a.webp"), "an animation, WEBP"),
    "32 bits": (lambda f: write_tiff(f / "a.tif", (EIGHT.astype("u4"), {})), "32-bit integers"),
    "14 bits": (lambda f: write_tiff(f / "a.tif", (TWELVE[0], {258: 14})), "a TIFF of 14 bits"),
    "negative TIFF": (
        lambda f: write_tiff(f / "a.tif", (EIGHT.astype(np.int16) - 100, {})),
        "values from -",
    ),
    "floats to 255": (
        lambda f: write_tiff(f / "a.tif", (EIGHT.astype("f4"), {})),
        "divide by 255",
    ),
    "pages of two sizes": (
        lambda f: write_tiff(f / "a.tif", (EIGHT, {}), (EIGHT[:, :30], {})),
        "pages of several sizes",
    ),
    "a stack alone": (lambda f: write_tiff(f / "a.tif", *[(b, {}) for b in VOLUME]), "which one"),
    "int64": (lambda f: saved(f / "a.npy", EIGHT.astype(np.int64)), "dtype int64"),
    "NaN": (lambda f: saved(f / "a.npy", EIGHT * np.nan), "floats from nan"),
    "standardised": (lambda f: saved(f / "a.npy", EIGHT / 99 - 1), "own maximum"),
    "colour first": (lambda f: saved(f / "a.npy", np.stack([EIGHT] * 3)), "colour channels"),
    "a vector": (lambda f: saved(f / "a.npy", EIGHT[0]), "shape (40,)"),
    "objects": (lambda f: saved(f / "a.npy", np.array([[{}]])), "Python objects"),
    "cut array": (lambda f: cut(saved(f / "a.npy", EIGHT), 7), "the file is cut"),
    "two arrays": (lambda f: archive(f / "a.npz", a=EIGHT, b=EIGHT), "2 arrays that could be"),
    "another array": (lambda f: f"{archive(f / 'a.npz', a=EIGHT)}#b", "no array b"),
    "channels first": (
        lambda f: f"{archive(f / 'a.npz', a=np.stack([VOLUME] * 3, 1))}#0",
        "colour comes last",
    ),
    "NIfTI": (lambda f: text(f / "a.nii.gz", gzip.compress(b"x" * 400)), "as a TIFF stack"),
    "MATLAB": (lambda f: text(f / "a.mat", b"MATLAB 5.0 MAT-file"), "save the volume as .npy"),
    "HEIC": (lambda f: text(f / "a.heic", b"\0\0\0\x18ftypheic" * 9), "convert it to PNG"),
    "text in DICOM's name": (lambda f: text(f / "a.dcm", b"no, sorry" * 30), "no DICOM file"),
    "cut DICOM": (lambda f: cut(write_dicom(f / "a.dcm", dicom(EIGHT)), 20), "the file is cut"),
    "more frames said": (
        lambda f: f"{write_dicom(f / 'a.dcm', dicom(VOLUME, NumberOfFrames=6))}#0",
        "are 4 frames",
    ),
    "fewer frames said": (
        lambda f: write_dicom(
            f / "a.dcm", compressed_by_pillow(dicom(VOLUME, NumberOfFrames=1), VOLUME)
        ),
        "are 4 frames",
    ),
    "scrambled": (lambda f: f"{scrambled(f / 'a.dcm')}#2", "Zeiss has scrambled"),
    "scrambled, no suffix": (lambda f: f"{scrambled(f / 'IM0001')}#2", "Zeiss has scrambled"),
    "no pixels": (
        lambda f: replaced(
            write_dicom(f / "a.dcm", dicom(EIGHT)), b"\xe0\x7f\x10\x00OB", b"\xe0\x7f\x40\x00OB"
        ),
        "without pixels",
    ),
    "no number in a window": (
        lambda f: replaced(
            write_dicom(f / "a.dcm", dicom(EIGHT, WindowCenter="200099", WindowWidth="9")),
            b"200099",
            b"twelve",
        ),
        "WindowCenter 'twelve'",
    ),
    "too little room": (
        lambda f: write_dicom(f / "a.dcm", _with_high_bit(dicom(TWELVE[0], BitsStored=12), 5)),
        "a high bit of 11 to 15",
    ),
    "cut VOL": (
        lambda f: f"{cut(write_vol(f / 'a.vol', VOLUME / np.float32(255)), 99)}#0",
        "the file is cut",
    ),
    "cut E2E": (
        lambda f: f"{cut(write_e2e(f / 'a.e2e', {1: TWELVE}), 99)}#0",
        "of 4 B-scans by its list of contents, 1 cut or missing: 3",
    ),
    "E2E without contents": (
        lambda f: f"{text(f / 'a.e2e', write_e2e(f / 'b.e2e', {1: TWELVE}).read_bytes()[:100])}#0",
        "its list of contents",
    ),
    "photograph of Topcon": (
        lambda f: f"{write_topcon(f / 'a.fda', topcon_chunk('@IMG_FUNDUS', bytes(9)))}#0",
        "chunks @CAPTURE_INFO_02, @IMG_FUNDUS",
    ),
    "size that lies": (
        lambda f: f"{write_topcon(f / 'a.fds', topcon_raw(TWELVE, said=99))}#0",
        "whose header says 99",
    ),
    "cut cube": (
        lambda f: f"{cut(write_img(f / 'a_40x4_cube_z.img', as_deep(VOLUME)), 1024)}#0",
        "the file is cut",
    ),
    "cube without a name": (
        lambda f: f"{write_img(f / 'a.img', as_deep(VOLUME))}#0",
        "no A-scans x B-scans in the name",
    ),
    "beyond the end": (lambda f: f"{saved(f / 'a.npy', bscans(5))}#5", "no B-scan 5"),
    "no index": (lambda f: f"{picture(f / 'a.png')}#x", "expected: a whole number"),
    "bits too few": (lambda f: f"{picture(f / 'a.png', TWELVE[0])}#bits=10", "0 to 1,023: 10 bits"),
    "unknown curve": (lambda f: f"{picture(f / 'a.png')}#curve=cubic", "as 'curve=cubic'"),
}  # fmt: skip
"""Rows whose image cannot be used: what is written, and what has to be said."""


def _with_high_bit(image: object, high: int) -> object:
    image.HighBit = high  # type: ignore[attr-defined]
    return image


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File")
@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_image_is_refused_in_the_same_words(tmp_path, kind):
    write, words = UNUSABLE[kind]
    odd = str(write(tmp_path)).removeprefix(f"{tmp_path}/")
    table = write_csv(
        tmp_path / "t.csv", [*sound_rows(tmp_path), [odd, "a cyst", "odd", ""]], COLUMNS
    )
    (reason,) = said_by_training(table).values()
    assert words in reason
    assert said_by_check(table) == {ROW: f"image cannot be read ({reason})"}


CELLS = {
    "no image": (["", "a cyst", "odd"], "no image named"),
    "a report": (["sound_0.png", "", "odd"], "empty report"),
    "digits": (["sound_0.png", "250 / 300", "odd"], "empty report"),
    "RTF": (["sound_0.png", r"{\rtf1\ansi\pard }", "odd"], "report without readable text"),
    "PDF": (["sound_0.png", "JVBERi0xLjQK" * 20, "odd"], "readable text (a PDF file)"),
    "patient": (["sound_0.png", "a cyst", ""], "no patient named"),
    "unknown patient": (["sound_0.png", "a cyst", "#N/A"], "no patient named"),
    "rounded patient": (["sound_0.png", "a cyst", "1,23E+11"], "no patient's identifier"),
    "a sentence": (["sound_0.png", "a cyst", "the fovea: seen."], "no patient's identifier"),
    "comma": (["sound_0.png", "a cyst", " nasal", "odd", ""], "5 fields where the header has 4"),
    "slice": (["sound_0.png", "a cyst", "odd", "upper"], "the slice is 'upper'"),
    "short": (["sound_0.png"], "empty report"),
} | {
    text: (["sound_0.png", text, "odd"], "placeholder for a report")
    for text in ("n/a", "k.A.", "s. Vorbefund", "#NAME?", "#BEZUG!", "<NA>", "siehe oben", "同上",
                 "см. выше", "voir ci-dessus", "See previous.", "(unknown)", "None", "tbd", "N. A.",
                 "n.d.", "#Н/Д", "#¡REF!", "#¿NOMBRE?", "xxx", "Liegt nicht vor.", "FALSE", "暂无")
}  # fmt: skip


@pytest.mark.parametrize("kind", CELLS)
def test_a_row_is_refused_in_the_same_words(tmp_path, kind):
    cells, words = CELLS[kind]
    table = write_csv(tmp_path / "t.csv", [*sound_rows(tmp_path), cells], COLUMNS)
    (reason,) = said_by_training(table).values()
    assert words in reason
    (checked,) = said_by_check(table).items()
    assert checked[0] == ROW
    assert reason in checked[1]


def plain_table(folder: Path) -> str:
    reports = (report_of(k).replace(",", ";") for k in range(SOUND))
    rows = sound_rows(folder)
    cells = [f"{row[0]},{text},{row[2]}" for row, text in zip(rows, reports, strict=True)]
    return "\n".join(["image,report,patient_id", *cells, ""])


TABLES: dict[str, tuple[Callable[[str], bytes], str]] = {
    "empty": (lambda t: b"", "an empty file"),
    "header alone": (lambda t: t.split("\n")[0].encode(), "a header without rows"),
    "no header": (lambda t: t.split("\n", 1)[1].encode(), "the first line is a pair"),
    "column twice": (lambda t: t.replace("image,", "IMAGE ,image ,", 1).replace(
        "patient_id", "Patient ID,patientid").encode(), "column twice"),
    "column gone": (lambda t: t.replace("patient_id", "mrn").encode(), "a column patient_id"),
    "never closed": (lambda t: t.replace(",B-scan", ',"B-scan', 1).encode(), "never ends"),
    "two encodings": (lambda t: (t * 9).replace("fovea", "Fovea ö").encode()
                      + "s.png,Ödem,p\n".encode("cp1252"), "UTF-8 but for 1 of its lines"),
    "two readings": (lambda t: t.replace("B-scan", "trčs", 1).encode("cp1250"),
                     "several encodings"),
    "no reading": (lambda t: t.encode() + b"s.png,\x80\x81\x8d\xff\xfe,p\n", "is not UTF-8"),
    "gzip": (lambda t: gzip.compress(t.encode()), "compressed by gzip"),
    "old Excel": (lambda t: b"\xd0\xcf\x11\xe0" + bytes(99), "old kind"),
    "damaged workbook": (lambda t: b"PK\x03\x04" + bytes(99), "cannot be read"),
    "damaged Parquet": (lambda t: b"PAR1" + bytes(99), "cannot be read"),
    "JSON": (lambda t: b'[{"image": "a.png"}]', "JSON"),
    "web page": (lambda t: b"<html><table>", "a web page"),
    "no pictures": (lambda t: t.replace("sound", "found").encode(), "there is no file"),
    "one patient": (lambda t: re.sub("patient-.", "p", t).encode(), "a single patient"),
    "one patient in several spellings": (
        lambda t: re.sub("patient-(.)", lambda found: "0" * int(found[1]) + "7", t).encode(),
        "a single patient"),
    "one pair a side": (lambda t: "\n".join(t.split("\n")[:3]).encode(), "part is too small"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_refused_in_the_same_words(tmp_path, kind):
    change, words = TABLES[kind]
    (tmp_path / "t.csv").write_bytes(change(plain_table(tmp_path)))
    assert_both_refuse(tmp_path / "t.csv", None, words)


def assert_both_refuse(table: Path, val: Path | None, words: str) -> None:
    """Refuse a table in the check and in training, the reason in the same words."""
    training = RefineConfig(model_weights=Path("x"), train_csv=table, val_csv=val, val_fraction=0.4)
    with pytest.raises(InputError, match=words) as in_training:
        load_pairs(replace(training, on_bad_row="skip"), TRANSFORM)
    with pytest.raises(InputError, match=words) as in_check:
        prepare_pairs(check_of(table, val_csv=val, val_fraction=0.4))
    first, second = (str(caught.value).splitlines() for caught in (in_training, in_check))
    assert first[0] == second[0]


def test_a_validation_table_of_one_pair_is_refused(tmp_path):
    *rows, last = sound_rows(tmp_path)
    table, val = (
        write_csv(tmp_path / f"{name}.csv", part, COLUMNS)
        for name, part in (("t", rows), ("v", [last]))
    )
    assert_both_refuse(table, val, "the validation part is too small")
    assert_both_refuse(val, table, "the training part is too small")


@pytest.mark.parametrize("spelling", ["patient-{}", "PATIENT-{}", "patient-00{}", " patient - {}"])
def test_a_validation_table_of_the_same_patients_is_refused(tmp_path, spelling):
    rows = sound_rows(tmp_path)
    others = [
        [row[0], f"{row[1]} Again.", spelling.format(k), ""] for k, row in enumerate(rows[3:], 3)
    ]
    table = write_csv(tmp_path / "t.csv", rows, COLUMNS)
    val = write_csv(tmp_path / "v.csv", others, COLUMNS)
    for look in (said_by_training, said_by_check):
        with pytest.raises(InputError, match="patients are on both sides of the split"):
            look(table, val)


def test_reports_are_judged_by_those_that_are_trained_on(tmp_path):
    """The vocabulary has to read them; those of a test side are not read in training."""
    encoder = write_text_encoder(tmp_path / "bert")
    rows = [row[:3] for row in sound_rows(tmp_path)]
    for k, row in enumerate(rows):
        row.append("val" if k < 2 else "train")
    for k in range(SOUND):
        write_image(tmp_path / f"test_{k}.png", 100 + k)
        rows.append([f"test_{k}.png", f"黄斑区可见{'积液萎缩水肿'[k]}", f"test-{k}", "test"])
    header = ("image", "report", "patient_id", "side")
    config = check_of(
        write_csv(tmp_path / "t.csv", rows, header), split_column="side", text_encoder=encoder
    )
    assert prepare_pairs(config).pairs == 2 * SOUND
    for row in rows[SOUND:]:
        row[-1] = "train"
    write_csv(tmp_path / "t.csv", rows, header)
    with pytest.raises(InputError, match="does not know the words"):
        prepare_pairs(replace(config, output=tmp_path / "again"))


# --- what passes


def swapped(values: np.ndarray) -> np.ndarray:
    return np.moveaxis(values, 0, -1)


READ: dict[str, tuple[Callable[[Path], object], np.ndarray]] = {
    "stack": (lambda f: f"{write_tiff(f / 'v.tif', *[(b, {}) for b in VOLUME])}#3",
              VOLUME[3] / 255),
    "12 bits said": (lambda f: write_tiff(f / "12.tif", (TWELVE[1], {258: 12})), TWELVE[1] / 4095),
    "white is 0": (lambda f: write_tiff(f / "w.tif", (EIGHT, {262: 0})), 1 - EIGHT / 255),
    "sBIT": (lambda f: write_png(f / "s.png", TWELVE[2], 12), TWELVE[2] / 4095),
    "bits": (lambda f: f"{write_png(f / 'b.png', TWELVE[3], 16)}#bits=12", TWELVE[3] / 4095),
    "on its side": (lambda f: write_tiff(f / "t.tif", (VOLUME[2].T, {274: 5})), VOLUME[2] / 255),
    "axis": (lambda f: f"{saved(f / 'x.npy', swapped(bscans(25)))}#24#axis=last",
             bscans(25)[24] / 255),
    "member": (lambda f: f"{archive(f / 'm.npz', oct=255 - VOLUME, slo=EIGHT)}#oct#2",
               1 - VOLUME[2] / 255),
    "DICOM": (lambda f: f"{write_dicom(f / 'IM000001', dicom(VOLUME // 2))}#1",
              VOLUME[1] // 2 / 255),
    "DICOM as a picture": (lambda f: write_dicom(f / "d.png", dicom(VOLUME[3] // 3)),
                           VOLUME[3] // 3 / 255),
    "logarithm": (
        lambda f: f"{write_vol(f / 'l.vol', (VOLUME / 255).astype('f4'))}#0#curve=log",
        ((np.log(VOLUME[0] / 255 + 2.44e-4) + 8.3) / 8.285).clip(0, 1),
    ),
    "reflectivity": (lambda f: f"{write_vol(f / 'r.vol', (VOLUME / 255).astype('f4'))}#1",
                     (VOLUME[1] / 255) ** 0.25),
    "cube": (lambda f: f"{write_img(f / 'c_40x4_cube_z.img', as_deep(VOLUME))}#2",
             as_deep(VOLUME)[2] / 255),
    "Topcon": (lambda f: f"{write_topcon(f / 'a.fds', topcon_raw(TWELVE << 4))}#3",
               (TWELVE[3] << 4) / 65535),
}  # fmt: skip
"""Rows whose image is read: what is written, and its gray values."""


def test_what_the_check_writes_is_trained_on_as_it_was_meant(tmp_path):
    """Through both programs: places, settings, reports and patients, from another folder."""
    rows, expected = [], {}
    for number, (write, values) in enumerate(READ.values()):
        report = f'a cyst, "{"abcdefghijklmno"[number]}"; #{number}'
        place = str(write(tmp_path)).removeprefix(f"{tmp_path}/")
        rows.append([place, report, f"00{number}"])
        expected[report] = values
    table = write_csv(tmp_path / "tables" / "t.csv", rows)
    output = tmp_path / "checked" / "pairs"
    prepare_pairs(check_of(table, image_root=tmp_path, output=output, val_fraction=0.4))
    training = RefineConfig(
        model_weights=Path("x"), train_csv=output / "train.csv", val_csv=output / "val.csv"
    )
    pairs = load_pairs(training, TRANSFORM)
    assert pairs.manifests is not None
    assert pairs.train_size + pairs.validation_size == len(READ)
    for part, manifest in zip((pairs.train, pairs.validation), pairs.manifests, strict=True):
        for item, address in enumerate(manifest.images):
            tensor, report = part[item]
            values = expected[report]
            np.testing.assert_allclose(read_image(address), values, atol=1e-5)
            shown = TRANSFORM(values.astype(np.float32))
            assert (tensor - shown).abs().max() < 1e-3
            assert int(manifest.patients[item]) == int(report.rpartition("#")[2])


@pytest.mark.parametrize(
    ("read_as", "write", "values"),
    [
        ("bits=12", lambda f, k: write_png(f / f"{k}.png", TWELVE[k], 16), TWELVE / 4095),
        ("curve=root_2.4",
         lambda f, k: f"{write_vol(f / 'a.vol', (VOLUME / 255).astype('f4'))}#{k}",
         (VOLUME / 255) ** (1 / 2.4)),
        ("axis=last", lambda f, k: f"{saved(f / 'a.npy', swapped(VOLUME))}#{k}#bits=12",
         VOLUME / 255),
        ("bits=10, axis=last", lambda f, k: f"{saved(f / 'a.npy', swapped(TWELVE))}#{k}#bits=12",
         TWELVE / 4095),
    ],
)  # fmt: skip
def test_what_is_said_once_for_all_rows_stands_in_the_tables(tmp_path, read_as, write, values):
    rows = [[str(write(tmp_path, k)), f"cyst {'abcd'[k]}", f"p{k}"] for k in range(4)]
    table = write_csv(tmp_path / "t.csv", rows)
    prepare_pairs(check_of(table, read_as=read_as, val_fraction=0.5))
    parts = read_splits(tmp_path / "checked" / "train.csv", tmp_path / "checked" / "val.csv")
    seen = {}
    for manifest in parts:
        for address, report in zip(manifest.images, manifest.reports, strict=True):
            seen[report] = read_image(address)
    for k in range(4):
        np.testing.assert_allclose(seen[f"cyst {'abcd'[k]}"], values[k], atol=1e-5)
