"""Hot and cold regions of an emission image by a threshold: `threshold_roi`."""

import warnings
from dataclasses import dataclass

import numpy as np

from allpet_physics import body_outline as outline
from allpet_physics import threshold_rules as rules
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import EmptyROIWarning, GeometryError, InputError

METHODS = ("relative", "fixed", "otsu", "percentile", "local")
#: Default floor of the relative method, as a part of the activity-weighted median (an assumption: far below tissue).
_FLOOR_FRACTION = 0.02


#: Components below this size are taken for noise when there are many of them.
_SPECK_VOXELS = 4
_MANY_SPECKS = 10


@dataclass(frozen=True)
class ROIComponent:
    """One connected region; values in the image's unit, `centroid` a voxel index, `volume_ml` None if unknown.

    `threshold` is the one that made it: its own isocontour (relative), the mean over it (local), or the global one.
    """

    polarity: str
    n_voxels: int
    volume_ml: float | None
    minimum: float
    maximum: float
    mean: float
    threshold: float
    centroid: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ThresholdedROI:
    """What `threshold_roi` found.

    Attributes
    ----------
    mask, hot, cold : ndarray of bool
        The region and its two parts, ``mask = hot | cold``, in the shape of the image.
    thresholds : dict
        For ``"hot"`` and ``"cold"``, as far as asked for, in the image's unit: a number; for relative hot regions an
        array with one number per hot component; for the local method an array of the image's shape.
    components : tuple of ROIComponent
        Hot before cold, each sorted from large to small.
    body : ndarray of bool or None
        The body as given or estimated; None where none was needed.
    warnings : tuple of str
        One sentence each.
    """

    mask: np.ndarray
    hot: np.ndarray
    cold: np.ndarray
    thresholds: dict
    components: tuple[ROIComponent, ...]
    body: np.ndarray | None
    warnings: tuple[str, ...] = ()

    @property
    def n_components(self) -> int:
        """Number of connected regions, hot and cold."""
        return len(self.components)


