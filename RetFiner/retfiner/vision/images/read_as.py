"""What a file does not say of its images, and its user knows.

Written behind an address, ``scan.vol#12#curve=log``, or for all rows of a table with ``--read_as``:

- ``bits``: how many bits of 16 the values use; white is 2 to their number, less 1. Concerns
  integers of 16 bits that are scaled by their type alone: arrays, PNG, TIFF, Topcon's raw values,
  and DICOM without a window.
- ``axis``: which axis of an array of three counts B-scans, ``first`` or ``last``.
- ``modality``: what is shown; of a colour ``fundus`` photograph the colours are kept, and the black
  around its disc is cut off. Everything else is gray, as B-scans are; ``oct`` says so of a picture
  that would be taken for a photograph.
- ``curve``: how Heidelberg's reflectivity is shown; ``curves.py`` has them with their sources.

What concerns another kind of file changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from retfiner.common.errors import InputError
from retfiner.vision.images.curves import CURVES

AXES = ("first", "last")
OCT, FUNDUS = "oct", "fundus"
MODALITIES = (OCT, FUNDUS)


@dataclass(frozen=True)
class ReadAs:
    """How to read what a file leaves open; None is as its format has it."""

    bits: int | None = None
    axis: str | None = None
    curve: str | None = None
    modality: str | None = None

    @classmethod
    def parse(cls, text: str) -> ReadAs:
        """Read settings as a flag gives them: ``bits=12 curve=log``.

        Raises:
            InputError: If one is unknown.
        """
        read_as = AS_SAID
        for word in text.replace(",", " ").split():
            read_as = read_as.including(word)
        return read_as

    def including(self, word: str) -> ReadAs:
        """Return the same with one setting more.

        Raises:
            InputError: If it is unknown, or its value impossible.
        """
        name, _, value = word.partition("=")
        if name == "bits" and value.isdecimal() and 1 <= int(value) <= 16:
            return replace(self, bits=int(value))
        if name == "axis" and value in AXES:
            return replace(self, axis=value)
        if name == "curve" and value in CURVES:
            return replace(self, curve=value)
        if name == "modality" and value in MODALITIES:
            return replace(self, modality=value)
        raise InputError(
            f"There is no way to read images as {word!r}",
            got=word,
            expected=f"bits=1 to 16, axis={' or '.join(AXES)}, curve={', '.join(CURVES)}, or"
            f" modality={' or '.join(MODALITIES)}",
        )

    def over(self, other: ReadAs) -> ReadAs:
        """Return the settings of both, this one's where they differ."""
        return ReadAs(
            self.bits if self.bits is not None else other.bits,
            self.axis or other.axis,
            self.curve or other.curve,
            self.modality or other.modality,
        )

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in vars(self).items() if value)


AS_SAID = ReadAs()


def is_setting(text: str) -> bool:
    """Say whether a part of an address is meant as a setting."""
    name, equals, _ = text.partition("=")
    return bool(equals) and name in vars(AS_SAID)
