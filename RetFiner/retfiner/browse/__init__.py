"""A page to look with: B-scans and reports side by side, through a refined model's eyes.

``python -m retfiner.browse models/<name> --data pairs.csv`` opens a model and a table of pairs and
serves a page to this machine alone. Nothing is written: vectors live in memory, and so do files
that are dropped on the page. The page shows row numbers, never a path or a patient.

``config.py`` has the settings, ``collection.py`` the table with its vectors and what is nearest in
it, ``upload.py`` reads a file that was dropped, ``app.py`` and ``render.py`` are the page,
``server.py`` serves it.
"""
