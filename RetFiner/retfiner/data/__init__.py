"""What is trained on: manifests, image-report pairs, and phantoms to try everything with."""
