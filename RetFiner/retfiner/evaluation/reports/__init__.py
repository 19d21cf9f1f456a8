"""Reports written from images, and how close they are to those that clinicians wrote."""
