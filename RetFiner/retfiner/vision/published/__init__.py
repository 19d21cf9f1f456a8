"""Published weights by name: what there is, where it lies, and how it is got."""
