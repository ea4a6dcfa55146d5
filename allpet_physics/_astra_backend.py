"""ASTRA's CPU kernels behind the interface of our own: the optional second backend and an oracle for tests."""

import weakref

import numpy as np

from allpet_physics.errors import InputError

_KERNEL = {"strip": "strip", "joseph": "linear"}


class AstraProjector:
    """One ASTRA projector, freed with this object. Works in float32, one slice at a time."""

    def __init__(self, geometry, model, angles):
        try:
            import astra
        except ImportError as error:
            raise InputError('backend "astra" needs the ASTRA Toolbox, which is not installed; '
                             'install it with: pip install ".[astra]" in the source folder of allpet, '
                             'or use backend="numba".') from error
        self._astra = astra
        rows, cols = geometry.image_shape
        half_x, half_y = cols * geometry.pixel_mm / 2, rows * geometry.pixel_mm / 2
        volume = astra.create_vol_geom(rows, cols, -half_x, half_x, -half_y, half_y)
        projection = astra.create_proj_geom("parallel", geometry.bin_mm, geometry.n_bins, np.asarray(angles))
        self._id = astra.create_projector(_KERNEL[model], projection, volume)
        weakref.finalize(self, astra.projector.delete, self._id).atexit = False

    def forward(self, x, out):
        """Project each image of `x` ``(batch, row, col)`` into `out` ``(batch, angle, bin)``."""
        for image, sinogram in zip(x, out, strict=True):
            data_id, values = self._astra.create_sino(np.ascontiguousarray(image, dtype=np.float32), self._id)
            self._astra.data2d.delete(data_id)
            sinogram[...] = values

    def back(self, y, out):
        """Back project each sinogram of `y` into `out`."""
        for sinogram, image in zip(y, out, strict=True):
            data_id, values = self._astra.create_backprojection(np.ascontiguousarray(sinogram, dtype=np.float32),
                                                                self._id)
            self._astra.data2d.delete(data_id)
            image[...] = values
