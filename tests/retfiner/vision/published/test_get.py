"""get.py as a user runs it, and names in place of paths."""

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from retfiner.common.errors import InputError
from retfiner.vision import BACKBONES
from retfiner.vision.published import find, registry
from retfiner.vision.published.find import downloaded, entry_named, weights_at
from retfiner.vision.published.get import _note, _size_of, get
from retfiner.vision.published.registry import WEIGHTS
from tests.helpers.file_server import file_server

ROOT = Path(__file__).parents[4]
CONTENT = b"PK\x03\x04" + bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "pretrained_weights" / "get.py"), *map(str, words)],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"} | environment,
    )  # fmt: skip


def test_entries_agree_with_their_backbones():
    names = [entry.name.lower() for entry in WEIGHTS]
    assert len(set(names)) == len(names)
    for entry in WEIGHTS:
        spec = BACKBONES[entry.backbone]
        channels = "1 channel" if spec.in_chans == 1 else f"{spec.in_chans} channels"
        assert entry.input.startswith(f"{spec.image_size} px, {channels}, "), entry.name
        assert ("min-max" in entry.input) is spec.min_max
        assert sum(way is not None for way in (entry.url, entry.hub, entry.drive)) == 1
        if entry.refines is None:
            assert (entry.licence, entry.paper) == (spec.licence, spec.citation)
        else:
            assert entry.backbone == entry_named(entry.refines).backbone
        # the file's name must speak for its backbone where its layout does not
        assert spec.hinted_by(entry.files[0]) or not spec.filename_hints, entry.name
        assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)


def test_the_page_has_the_registry_as_its_table():
    page = (ROOT / "pretrained_weights" / "README.md").read_text(encoding="utf-8")
    found = [line for line in page.splitlines() if line.startswith("|")]
    lines = ["| name | file | GB | input | from | licence |", "|---|---|---:|---|---|---|"]
    for entry in WEIGHTS:
        files = ", ".join(f"`{name}`" for name in entry.files)
        way = f"<{entry.drive or entry.page}>{_note(entry)}"
        cells = (f"`{entry.name}`", files, _size_of(entry), entry.input, way, entry.licence)
        lines.append(f"| {' | '.join(cells)} |")
    assert "\n".join(found) == "\n".join(lines)


