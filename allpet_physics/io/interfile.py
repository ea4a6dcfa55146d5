r"""Interfile sinograms (.hs, .s) and images (.hv, .v) as STIR reads and writes them.

Keys, axis orders and coordinates are those of STIR 6 (``src/IO/InterfileHeader.cxx``, ``src/IO/interfile.cxx`` and
``DiscretisedDensity.inl``). On reading, sinograms become this library's ``[plane, angle, bin]`` and images a `Volume`
with an affine to RAS mm; on writing, the inverse. `allpet_physics.conventions` has the mathematics of the views.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.conventions import sinogram_to_stir
from allpet_physics.errors import GeometryError, InputError, MetadataError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.io._interfile_header import (
    check_data_type,
    checked_frame,
    read_header,
    with_suffix,
    without_patient,
    write_pair,
)
from allpet_physics.io._interfile_image import read_interfile_image, write_interfile_image
from allpet_physics.io._interfile_layout import (
    CENTRE_KEY,
    bin_size,
    read_segment,
    segment_numbers,
    stored_axes,
    to_our_views,
)

__all__ = ["InterfileSinogram", "read_interfile_image", "read_interfile_sinogram", "write_interfile_image",
           "write_interfile_sinogram"]


@dataclass(frozen=True)
class InterfileSinogram:
    """One segment of an Interfile sinogram, in this library's conventions.

    Parameters
    ----------
    data : ndarray
        float32 (float64 where the file needs it), shape (plane, angle, bin). Planes are in the file's order: in STIR,
        plane 0 is farthest from the bed, which is the superior end of a patient lying head first. Angles and bins
        are ours (`sinogram_from_stir`), not the file's views and tangential positions.
    bin_mm : float or None
        Width of a bin at the centre; None when the header does not tell.
    plane_mm : float or None
        Distance of neighbouring planes.
    segment : int
        Which segment this is; 0 is the direct one.
    segments : tuple of int
        All segments of the file, in its order.
    ring_difference : (int, int) or None
        Smallest and largest ring difference of this segment.
    view_offset : float
        Angle of the file's view 0 in radians, if it is *not* a whole number of view steps: an image reconstructed
        with `geometry` is turned by this angle, counter-clockwise in our axes (y up). 0 when nothing is left to do.
    arc_corrected : bool
        Whether the bins have equal widths.
    header : mapping
        Keys and values as text, without what names a patient.
    warnings : tuple of str
        What the reader noticed; one sentence each.
    """

    data: np.ndarray
    bin_mm: float | None
    plane_mm: float | None
    segment: int
    segments: tuple[int, ...]
    ring_difference: tuple[int, int] | None
    view_offset: float
    arc_corrected: bool
    header: Mapping
    warnings: tuple[str, ...] = ()
    arc: float = np.pi

    @property
    def n_planes(self) -> int:
        """Number of planes (axial positions)."""
        return self.data.shape[0]

    @property
    def n_views(self) -> int:
        """Number of angles over the arc of π."""
        return self.data.shape[1]

    @property
    def n_bins(self) -> int:
        """Number of radial bins of `data`."""
        return self.data.shape[2]

    def geometry(self, image_shape: tuple[int, int], pixel_mm: float) -> ParallelGeometry:
        """Return the geometry of one plane over a given image grid; raises MetadataError without a bin size."""
        if self.bin_mm is None:
            raise MetadataError("the header must have 'effective central bin size (cm)' or 'Default bin size (cm)' "
                                "for a geometry, but has neither; add one, or build ParallelGeometry yourself.")
        return ParallelGeometry(self.n_views, self.n_bins, self.bin_mm, image_shape, pixel_mm, self.arc)


def read_interfile_sinogram(path, *, segment: int = 0, frame: int = 1) -> InterfileSinogram:
    """Read one segment of an Interfile PET sinogram (.hs) as ``[plane, angle, bin]`` in this library's conventions.

    STIR measures s = 0 in the middle of tangential element n // 2. A file with an even number of bins therefore gets
    one more bin, a zero where nothing was measured (see `sinogram_from_stir`), and a warning says so; files of
    `write_interfile_sinogram` state their centre and keep their shape.

    Parameters
    ----------
    path : path-like
        The header.
    segment : int
        Segment number as STIR counts them: sorted by ring difference, 0 in the middle.
    frame : int
        Time frame, from 1.

    Raises
    ------
    InputError
        Not an Interfile header; a data file that is missing or too short; a segment or frame that is not there; NaN.
    MetadataError
        A key that is missing, contradictory or not supported (time-of-flight, SPECT, an unknown axis).
    """
    header = read_header(path)
    check_data_type(header, "a PET sinogram", lambda kind: kind != "image", "read_interfile_image")
    frame = checked_frame(header, frame)
    warnings: list[str] = []
    names, sizes, axial = stored_axes(header)
    numbers, differences = segment_numbers(header, sizes["segment"], warnings)
    if segment not in numbers:
        raise InputError(f"segment must be one of {sorted(numbers)}, the segments of {header.path.name}, "
                         f"but was {segment!r}.")
    place = numbers.index(segment)
    if segment:
        warnings.append(f"Segment {segment} holds lines that are tilted against the planes; a parallel geometry of one "
                        "plane leaves that out.")
    stored = read_segment(header, frame, names, sizes, axial, place)

    difference = differences[place] if differences else None
    bin_mm, arc_corrected = bin_size(header, warnings)
    data, view_offset = to_our_views(header, stored, warnings)
    rings_mm = 10 * header.number("distance between rings (cm)", 0.0)
    spans = difference is not None and difference[0] != difference[1]
    return InterfileSinogram(
        data, bin_mm, (rings_mm / 2 if spans else rings_mm) or None, segment, tuple(numbers), difference, view_offset,
        arc_corrected, without_patient(header), tuple(warnings))


def write_interfile_sinogram(path, sinogram, geometry: ParallelGeometry, *, plane_mm: float,
                             ring_diameter_mm: float | None = None, resample_even: bool = False,
                             overwrite: bool = False) -> None:
    """Write sinograms of parallel planes as an Interfile segment 0 that STIR can read (.hs and .s).

    Views and bins are put in STIR's order, and `read_interfile_sinogram` returns exactly what was given. One thing
    STIR cannot express: for an even `n_bins` our s = 0 lies between two bins, STIR's in the middle of bin n // 2. By
    default the values are kept and the header states the centre in the key ``radial centre (bins)``, which STIR
    reports as unknown and passes over, so that it places everything half a bin off. Pass ``resample_even=True`` for a
    file that STIR places rightly, with one more bin and interpolated values.

    Parameters
    ----------
    path : path-like
        The header, ``.hs``; the data go beside it as ``.s``.
    sinogram : array_like
        Shape (plane, angle, bin) or (angle, bin); written as float32, or float64 if it is. In STIR plane 0 is farthest
        from the bed: superior first for a patient lying head first.
    geometry : ParallelGeometry
        Arc π.
    plane_mm : float
        Distance of neighbouring planes, written as the ring distance.
    ring_diameter_mm : float, optional
        Inner diameter of the detector ring; by default 1.2 times the field of view, a placeholder that parallel
        planes do not depend on.
    overwrite : bool
        Whether existing files may be replaced.

    Raises
    ------
    GeometryError
        An arc of 2π.
    InputError
        A wrong shape, NaN, a suffix other than .hs, files that exist.
    """
    path = with_suffix(path, ".hs")
    plane_mm = as_positive_float("plane_mm", plane_mm)
    a = as_float_array("sinogram", sinogram, geometry.sinogram_shape)
    if a.ndim > 3 or a.size == 0:
        raise InputError(f"sinogram must have shape (planes, angles, bins) or (angles, bins), but was {a.shape}; "
                         "write other batch axes as files of their own.")
    ring_mm = as_positive_float("ring_diameter_mm", 1.2 * geometry.fov_mm if ring_diameter_mm is None
                                else ring_diameter_mm)
    if ring_mm < geometry.fov_mm:
        raise GeometryError(f"ring_diameter_mm must be at least the field of view of {geometry.fov_mm:g} mm, "
                            f"but was {ring_mm:g}.")
    stored = sinogram_to_stir(a.reshape(-1, *geometry.sinogram_shape), geometry, centred=not resample_even)
    n_planes, n_views, n_bins = stored.shape
    centre = [f"{CENTRE_KEY} := {(n_bins - 1) / 2!r}"] if n_bins % 2 == 0 else []
    lines = [
        "!INTERFILE  :=", "!imaging modality := PT", "name of data file := {data}", "originating system := unknown",
        "!version of keys := STIR6.0", "!GENERAL DATA :=", "!GENERAL IMAGE DATA :=", "!type of data := PET",
        "imagedata byte order := LITTLEENDIAN", "!PET STUDY (General) :=", "!PET data type := Emission",
        "applied corrections := {arc correction}",
        "!number format := float", f"!number of bytes per pixel := {stored.dtype.itemsize}",
        "number of dimensions := 4",
        "matrix axis label [4] := segment", "!matrix size [4] := 1",
        "matrix axis label [3] := axial coordinate", f"!matrix size [3] := {{ {n_planes}}}",
        "matrix axis label [2] := view", f"!matrix size [2] := {n_views}",
        "matrix axis label [1] := tangential coordinate", f"!matrix size [1] := {n_bins}",
        "minimum ring difference per segment := { 0}", "maximum ring difference per segment := { 0}",
        "Scanner parameters:=", "Scanner type := unknown",
        f"Number of rings := {n_planes}", f"Number of detectors per ring := {2 * n_views}",
        f"Inner ring diameter (cm) := {ring_mm / 10!r}", "Average depth of interaction (cm) := 0",
        f"Distance between rings (cm) := {plane_mm / 10!r}", f"Default bin size (cm) := {geometry.bin_mm / 10!r}",
        "View offset (degrees) := 0", f"Maximum number of non-arc-corrected bins := {n_bins}",
        f"Default number of arc-corrected bins := {n_bins}", "end scanner parameters:=",
        f"effective central bin size (cm) := {geometry.bin_mm / 10!r}", *centre,
        "number of time frames := 1", "image scaling factor[1] := 1", "data offset in bytes[1] := 0",
        "!END OF INTERFILE :="]
    write_pair(path, ".s", lines, stored, overwrite=overwrite)
