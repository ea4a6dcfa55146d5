"""How an Interfile sinogram is laid out: its axes, segments, bin size and views."""

import numpy as np

from allpet_physics._arrays import as_float_array
from allpet_physics.conventions import sinogram_from_stir
from allpet_physics.errors import GeometryError, MetadataError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.io._interfile_header import Header, read_numbers, scale_factors

#: This library's own key: the bin index at which s = 0. STIR passes over it with a warning.
CENTRE_KEY = "radial centre (bins)"
_AXES = {"tangential": "bin", "axial": "axial", "view": "view", "segment": "segment", "timing": "timing"}


def stored_axes(header: Header) -> tuple[list[str], dict[str, int], list[int]]:
    """Return the names of the stored axes, outermost first, their sizes, and the planes of each segment."""
    names, sizes, axial = [], {"segment": 1}, []
    for i in range(header.integer("number of dimensions"), 0, -1):
        label = header.text(f"matrix axis label[{i}]").lower()
        name = _AXES.get(label.split()[0])
        if name is None or name in names:
            raise MetadataError(f"'matrix axis label[{i}]' in {header.path.name} must be one of segment, view, axial "
                                f"coordinate and tangential coordinate, each once, but was {label!r}.")
        names.append(name)
        if name == "axial":
            axial = header.integers(f"matrix size[{i}]")
        else:
            sizes[name] = header.integer(f"matrix size[{i}]")
    if not {"bin", "view", "axial"} <= set(names):
        raise MetadataError(f"{header.path.name} must label its axes view, axial coordinate and tangential coordinate "
                            f"with 'matrix axis label[n]', but labels {', '.join(names)}.")
    if sizes.pop("timing", 1) > 1:
        raise MetadataError(f"{header.path.name} holds time-of-flight bins, which are not supported; sum them first.")
    if len(axial) == 1:
        axial = axial * sizes["segment"]
    if len(axial) != sizes["segment"]:
        raise MetadataError(f"'matrix size' of the axial coordinate in {header.path.name} must list the planes of each "
                            f"of the {sizes['segment']} segments, but lists {len(axial)}.")
    return [n for n in names if n != "timing"], sizes, axial


def segment_numbers(header: Header, n_segments: int, warnings: list[str]):
    """Return the segment numbers and the (least, greatest) ring differences, both in the file's order.

    STIR's rule: segments are counted by ring difference, and 0 is the one whose mean difference is 0.
    """
    keys = ("minimum ring difference per segment", "maximum ring difference per segment")
    if n_segments == 1 and not all(header.get(k) for k in keys):
        return [0], None
    low, high = (header.integers(k, minimum=None) for k in keys)
    if len(low) != n_segments or len(high) != n_segments:
        raise MetadataError(f"the ring differences in {header.path.name} must list {n_segments} segments, but list "
                            f"{len(low)} minima and {len(high)} maxima.")
    total = [a + b for a, b in zip(low, high, strict=True)]
    order = sorted(range(n_segments), key=total.__getitem__)
    ranked = [total[i] for i in order]
    if 0 not in ranked:
        if n_segments > 1:
            raise MetadataError(f"{header.path.name} must have a segment whose mean ring difference is 0, "
                                f"but has {low} to {high}.")
        warnings.append(f"The only segment has ring differences {low[0]} to {high[0]}: its lines are tilted.")
        ranked = [0]
    zero = ranked.index(0)
    return [order.index(i) - zero for i in range(n_segments)], list(zip(low, high, strict=True))


