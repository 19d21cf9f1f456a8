"""A refined backbone for others: transformers' layout, ONNX, and the card that goes with it.

Imports ``retfiner.common`` and ``retfiner.vision`` only.
"""
