"""Open a page that shows what a refined model finds alike.

    python -m retfiner.browse models/<name> --data pairs.csv

``--help`` lists every setting.
"""

from __future__ import annotations

import sys

from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line, open the model and the table, and serve the page."""
    from retfiner.browse.config import DESCRIPTION, BrowseConfig
    from retfiner.browse.server import ADDRESS, require_port, require_streamlit, serve
    from retfiner.common.cli import parse
    from retfiner.common.progress import LOADING, progress
    from retfiner.vision.sniff import checkpoint_of

    words = sys.argv[1:]
    config = parse(BrowseConfig, DESCRIPTION)
    require_streamlit()
    require_port(config.port)
    checkpoint_of(config.model)
    with progress(LOADING):  # torch, which --help does not wait for
        from retfiner.browse.collection import open_collection

    open_collection(config)  # here, so that what is wrong is said before anything is served
    print(f"Browse:  http://{ADDRESS}:{config.port}  (Ctrl-C ends it)", flush=True)
    serve(config.port, words)


if __name__ == "__main__":
    run_entry_point(main)