def test_without_a_name_all_are_listed(tmp_path):
    done = run("--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(entry.name in done.stdout for entry in WEIGHTS)
    assert "get.py RETFound" in done.stdout
    (tmp_path / "urfound_mm.pth").write_bytes(CONTENT)
    assert re.search(r"\* +UrFound ", run("--output", tmp_path).stdout)


def test_a_file_is_downloaded_checked_and_found_by_its_name(tmp_path, monkeypatch, capsys):
    with file_server() as server:
        server.files["/RetFiner_UrFound.pth"] = CONTENT
        url = f"{server.address}/RetFiner_UrFound.pth"
        entry = replace(entry_named("RetFiner-U"), url=url, sha256=SHA256)
        monkeypatch.setattr(find, "WEIGHTS", (entry,))
        path = get("retfiner-u", tmp_path)
        assert path.read_bytes() == CONTENT
        said = capsys.readouterr().out
        assert "Licence:  CC BY-NC 4.0; terms at https://github.com/ronnief1" in said
        assert f"SHA-256:  {SHA256} (as known)" in said
        assert get("RetFiner-U", tmp_path) == path
        assert "(SHA-256 as known)" in capsys.readouterr().out
        assert len(server.asked) == 1
        assert weights_at(Path("RetFiner-U"), [tmp_path]) == path
        path.write_bytes(CONTENT + b"more")
        with pytest.raises(InputError, match="not the published RetFiner-U"):
            get("RetFiner-U", tmp_path)


def test_what_lies_on_google_drive_says_where_to_click(tmp_path):
    done = run("VisionFM", "--output", tmp_path)
    assert done.returncode == 2
    assert (
        "open https://drive.google.com/file/d/1o6E-ine2QLx2pxap-c77u-SU0FjxwypA/view" in done.stderr
    )
    assert "VFM_OCT_weights.pth" in done.stderr
    (tmp_path / "VFM_OCT_weights.pth").write_bytes(CONTENT)
    done = run("VisionFM", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "There:" in done.stdout and "no hash is published" in done.stdout


def test_the_hub(tmp_path):
    with file_server() as server:
        server.files["/yyyyk/UrFound/resolve/main/urfound_mm.pth"] = CONTENT
        hub = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")}
        done = run("UrFound", "--output", tmp_path / "out", **hub)
        assert done.returncode == 0, done.stderr
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["urfound_mm.pth"]
        assert (tmp_path / "out" / "urfound_mm.pth").read_bytes() == CONTENT
        assert f"SHA-256:  {SHA256}" in done.stdout

        # RETFound's own hash is known, and this is another file.
        server.files[
            "/YukunZhou/RETFound_mae_natureOCT/resolve/main/RETFound_mae_natureOCT.pth"
        ] = CONTENT
        done = run("RETFound", "--output", tmp_path / "out", **hub)
        assert done.returncode == 2
        assert f"SHA-256 {SHA256}" in done.stderr and "is not the" in done.stderr
        assert not list((tmp_path / "out").glob("RETFound*.pth"))


@pytest.mark.slow
def test_a_broken_download_from_the_hub_goes_on(tmp_path):
    with file_server() as server:
        server.files["/yyyyk/UrFound/resolve/main/urfound_mm.pth"] = CONTENT
        server.cut = [50_000] * 5
        hub = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")}
        done = run("UrFound", "--output", tmp_path / "out", **hub)
        assert done.returncode == 2 and "250,000 bytes are kept" in done.stderr
        done = run("UrFound", "--output", tmp_path / "out", **hub)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out" / "urfound_mm.pth").read_bytes() == CONTENT
        assert server.gets[-1] == "bytes=250000-"


@pytest.mark.parametrize(("status", "code"), [(403, "GatedRepo"), (401, "RepoNotFound")])
def test_a_gated_repository_says_how_to_get_in(tmp_path, status, code):
    with file_server() as server:
        server.statuses, server.headers = [status] * 20, {"X-Error-Code": code}
        hub = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")}
        done = run("RETFound", "--output", tmp_path / "out", **hub)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert f"log in at {server.address}/YukunZhou/RETFound_mae_natureOCT and agree" in done.stderr
    assert "settings/tokens" in done.stderr and "hf auth login" in done.stderr
    assert not list((tmp_path / "out").rglob("*.pth"))


def test_no_hub_is_an_error_in_plain_words(tmp_path):
    done = run("UrFound", "--output", tmp_path / "out", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "look at the connection" in done.stderr


def test_a_path_of_that_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"RETFound is not downloaded yet(?s:.*)get\.py RETFound"):
        weights_at(Path("retfound"), [tmp_path / "pretrained_weights"])
    (tmp_path / "pretrained_weights").mkdir()
    there = tmp_path / "pretrained_weights" / "RETFound_oct_weights.pth"
    there.touch()
    assert weights_at(Path("retfound"), [there.parent]) == there
    Path("retfound").touch()
    assert weights_at(Path("retfound"), [there.parent]) == Path("retfound")


def test_what_is_no_name_is_left_alone_or_explained(tmp_path):
    for path in (Path("mine.pth"), Path("folder/RETFound"), Path("base")):
        assert weights_at(path, [tmp_path]) == path
    with pytest.raises(InputError, match="one of MIRAGE-Large, MIRAGE-Base"):
        weights_at(Path("MIRAGE"), [tmp_path])
    with pytest.raises(InputError, match="one of RETFound, "):
        entry_named("RETFind")
    assert downloaded(entry_named("UrFound"), [tmp_path]) is None


def test_the_registry_is_read_without_torch():
    code = "import sys, retfiner.vision.published.get; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert registry.WEIGHTS is WEIGHTS
