"""Image quality on the NEMA/IEC body phantom: contrast recovery of the spheres against background variability."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry

#: Diameter of the background regions that the standard places, and of the one in the lung insert, in mm.
_BACKGROUND_MM, _LUNG_MM = 37.0, 30.0
#: Centres x, y in mm of the twelve background regions. The standard shows them in a figure, 15 mm from the edge and
#: from any sphere; these were placed to keep as far from both as twelve disjoint discs can, at least 11.3 mm.
BACKGROUND_CENTRES_MM = (
    (116, -22), (96, 27), (63, 63), (9, 81), (-61, 64), (-90, 40),
    (-111, 1), (-110, -58), (-60, -81), (2, -82), (55, -81), (96, -73),
)
#: Half width of the phantom and its reach above and below the origin, as `simulation.nema_iec` draws it.
_HALF_WIDTH_MM, _HALF_HEIGHT_MM = 147.0, 112.0


@dataclass(frozen=True, eq=False)
class ContrastRecovery:
    """Image quality of one image, or of each image of a batch, for each sphere.

    Attributes
    ----------
    diameters_mm : ndarray, shape (6,)
        Inner diameters of the spheres, ascending.
    hot : ndarray of bool, shape (6,)
        Which spheres are hotter than the background; the others are cold.
    contrast_percent : ndarray, shape (..., 6)
        Q_H of eq. (Q1) or Q_C of eq. (Q2).
    variability_percent : ndarray, shape (..., 6)
        N of eq. (Q3), for background regions of each sphere's size.
    background : ndarray, shape (..., 6)
        Mean of the background regions of each size, in the image's unit.
    lung_residual_percent : ndarray, shape (...)
        Mean in the lung insert, which holds no activity, over that of the 37 mm background regions.
    """

    diameters_mm: np.ndarray
    hot: np.ndarray
    contrast_percent: np.ndarray
    variability_percent: np.ndarray
    background: np.ndarray
    lung_residual_percent: np.ndarray


def contrast_recovery(image, geometry: ParallelGeometry, *, hot_to_background: float = 4.0,
                      cold_mm: tuple[float, ...] = (28, 37), ring_diameter_mm: float = 114.5) -> ContrastRecovery:
    r"""Measure percent contrast and background variability as NEMA NU 2 defines them, in one slice.

    .. math::

        Q_{H,j} &= 100\,\frac{C_{H,j} / C_{B,j} - 1}{a_H / a_B - 1}, \tag{Q1} \\
        Q_{C,j} &= 100\,(1 - C_{C,j} / C_{B,j}), \tag{Q2} \\
        N_j &= \frac{100}{C_{B,j}} \sqrt{\frac{1}{K - 1} \sum_{k=1}^{K} (C_{B,j,k} - C_{B,j})^2}, \tag{Q3}

    with the mean C of a circular region as large as sphere j, on the sphere (H, C) or at each of K = 12 places in the
    background (B). Pixels on the rim of a region count by the area inside.

    Parameters
    ----------
    image : array_like, shape (..., rows, cols)
        Reconstruction of `simulation.nema_iec` centred in the field of view, in any unit.
    geometry : ParallelGeometry
        Its image grid.
    hot_to_background : float
        True ratio a_H/a_B, above 1.
    cold_mm, ring_diameter_mm
        As in `simulation.nema_iec`: which spheres hold no activity, and where they stand.

    Raises
    ------
    InputError
        An image of another shape or not finite; a ratio of 1 or less; a cold diameter that is no sphere.
    GeometryError
        A field of view smaller than the phantom.

    Notes
    -----
    The standard measures five slices (K = 60) and its regions stay 15 mm from the edge; twelve disjoint ones in a
    slice have room for 11 (`BACKGROUND_CENTRES_MM`). Spheres are discs here, so partial volume is that of two
    dimensions: recovery is higher than of real spheres of the same size.

    References
    ----------
    NEMA NU 2-2018, section 7.
    """
    from allpet_physics.simulation import Phantom, disc, nema_iec

    if not isinstance(geometry, ParallelGeometry):
        raise InputError(f"geometry must be a ParallelGeometry, but was {type(geometry).__name__}.")
    image = as_float_array("image", image, geometry.image_shape)
    ratio = as_positive_float("hot_to_background", hot_to_background)
    if ratio <= 1:
        raise InputError(f"hot_to_background must be greater than 1, but was {ratio:g}.")
    rows, cols = geometry.image_shape
    if cols * geometry.pixel_mm < 2 * _HALF_WIDTH_MM or rows * geometry.pixel_mm < 2 * _HALF_HEIGHT_MM:
        raise GeometryError(f"geometry must show the phantom, {2 * _HALF_WIDTH_MM:g} x {2 * _HALF_HEIGHT_MM:g} mm, but "
                            f"its image is {cols * geometry.pixel_mm:g} x {rows * geometry.pixel_mm:g} mm.")
    spheres = sorted((s for s in nema_iec(cold_mm=cold_mm, ring_diameter_mm=ring_diameter_mm).shapes
                      if s.label.startswith("sphere")), key=lambda s: s.a_mm)
    diameters = np.array([2 * s.a_mm for s in spheres])
    hot = np.array([s.value > 0 for s in spheres])

    def mean(x, y, diameter):
        weight = Phantom((disc(x, y, diameter / 2, 1.0),)).image(geometry)
        inside = weight > 0
        return image[..., inside].astype(np.float64) @ (weight[inside] / weight[inside].sum())

    signal = np.stack([mean(s.x_mm, s.y_mm, d) for s, d in zip(spheres, diameters, strict=True)], axis=-1)
    regions = np.stack([np.stack([mean(x, y, d) for x, y in BACKGROUND_CENTRES_MM], axis=-1) for d in diameters],
                       axis=-2)
    background = regions.mean(axis=-1)
    if not (background > 0).all():
        raise InputError("image must have a positive mean in the background regions, but it was "
                         f"{background.min():g}; is the phantom centred and upright?")
    contrast = np.where(hot, (signal / background - 1) / (ratio - 1), 1 - signal / background)
    return ContrastRecovery(diameters, hot, 100 * contrast, 100 * regions.std(axis=-1, ddof=1) / background,
                            background, 100 * np.asarray(mean(0, 0, _LUNG_MM)) / background[..., -1])


def plot_contrast_recovery(results: Mapping[str, ContrastRecovery]):
    """Return a matplotlib ``Figure``: contrast and variability over the spheres' diameter, a line for each result.

    Parameters
    ----------
    results : mapping of str to ContrastRecovery
        Results by the name they have in the legend. Where a result holds a batch (noise realisations), its mean is
        drawn, with bars of one standard deviation.

    Raises
    ------
    InputError
        No results.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not isinstance(results, Mapping) or not results:
        raise InputError("results must be a mapping of at least one name to a ContrastRecovery.")
    figure = Figure(figsize=(11, 4.6), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    contrast, variability = figure.subplots(1, 2)
    for number, (name, result) in enumerate(results.items()):
        for axes, values in ((contrast, result.contrast_percent), (variability, result.variability_percent)):
            items = values.reshape(-1, len(result.diameters_mm))
            bars = items.std(axis=0, ddof=1) if len(items) > 1 else None
            axes.errorbar(result.diameters_mm, items.mean(axis=0), bars, marker="o", markersize=5, capsize=3,
                          linewidth=1.6, color=f"C{number}", label=name)
        cold = ~result.hot
        mean = result.contrast_percent.reshape(-1, len(cold)).mean(axis=0)
        contrast.plot(result.diameters_mm[cold], mean[cold], "o", markersize=5, markerfacecolor="white",
                      color=f"C{number}", zorder=3)
    contrast.axhline(100, color="0.6", linewidth=0.8, zorder=0)
    contrast.set(title="contrast recovery", ylabel="percent contrast Q (%)", ylim=(0, None))
    variability.set(title="background variability", ylabel="variability N (%)", ylim=(0, None))
    for axes in (contrast, variability):
        axes.set(xlabel="sphere diameter (mm)", xticks=next(iter(results.values())).diameters_mm)
        axes.grid(alpha=0.3)
    handles, labels = contrast.get_legend_handles_labels()
    if any((~r.hot).any() for r in results.values()):
        handles.append(contrast.plot([], [], "o", color="0.3", markerfacecolor="white", markersize=5)[0])
        labels.append("open: cold spheres")
    contrast.legend(handles, labels, loc="lower right", framealpha=0.95)
    return figure
