"""What both packages share and what belongs to neither: errors, command lines, whole-file writes.

The refinement package and the probing package may both import this room; it imports neither.
"""
