"""Checks a table of image-report pairs before anything is trained on it."""
