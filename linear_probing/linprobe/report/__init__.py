"""The comparison of base and refined models: statistics, tables, figures, one page.

Reads finished runs alone: it imports neither torch nor anything of the package but ``results``.
"""
