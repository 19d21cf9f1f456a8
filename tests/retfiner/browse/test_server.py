"""The real server: for this machine alone, ended by Ctrl-C, nothing written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from retfiner.browse.config import BrowseConfig
from retfiner.browse.server import require_port, require_streamlit
from retfiner.common.errors import InputError
from tests.helpers.forks import wait_until
from tests.helpers.processes import free_port
from tests.helpers.scripts import REFINEMENT


def files_in(folder):
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


def wait_until_healthy(process, port):
    for _ in range(600):
        assert process.poll() is None, process.stderr.read()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health") as answer:
                return answer.read()
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server never answered")


def visit(port):
    """Open the page as a browser does; return the deltas that arrive until it is drawn."""
    drawn = []
    origin = f"http://127.0.0.1:{port}"
    with connect(f"ws://127.0.0.1:{port}/_stcore/stream", origin=origin, max_size=None) as page:
        asked = BackMsg()
        asked.rerun_script.query_string = ""
        page.send(asked.SerializeToString())
        while True:
            message = ForwardMsg.FromString(page.recv(timeout=60))
            drawn.append(str(message.delta))
            if message.WhichOneof("type") == "script_finished":
                return "".join(drawn)


def start(run, csv, port, folders):
    words = [run, "--data", csv, "--port", port, "--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, "-m", "retfiner.browse", *map(str, words)],
        cwd=folders["cwd"],
        env=os.environ
        | {"PYTHONPATH": str(REFINEMENT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        | {name: str(folders[name]) for name in ("HOME", "TMPDIR")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def make_folders(root):
    folders = {name: root / name for name in ("HOME", "TMPDIR", "cwd")}
    for folder in folders.values():
        folder.mkdir()
    return folders


@pytest.mark.slow
def test_the_page_is_for_this_machine_and_leaves_nothing(refined, material, tmp_path):
    folders = make_folders(tmp_path)
    port, shared = free_port(), set(files_in("/dev/shm"))
    process = start(refined(), material.csv, port, folders)
    try:
        assert wait_until_healthy(process, port) == b"ok"
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", port), timeout=5)
        drawn = visit(port)
        assert "Nearest reports" in drawn and "srcdoc" in drawn
        assert str(material.csv.parent) not in drawn
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{port}/_stcore/stream", origin="http://elsewhere.example")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "stopped by the user" in errors
    assert f"http://127.0.0.1:{port}" in output and "Traceback" not in errors
    assert {name: files_in(folder) for name, folder in folders.items()} == {
        name: [] for name in folders
    }
    assert not [path for path in set(files_in("/dev/shm")) - shared if "retfiner" in path]


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@contextlib.contextmanager
def browser_page(address, profile):
    """Open an address in headless Chromium; yield a function that evaluates JavaScript there."""
    port = free_port()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,2200"]
    process = subprocess.Popen(
        [
            CHROMIUM,
            *flags,
            f"--remote-debugging-port={port}",
            f"--user-data-dir={profile}",
            address,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    tabs = []

    def has_tab():
        address = f"http://127.0.0.1:{port}/json"
        with contextlib.suppress(OSError), urllib.request.urlopen(address) as answer:
            tabs.extend(page for page in json.load(answer) if page["type"] == "page")
        return bool(tabs)

    try:
        wait_until(has_tab, "Chromium's page")
        with connect(tabs[0]["webSocketDebuggerUrl"], max_size=None) as tab:

            def evaluate(expression):
                parameters = {"expression": expression, "returnByValue": True}
                call = {"id": 1, "method": "Runtime.evaluate", "params": parameters}
                tab.send(json.dumps(call))
                return json.loads(tab.recv(timeout=60))["result"]["result"].get("value")

            yield evaluate
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_page_in_a_browser(refined, material, tmp_path):
    port = free_port()
    process = start(refined(), material.csv, port, make_folders(tmp_path))
    try:
        wait_until_healthy(process, port)
        with browser_page(f"http://127.0.0.1:{port}", tmp_path / "profile") as evaluate:
            for expression in (
                "document.body.innerText.includes('Nearest reports')",
                "document.querySelectorAll('iframe').length > 0",
                "[...document.images].some(image => image.naturalWidth > 20)",
            ):
                wait_until(lambda expression=expression: evaluate(expression), expression)
            text = evaluate("document.body.innerText")
            assert "not a diagnosis" in text.lower() and "Traceback" not in text
            assert str(material.csv.parent) not in evaluate("document.documentElement.outerHTML")
            fetched = evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
            elsewhere = [
                a for a in fetched if not a.startswith((f"http://127.0.0.1:{port}/", "data:"))
            ]
            assert fetched and not elsewhere
    finally:
        process.kill()
        process.communicate()


def test_a_port_that_is_taken_is_an_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"Port \d+ cannot be used"):
            require_port(taken.getsockname()[1])
    with pytest.raises(InputError, match="no such port"):
        BrowseConfig(Path("model"), Path("pairs.csv"), port=70000)


def test_without_streamlit_the_user_hears_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "streamlit", None)
    with pytest.raises(InputError, match="pip install streamlit"):
        require_streamlit()