def read_segment(header: Header, frame: int, names, sizes, axial, place: int) -> np.ndarray:
    """Return one segment as ``[axial, view, bin]``, scaled, still with the file's views and bins."""
    n_segments, plane = sizes["segment"], sizes["view"] * sizes["bin"]
    outermost = names[0] == "segment"
    scales = scale_factors(header, frame, dict(sizes, axial=axial[0])[names[0]])
    inner = [n for n in names if n != "segment"]
    if outermost or n_segments == 1:
        shape = [dict(sizes, axial=axial[place])[n] for n in inner]
        raw = read_numbers(header, axial[place] * plane, frame=frame, skip=sum(axial[:place]) * plane).reshape(shape)
    elif len(set(axial)) > 1:
        raise MetadataError(f"{header.path.name} stores segments of unequal size inside other axes, which is not "
                            "supported; store the segment as the outermost axis.")
    else:
        shape = [dict(sizes, axial=axial[0])[n] for n in names]
        raw = read_numbers(header, int(np.prod(shape)), frame=frame).reshape(shape)
        raw = raw.take(place, axis=names.index("segment"))
    a = as_float_array(f"the data of {header.path.name}", raw)
    a = a * (a.dtype.type(scales[place]) if outermost else np.array(scales, a.dtype)[:, None, None])
    return np.ascontiguousarray(a.transpose([inner.index(n) for n in ("axial", "view", "bin")]))


def bin_size(header: Header, warnings: list[str]) -> tuple[float | None, bool]:
    """Return the bin width in mm (or None), and whether the data are arc-corrected, by STIR's rules."""
    corrections = header.get("applied corrections", "").lower()
    arc_corrected = "arc correct" in corrections
    if not corrections:
        arc_corrected = True
        warnings.append("The header does not say which corrections were applied; arc correction is assumed.")
    size = header.number("effective central bin size (cm)", 0.0)
    default = header.number("default bin size (cm)", 0.0)
    if not arc_corrected:
        warnings.append("The bins are not arc-corrected: they get narrower away from the centre, and bin_mm is the "
                        "width of the central one; correct the arc before reconstruction.")
        diameter, detectors = header.number("inner ring diameter (cm)", 0.0), header.number(
            "number of detectors per ring", 0.0)
        depth = header.number("average depth of interaction (cm)", 0.0)
        if size <= 0 and diameter > 0 and detectors > 0:
            size = (diameter / 2 + depth) * np.pi / detectors
    size = size if size > 0 else default
    return (10 * size if size > 0 else None), arc_corrected


def to_our_views(header: Header, stored: np.ndarray, warnings: list[str]) -> tuple[np.ndarray, float]:
    """Permute the file's views and bins to ours; return them with the view offset that could not be undone."""
    n_views, n_bins = stored.shape[1:]
    centre = header.number(CENTRE_KEY, n_bins // 2)
    if centre not in (n_bins // 2, (n_bins - 1) / 2):
        raise MetadataError(f"{CENTRE_KEY!r} in {header.path.name} must be {n_bins // 2} or {(n_bins - 1) / 2}, "
                            f"but was {centre:g}.")
    centred = centre == (n_bins - 1) / 2
    if not centred:
        warnings.append(f"The file has {n_bins} bins with s = 0 in the middle of bin {n_bins // 2}; a bin of zeros was "
                        "added so that s = 0 is in the middle of the data.")
    offset = np.radians(header.number("view offset (degrees)", 0.0)) + _mashing_offset(header, n_views)
    geometry = ParallelGeometry(n_views, n_bins if centred else n_bins + 1, 1.0, (1, 1), 1.0)
    try:
        return sinogram_from_stir(stored, geometry, view_offset=offset, centred=centred), 0.0
    except GeometryError:
        warnings.append(f"View 0 is at {np.degrees(offset):.4g} degrees, not a whole number of view steps: an image "
                        "reconstructed with the geometry is turned by that angle, counter-clockwise (y up).")
        return sinogram_from_stir(stored, geometry, centred=centred), float(offset)


def _mashing_offset(header, n_views):
    """Angle by which STIR moves the views when it takes them to be means of several of the scanner's."""
    detectors = header.integer("number of detectors per ring", 0, minimum=None)
    if detectors <= 2 or detectors % (2 * n_views):
        return 0.0
    return np.pi / (detectors // 2) * (detectors // (2 * n_views) - 1) / 2
