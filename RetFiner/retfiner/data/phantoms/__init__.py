"""OCT phantoms: generated B-scans with reports and labels, to try everything without patients."""
