"""Segmentation by a small head on frozen patch tokens; ``segment.py`` runs it."""
