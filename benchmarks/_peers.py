"""The peers' own calls, set up once so that only their work is timed, on the geometry of the library under test."""

import ctypes
import weakref
from pathlib import Path

import numpy as np


def astra_or_reason():
    """Return the module, or print why ASTRA is left out and return None."""
    try:
        import astra
    except ImportError:
        print('ASTRA is left out: it is not installed; install it with: pip install ".[astra]"')
        return None
    return astra


class AstraCalls:
    """ASTRA's CPU projector of one kernel ("line", "strip", "linear"): `forward`, `back` and `fbp` without arguments.

    The data stand in ASTRA's memory before the clock starts; a call runs ASTRA's algorithm and nothing else.
    """

    def __init__(self, astra, geometry, kernel: str, image=None, sinogram=None):
        self._astra, self._shapes = astra, (geometry.image_shape, geometry.sinogram_shape)
        rows, cols = geometry.image_shape
        half_x, half_y = cols * geometry.pixel_mm / 2, rows * geometry.pixel_mm / 2
        volume = astra.create_vol_geom(rows, cols, -half_x, half_x, -half_y, half_y)
        rays = astra.create_proj_geom("parallel", geometry.bin_mm, geometry.n_bins, geometry.angles)
        self._projector = astra.create_projector(kernel, rays, volume)
        self._image = astra.data2d.create("-vol", volume, 0 if image is None else image)
        self._sinogram = astra.data2d.create("-sino", rays, 0 if sinogram is None else sinogram)
        self._image_out = astra.data2d.create("-vol", volume)
        self._sinogram_out = astra.data2d.create("-sino", rays)
        self._algorithms = {
            "forward": self._algorithm("FP", VolumeDataId=self._image, ProjectionDataId=self._sinogram_out),
            "back": self._algorithm("BP", ProjectionDataId=self._sinogram, ReconstructionDataId=self._image_out),
            "fbp": self._algorithm("FBP", ProjectionDataId=self._sinogram, ReconstructionDataId=self._image_out,
                                   option={"FilterType": "ram-lak"}),
        }
        data = [self._image, self._sinogram, self._image_out, self._sinogram_out]
        weakref.finalize(self, _free, astra, list(self._algorithms.values()), data, self._projector).atexit = False

    def _algorithm(self, name, **settings):
        configuration = self._astra.astra_dict(name)
        configuration["ProjectorId"] = self._projector
        configuration.update(settings)
        return self._astra.algorithm.create(configuration)

    def forward(self):
        """Project the image; return ASTRA's own array."""
        self._astra.algorithm.run(self._algorithms["forward"])
        return self._astra.data2d.get_shared(self._sinogram_out)

    def back(self):
        """Back project the sinogram; return ASTRA's own array."""
        self._astra.algorithm.run(self._algorithms["back"])
        return self._astra.data2d.get_shared(self._image_out)

    def fbp(self):
        """Reconstruct the sinogram by filtered back projection; return ASTRA's own array."""
        self._astra.algorithm.run(self._algorithms["fbp"])
        return self._astra.data2d.get_shared(self._image_out)


def _free(astra, algorithms, data, projector):
    astra.algorithm.delete(algorithms)
    astra.data2d.delete(data)
    astra.projector.delete(projector)


class ParallelprojCalls:
    """libparallelproj's Joseph projector through its C interface (versions 1 and 2): `forward` and `back`.

    Its image is three-dimensional, here one voxel thick along the last axis, the fastest of the three choices; a ray
    runs between two points.
    """

    def __init__(self, path: Path, geometry, image=None, sinogram=None):
        self._library = ctypes.CDLL(str(path))
        self.version = "1"
        self._more = ()
        if hasattr(self._library, "parallelproj_version"):
            self._library.parallelproj_version.restype = ctypes.c_char_p
            self.version = self._library.parallelproj_version().decode()
            self._more = (ctypes.c_int(0), ctypes.c_int(64))
        rows, cols = geometry.image_shape
        mm, reach = geometry.pixel_mm, geometry.pixel_mm * (rows + cols)
        cos, sin = np.cos(geometry.angles)[:, np.newaxis], np.sin(geometry.angles)[:, np.newaxis]
        ends = []
        for t in (-reach, reach):
            x, y = geometry.bin_centres * cos - t * sin, geometry.bin_centres * sin + t * cos
            ends.append(np.stack([-y, x, np.zeros_like(x)], axis=-1).astype(np.float32))
        self._start, self._end = ends
        self._origin = np.array([-(rows - 1) / 2 * mm, -(cols - 1) / 2 * mm, 0], np.float32)
        self._voxel = np.full(3, mm, np.float32)
        self._dim = np.array([rows, cols, 1], np.int32)
        self._image = np.zeros((rows, cols), np.float32) if image is None else np.ascontiguousarray(image, np.float32)
        self._sinogram = (np.zeros(geometry.sinogram_shape, np.float32) if sinogram is None
                          else np.ascontiguousarray(sinogram, np.float32))
        self._image_out, self._sinogram_out = np.zeros_like(self._image), np.zeros_like(self._sinogram)

    def _call(self, function, image, values):
        function.restype = None
        arrays = (self._start, self._end, image, self._origin, self._voxel, values)
        function(*(ctypes.c_void_p(a.ctypes.data) for a in arrays), ctypes.c_size_t(values.size),
                 ctypes.c_void_p(self._dim.ctypes.data), *self._more)

    def forward(self):
        """Project the image; return the sinogram, an array of its own that the next call overwrites."""
        self._call(self._library.joseph3d_fwd, self._image, self._sinogram_out)
        return self._sinogram_out

    def back(self):
        """Back project the sinogram; return the image, an array of its own that the next call overwrites."""
        self._image_out.fill(0)
        self._call(self._library.joseph3d_back, self._image_out, self._sinogram)
        return self._image_out


def parallelproj_or_reason(path, geometry, image=None, sinogram=None) -> ParallelprojCalls | None:
    """Return the calls of the library at `path`, or print why it is left out and return None."""
    if path is None:
        print("libparallelproj is left out: give its shared library with --libparallelproj PATH")
        return None
    try:
        return ParallelprojCalls(path, geometry, image, sinogram)
    except OSError as error:
        print(f"libparallelproj is left out: {error}")
        return None
