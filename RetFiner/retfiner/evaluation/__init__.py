"""What a refined model can do besides features: a folder for each task.

``retrieval/`` finds reports for images and images for reports, ``zero_shot/`` classifies by
descriptions in words, ``reports/`` writes reports and scores them. ``pairs.py`` reads the table,
``embedding.py`` the images, ``run.py`` shows the numbers and writes them; ``pages.py`` is what HTML
pages share.
"""
