"""Remarks of a reader, told to those who do not look for them."""

import warnings

from allpet_physics.io.volume import Volume


def told(volume: Volume) -> Volume:
    """Return a volume after issuing each of its `warnings` once as a UserWarning of the line that called the reader."""
    for text in dict.fromkeys(volume.warnings):
        warnings.warn(text, UserWarning, stacklevel=3)
    return volume
