"""What both packages share and what belongs to neither.

Errors, command lines, whole-file writes, devices; how classifications are scored (probing and
zero-shot alike), whose image a file is, and how runs lie on disk for the report. The refinement
package and the probing package may both import this room; it imports neither.
"""
