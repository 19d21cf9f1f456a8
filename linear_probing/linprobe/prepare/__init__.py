"""Data sets as downloaded, turned into the layout that probing reads.

``registry.py`` lists the data sets; each has a file of its own that knows its layout and its traps.
"""