def threshold_roi(image, method: str = "relative", *, value=None, polarity: str = "hot", body=None, voxel_mm=None,
                  floor: float | None = None, window_mm: float | None = None, offset: float | None = None,
                  rim_mm: float | None = None, min_volume_ml: float = 0.0, min_voxels: int = 1,
                  connectivity: int = 1, largest_only: bool = False) -> ThresholdedROI:
    r"""Segment hot and cold regions of an emission image by a threshold.

    .. math:: \text{hot}: X > T_\mathrm{hot}, \qquad
              \text{cold}: X < T_\mathrm{cold} \text{ inside the body, away from its edge.} \tag{T5}

    ============  ===================================================  ==========================================
    method        hot threshold                                        cold threshold
    ============  ===================================================  ==========================================
    `relative`    `value` × maximum of *each* region, default 0.41     `value` × median of the body, default 0.41
    `fixed`       `value` in the image's unit                          `value`
    `otsu`        Otsu's over the body; for "both" three classes       the same, over the body without its rim
    `percentile`  of the body's voxels, default 95                     of the body without its rim, default 5
    `local`       local mean + `value`·std + `offset`, default 2       local mean − `value`·std − `offset`
    ============  ===================================================  ==========================================

    The relative method draws the isocontour of the EANM guideline (41 % of the maximum voxel, Boellaard et al. 2010,
    Eur. J. Nucl. Med. Mol. Imaging 37:181) around each peak that is the highest voxel of its own isocontour, so that
    lesions of different uptake are all found; `peak_isocontours` has the definition. Where the contrast of the hottest
    region to its background is below 1/`value`, its isocontour leaks into the background; a warning in the result says
    so, and `floor` is the way out.

    The local method finds a uniform region of any contrast that fills less than 1/(1 + k²) of the Gaussian window.

    Cold voxels include what is physiologically cold: air, lungs, ventricles, urine-free bowel. Pass a `body` without
    them, or compare the two sides with `asymmetry_map` and threshold that.

    Parameters
    ----------
    image : array_like
        Slice [row, col] or volume [slice, row, col].
    method : {"relative", "fixed", "otsu", "percentile", "local"}
    value : float or (float, float), optional
        See the table; a pair is (cold, hot) for ``polarity="both"``, where `relative` and `local` also take one number.
    polarity : {"hot", "cold", "both"}
    body : array_like of bool, optional
        Hot and cold regions lie inside. Without it, `body_mask` serves cold regions, statistics and the local method;
        hot regions of the other methods may then lie anywhere.
    voxel_mm : float or sequence of float, optional
        Sides of a voxel in mm along the image's axes; for a slice also (thickness, row, col). One number is a cube.
    floor : float, optional
        `relative`: lowest value of a hot region, for example SUV 2.5. The default excludes little more than air: 2 % of
        the value below which half of the activity lies, or the amplitude of negative values if that is higher.
    window_mm, offset : float, optional
        `local`: full width at half maximum of the window, 40 mm by default, and a constant in the image's unit.
    rim_mm : float, optional
        Cold regions keep this distance from the body's edge, where partial volume alone lowers the uptake: 10 mm by
        default, or three voxels without `voxel_mm`. Coarse images need more, about 1.25 FWHM of their resolution.
    min_volume_ml, min_voxels : float, int
        Smaller components are removed.
    connectivity : int
        1 joins voxels that share a face, 2 an edge, 3 a corner (in a slice: 1 a side, 2 a corner).
    largest_only : bool
        Keep the largest component of each polarity.

    Returns
    -------
    ThresholdedROI

    Warns
    -----
    EmptyROIWarning
        The region holds no voxel; `mask` is False everywhere.

    Raises
    ------
    InputError
        NaN, an empty image, a setting out of range or of another method, a threshold that does not exist.
    GeometryError
        A body of another shape, voxel sides that do not fit the image.
    """
    from scipy import ndimage

    image = outline.as_image(image)
    _check_choices(method, polarity, relative={"floor": floor}, local={"window_mm": window_mm, "offset": offset})
    values = rules.value_pair(method, value, polarity)
    sides, voxel_ml = _voxel(voxel_mm, image.ndim)
    min_voxels = _smallest_component(min_voxels, min_volume_ml, voxel_ml)
    if as_positive_int("connectivity", connectivity) > image.ndim:
        raise InputError(f"connectivity must be 1 to {image.ndim} for this image, but was {connectivity}.")
    structure = ndimage.generate_binary_structure(image.ndim, connectivity)
    regions, body = _regions(image, method, polarity, body, sides, rim_mm)

    if method == "local":
        thresholds = rules.local_thresholds(image, body, values, sides, window_mm, offset)
    else:
        thresholds = rules.global_thresholds(image, method, values, polarity, body, regions)
    if method == "relative" and "hot" in regions:
        floor = _lowest_peak(image) if floor is None else as_positive_float("floor", floor, allow_zero=True)
        thresholds["hot"] = lambda maximum: np.maximum(values["hot"] * maximum, floor)
        found = {"hot": rules.peak_isocontours(image, values["hot"], floor, regions["hot"], structure)}
    elif "hot" in regions:
        found = {"hot": (image > thresholds["hot"]) & regions["hot"]}
    else:
        found = {}
    if "cold" in regions:
        found["cold"] = (image < thresholds["cold"]) & regions["cold"] & ~found.get("hot", False)

    components, notes = [], []
    for name, region in found.items():
        n_before = np.count_nonzero(region)
        found[name], parts = _components(image, region, structure, min_voxels, largest_only, name, thresholds[name],
                                         voxel_ml)
        components += parts
        if n_before and not parts:
            notes.append(f"Every {name} component has fewer than {min_voxels} voxels.")
        elif not parts:
            notes.append(f"No voxel is {name} by the {method} threshold (the image's values are {image.min():g} to "
                         f"{image.max():g}).")
    if method == "relative" and "hot" in found:
        thresholds["hot"] = np.array([c.threshold for c in components if c.polarity == "hot"])
        notes += _leak(components, body, values["hot"])
    empty = np.zeros(image.shape, bool)
    hot, cold = found.get("hot", empty), found.get("cold", empty)
    if not components:
        warnings.warn(f"the region of interest is empty: {' '.join(notes)}", EmptyROIWarning, stacklevel=2)
    else:
        notes += _specks(components)
    return ThresholdedROI(hot | cold, hot, cold, thresholds, tuple(components), body, tuple(notes))


def _check_choices(method, polarity, **settings_of):
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, but was {method!r}.")
    if polarity not in ("hot", "cold", "both"):
        raise InputError(f'polarity must be "hot", "cold" or "both", but was {polarity!r}.')
    for owner, settings in settings_of.items():
        for name, setting in settings.items():
            if setting is not None and method != owner:
                raise InputError(f'{name} belongs to method="{owner}", but method was "{method}"; leave it out.')


