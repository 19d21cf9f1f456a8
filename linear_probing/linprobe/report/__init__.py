"""The comparison of models: statistics, tables, figures, one page.

All of it is a function of predictions: it imports neither torch nor anything of linprobe but
``statistics``.
"""
