"""Image-to-text and text-to-image retrieval, without and with re-ranking by image-text matching."""
