"""A web server of files: ranges, broken connections, and what the Hugging Face hub says."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served, and what was asked for.

    Attributes:
        address: Of the server.
        files: Bytes by path.
        cut: Bytes after which an answer breaks off, once for each number.
        slow: Seconds to wait after each 64 KiB.
        statuses: Answers to give first, instead of the file.
        headers: Sent with every answer.
        asked: Method, path and Range of each request.
        tokens: What each request showed to be let in.
        redirects: Where to send a request for a path.
        ranges: Whether parts of a file are given.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    slow: float = 0.0
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    ranges: bool = True

    @property
    def gets(self) -> list[str]:
        """Ranges of the requests for content, empty where all of it was asked for."""
        return [part for method, _, part in self.asked if method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: FileServer

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        served, path = self.served, self.path.partition("?")[0]
        asked = self.headers.get("Range", "")
        served.asked.append((self.command, path, asked))
        served.tokens.append(self.headers.get("Authorization", ""))
        if path in served.redirects:
            self._begin(302, 0, {"Location": served.redirects[path]})
            return
        if served.statuses or path not in served.files:
            self._begin(served.statuses.pop(0) if served.statuses else 404, 0)
            return
        content = served.files[path]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        start, end, same = 0, len(content), self.headers.get("If-Range", tag) == tag
        is_part = bool(asked and served.ranges and same)
        if is_part:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", asked).groups()
            start, end = int(first), min(len(content), int(last or len(content)) + 1)
            if start >= len(content):
                self._begin(416, 0, {"Content-Range": f"bytes */{len(content)}"})
                return
        about = {"ETag": tag, "X-Repo-Commit": "c" * 40, "Accept-Ranges": "bytes"}
        if is_part:
            about["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._begin(206 if is_part else 200, end - start, about)
        if self.command == "GET":
            self._send(content[start:end])

    def _begin(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ((headers or {}) | self.served.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, content: bytes) -> None:
        import time

        if self.served.cut:
            content = content[: self.served.cut.pop(0)]
            self.close_connection = True
        try:
            for start in range(0, len(content), 1 << 16):
                self.wfile.write(content[start : start + (1 << 16)])
                time.sleep(self.served.slow)
        except OSError:
            self.close_connection = True  # the other side was killed


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Serve files on this machine."""
    served = FileServer()
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
