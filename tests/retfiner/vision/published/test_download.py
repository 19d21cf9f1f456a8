"""Downloads from a server on this machine: broken off, gone on, checked, whole or not there."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from retfiner.common.errors import InputError
from retfiner.vision.published import download as module
from retfiner.vision.published.download import Source, download
from tests.helpers.file_server import file_server

CONTENT = b"PK\x03\x04" + np.random.default_rng(0).bytes(1_000_000)  # as torch.save begins
OTHER = b"PK\x03\x04" + np.random.default_rng(1).bytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    with file_server() as served:
        served.files["/weights.pth"] = CONTENT
        yield served


@pytest.fixture
def source(server):
    return Source(f"{server.address}/weights.pth")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_nothing_else_stays(source, tmp_path):
    target = tmp_path / "new" / "weights.pth"
    assert download(source, target, SHA256) == SHA256
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["weights.pth"]


def test_broken_connections_are_gone_on_with_where_they_broke(server, source, tmp_path):
    server.cut = [300_000, 400_000]
    server.statuses = [503]
    assert download(source, tmp_path / "weights.pth") == SHA256
    assert server.gets == ["", "", "bytes=300000-", "bytes=700000-"]
    assert names(tmp_path) == ["weights.pth"]


def test_a_killed_download_goes_on(server, source, tmp_path):
    server.slow = 0.2
    target = tmp_path / "weights.pth"
    code = "import sys; from retfiner.vision.published.download import *\n"
    code += "download(Source(sys.argv[1]), Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, source.url, target])
    part = tmp_path / "weights.pth.part"
    end = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    there = part.stat().st_size
    assert 0 < there < len(CONTENT)
    assert not target.exists()
    server.slow = 0
    assert download(source, target, SHA256) == SHA256
    assert server.gets == ["", f"bytes={there}-"]
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["weights.pth"]


def test_what_was_complete_but_not_yet_named_is_not_downloaded_again(server, source, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT)
    (tmp_path / "weights.pth.part.source").write_text(f'"{SHA256}"')
    assert download(source, tmp_path / "weights.pth") == SHA256
    assert server.gets == [f"bytes={len(CONTENT)}-"]


def test_parts_of_two_files_are_never_joined(server, source, tmp_path):
    server.cut = [100_000] * module.ATTEMPTS
    with pytest.raises(InputError, match=r"failed(?s:.*)goes on from there"):
        download(source, tmp_path / "weights.pth")
    assert names(tmp_path) == ["weights.pth.part", "weights.pth.part.source"]
    server.files["/weights.pth"], server.cut = OTHER, []
    download(source, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == OTHER


def test_a_server_without_ranges_begins_anew(server, source, tmp_path):
    server.ranges, server.cut = False, [300_000]
    assert download(source, tmp_path / "weights.pth") == SHA256
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_another_hash_is_refused_and_nothing_stays(server, source, tmp_path):
    with pytest.raises(InputError, match=f"got: +SHA-256 {SHA256}") as caught:
        download(source, tmp_path / "weights.pth", "0" * 64)
    assert f"SHA-256 {'0' * 64}" in str(caught.value)
    assert names(tmp_path) == []
    assert download(source, tmp_path / "weights.pth", SHA256) == SHA256
    assert names(tmp_path) == ["weights.pth"]


def test_a_web_page_in_place_of_the_file_is_refused(server, source, tmp_path):
    server.files["/weights.pth"] = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(InputError, match="a web page"):
        download(source, tmp_path / "weights.pth")
    assert names(tmp_path) == []


def test_an_address_that_is_gone_is_not_tried_again(server, tmp_path):
    with pytest.raises(InputError, match=r"failed(?s:.*)404"):
        download(Source(f"{server.address}/nothing.pth"), tmp_path / "weights.pth")
    assert len(server.asked) == 1


def test_no_server_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with pytest.raises(InputError, match="look at the connection"):
        download(Source("http://127.0.0.1:9/weights.pth"), tmp_path / "weights.pth")
    assert names(tmp_path) == []


def test_too_little_room_is_said_before_anything_is_read(source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda folder: type("Disk", (), {"free": 999_999})
    )
    with pytest.raises(InputError, match=r"too little room(?s:.*)another disk"):
        download(source, tmp_path / "weights.pth")
    assert names(tmp_path) == []


def test_two_at_once_do_not_write_one_file(source, tmp_path):
    with (
        FileLock(tmp_path / "weights.pth.part.lock"),
        pytest.raises(InputError, match="Another process is downloading"),
    ):
        download(source, tmp_path / "weights.pth")
    assert download(source, tmp_path / "weights.pth") == SHA256


def test_progress_is_shown_in_bytes(server, source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("retfiner.common.progress.DELAY", 0.1)
    server.slow = 0.05
    download(source, Path(tmp_path / "weights.pth"))
    assert capsys.readouterr().err.startswith("downloading weights.pth ...\n")


def test_a_known_version_goes_on_without_the_servers_tag(server, source, tmp_path):
    server.headers, server.cut = {"ETag": ""}, [300_000]
    assert download(Source(source.url, version="1"), tmp_path / "weights.pth") == SHA256
    assert server.gets == ["", "bytes=300000-"]
    (tmp_path / "weights.pth.part").write_bytes(OTHER[:1000])
    (tmp_path / "weights.pth.part.source").write_text("0")
    assert download(Source(source.url, version="1"), tmp_path / "weights.pth", SHA256) == SHA256


def test_a_token_is_not_shown_to_the_host_one_is_sent_on_to(server, source, tmp_path):
    server.redirects["/gate"] = source.url.replace("127.0.0.1", "localhost")
    address = source.url.replace("weights.pth", "gate")
    download(Source(address, token="secret"), tmp_path / "weights.pth", SHA256)
    assert server.tokens == ["Bearer secret", ""]
