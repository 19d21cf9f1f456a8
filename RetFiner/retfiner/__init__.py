"""Refine retinal vision foundation models on OCT B-scans paired with the reports that describe them."""
