"""Refine retinal vision foundation models on OCT B-scans and the reports that describe them."""
