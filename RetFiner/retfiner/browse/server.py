"""Streamlit's server: on this machine alone, telling nobody, watching and keeping nothing."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Sequence
from pathlib import Path

from retfiner.common.errors import InputError

ADDRESS = "127.0.0.1"
APP = Path(__file__).with_name("app.py")

OPTIONS: dict[str, str | tuple[str, ...]] = {
    "server.address": ADDRESS,
    "server.allowedHosts": (ADDRESS, "localhost"),  # other names may be a trick of another page
    "server.headless": "true",
    "server.showEmailPrompt": "false",
    "server.fileWatcherType": "none",
    "server.enableStaticServing": "false",
    "server.maxUploadSize": "1024",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "logger.level": "warning",
    "logger.hideWelcomeMessage": "true",
}
"""Settings of Streamlit, which win over a user's own; sizes in megabytes. Details of an error
nobody expected, which may hold a path, are for the terminal and not for the page."""


def require_streamlit() -> None:
    """Make sure that Streamlit is installed.

    Raises:
        InputError: If it is not.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise InputError(
            "The page needs Streamlit, which is not installed", remedy="pip install streamlit"
        )


def require_port(port: int) -> None:
    """Make sure that a port can be listened on.

    Raises:
        InputError: If it is taken, or not for ordinary users.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise InputError(
                f"Port {port} cannot be used",
                got=error.strerror,
                remedy=f"end what uses it, or choose another, as in --port {port % 60000 + 1024}",
            ) from error


def serve(port: int, words: Sequence[str]) -> None:
    """Serve the page until the user ends it; it parses the words of the command line again.

    Raises:
        KeyboardInterrupt: Always, at the end: Streamlit takes Ctrl-C for itself and returns.
    """
    from streamlit.web import cli

    options = [
        f"--{name}={value}"
        for name, values in OPTIONS.items()
        for value in ((values,) if isinstance(values, str) else values)
    ]
    line = ["run", str(APP), *options, f"--server.port={port}", "--", *words]
    cli.main(line, prog_name="streamlit", standalone_mode=False)
    raise KeyboardInterrupt
