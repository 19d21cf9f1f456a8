"""Where tables are printed."""

from rich.console import Console


def wide_console(width: int) -> Console:
    """Make a console; a log file has no width, and gets one of so many letters."""
    console = Console()
    return console if console.is_terminal else Console(width=width)
