"""Images to vectors at scale: what embed.py does."""