def _voxel(voxel_mm, ndim):
    """Return the sides along the image's axes and the volume in mL, each None where unknown."""
    if voxel_mm is None:
        return None, None
    sides = tuple(as_positive_float("voxel_mm", s) for s in np.atleast_1d(np.asarray(voxel_mm, dtype=object)))
    if len(sides) == 1:
        sides *= 3
    elif len(sides) not in (ndim, 3):
        raise GeometryError(f"voxel_mm must be one number or one for each of the image's {ndim} axes, "
                            f"but was {voxel_mm!r}.")
    return sides[-ndim:], float(np.prod(sides)) / 1000 if len(sides) == 3 else None


def _smallest_component(min_voxels, min_volume_ml, voxel_ml):
    min_voxels = as_positive_int("min_voxels", min_voxels)
    min_volume_ml = as_positive_float("min_volume_ml", min_volume_ml, allow_zero=True)
    if min_volume_ml == 0:
        return min_voxels
    if voxel_ml is None:
        raise InputError("voxel_mm must be given with min_volume_ml, for a slice as (thickness, row, col) in mm.")
    return max(min_voxels, int(np.ceil(min_volume_ml / voxel_ml - 1e-9)))


def _regions(image, method, polarity, body, sides, rim_mm):
    """Return where hot and cold voxels are looked for, and the body (None if nothing depends on it)."""
    given = body is not None
    if given:
        body = outline.as_mask("body", body, image.shape)
    elif method != "fixed" or polarity != "hot":
        body = outline.body_mask(image)
    needed = given or polarity != "hot" or method not in ("fixed", "relative")
    if needed and not body.any():
        raise InputError("body must hold at least one voxel, but " + (
            "the mask is empty." if given else "the image has no positive value to find it by; pass one."))
    if method == "local" and sides is None:
        raise InputError('voxel_mm must be given for method="local", whose window is in mm.')
    regions = {}
    if polarity != "cold":
        regions["hot"] = body if given or method == "local" else np.ones(image.shape, bool)
    if polarity != "hot":
        regions["cold"] = outline.body_interior(body, sides, rim_mm)
    return regions, body


def _lowest_peak(image):
    return max(_FLOOR_FRACTION * outline.activity_quantile(image, 0.5), outline.noise_amplitude(image))


def _components(image, region, structure, min_voxels, largest_only, polarity, threshold, voxel_ml):
    """Return the region without its small components, and a record of those that stay, the largest first."""
    from scipy import ndimage

    labels, n = ndimage.label(region, structure)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    keep = sizes >= min_voxels
    keep[0] = False
    index = np.flatnonzero(keep)
    index = index[np.argsort(-sizes[index], kind="stable")][:1 if largest_only else None]
    if index.size == 0:
        return np.zeros(region.shape, bool), []
    keep[:] = False
    keep[index] = True
    low, high, mean = (f(image, labels, index) for f in (ndimage.minimum, ndimage.maximum, ndimage.mean))
    if callable(threshold):
        level = threshold(np.asarray(high, dtype=np.float64))
    elif np.ndim(threshold):
        level = ndimage.mean(threshold, labels, index)
    else:
        level = np.full(index.size, threshold)
    centroid = ndimage.center_of_mass(region, labels, index)
    return keep[labels], [
        ROIComponent(polarity, int(sizes[i]), None if voxel_ml is None else float(sizes[i] * voxel_ml), float(low[j]),
                     float(high[j]), float(mean[j]), float(level[j]), tuple(float(c) for c in centroid[j]))
        for j, i in enumerate(index)]


def _specks(components):
    """Return a sentence when most components are of a size that noise makes."""
    small = sum(c.n_voxels < _SPECK_VOXELS for c in components)
    if small < _MANY_SPECKS or 2 * small < len(components):
        return []
    return [f"{small} of {len(components)} components have fewer than {_SPECK_VOXELS} voxels, as noise makes them: set "
            "min_voxels or min_volume_ml, smooth the image, or raise the threshold (floor, with \"relative\")."]


def _leak(components, body, fraction):
    """Return a sentence when a hot component is so large that it must hold the background."""
    largest = max((c.n_voxels for c in components if c.polarity == "hot"), default=0)
    if largest <= 0.5 * np.count_nonzero(body):
        return []
    return [f"A hot component has {largest} voxels, more than half of the body's {np.count_nonzero(body)}: unless it "
            f"is a lesion in an empty background, {fraction:.0%} of its maximum lies below the background; raise "
            'floor, or use method="fixed".']
