"""One picture of a region: its outline in the image, its sinogram, its attention over the image's sinogram."""

from pathlib import Path

import numpy as np

from allpet_physics.geometry import ParallelGeometry

#: Display window of CT in HU (level 40, width 400: soft tissue).
_CT_WINDOW = (-160.0, 240.0)
_OUTLINE = "#ff2d55"
_ATTENTION, _OPAQUE = "#ffa600", 0.75


def save_preview(path: str | Path, image: np.ndarray, mask: np.ndarray, sinogram: np.ndarray, attention: np.ndarray,
                 image_sinogram: np.ndarray, geometry: ParallelGeometry, *, title: str, subtitle: str,
                 unit: str, attention_label: str) -> None:
    """Save the preview of one slice as PNG.

    Parameters
    ----------
    path : path-like
    image : ndarray
        ``[row, col]`` in `unit`, anterior up, patient left at the right.
    mask : ndarray of bool
        ``[row, col]``.
    sinogram, attention, image_sinogram : ndarray
        ``[angle, bin]``: path length through the region in mm; its normalised form; the image's own sinogram.
    geometry : ParallelGeometry
    title, subtitle, unit, attention_label : str
    """
    from matplotlib import colors
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.5, 5.2), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 3, left=0.05, right=0.935, bottom=0.115, top=0.80, wspace=0.46)
    slice_axes, roi_axes, overlay_axes = (figure.add_subplot(cell) for cell in grid)
    figure.text(0.012, 0.945, title, fontsize=14, fontweight="bold", va="center")
    figure.text(0.012, 0.89, subtitle, fontsize=10.5, va="center", color="0.3")
    rows, cols = geometry.image_shape
    half_x, half_y = cols * geometry.pixel_mm / 2, rows * geometry.pixel_mm / 2

    def bar(mappable, axes, label):
        figure.colorbar(mappable, cax=axes.inset_axes((1.03, 0, 0.035, 1)), label=label)

    cmap, low, high, label = _display(image, unit)
    shown = slice_axes.imshow(image, cmap=cmap, vmin=low, vmax=high, extent=(-half_x, half_x, -half_y, half_y),
                              interpolation="nearest")
    slice_axes.add_collection(LineCollection(outline(mask, geometry), colors=_OUTLINE, linewidths=1.3))
    slice_axes.set(xlabel="x (mm), patient left →", ylabel="y (mm), anterior →", title="slice and region")
    for x, text in ((0.02, "R"), (0.98, "L")):
        slice_axes.text(x, 0.97, text, transform=slice_axes.transAxes, color=_OUTLINE, fontsize=12, fontweight="bold",
                        ha="left" if x < 0.5 else "right", va="top")
    bar(shown, slice_axes, label)

    extent = (geometry.bin_edges[0], geometry.bin_edges[-1], np.degrees(geometry.arc), 0)
    shown = roi_axes.imshow(sinogram, cmap="inferno", vmin=0, extent=extent, aspect="auto", interpolation="nearest")
    roi_axes.set(title="sinogram of the region")
    bar(shown, roi_axes, "path length (mm)")

    bright = max(float(np.percentile(image_sinogram, 99.8)), 1e-9)
    overlay_axes.imshow(image_sinogram, cmap="gray", vmin=min(float(image_sinogram.min()), 0), vmax=bright,
                        extent=extent, aspect="auto", interpolation="nearest")
    top, colour = max(float(attention.max()), 1e-9), np.array(colors.to_rgb(_ATTENTION))
    fading = colors.LinearSegmentedColormap.from_list("attention", [(*colour, 0.0), (*colour, _OPAQUE)])
    overlay_axes.imshow(attention, cmap=fading, vmin=0, vmax=top, extent=extent, aspect="auto", interpolation="nearest")
    overlay_axes.set(title="attention over the sinogram of the slice")
    over_grey = [tuple(a * colour + (1 - a) * 0.4) for a in (0.0, _OPAQUE)]
    scale = colors.LinearSegmentedColormap.from_list("attention over grey", over_grey)
    bar(ScalarMappable(colors.Normalize(0, top), scale), overlay_axes, attention_label)
    reach = _reach(image_sinogram, geometry)
    if reach < min(half_x, half_y):
        slice_axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    for axes in (roi_axes, overlay_axes):
        axes.set_xlim(max(-reach, extent[0]), min(reach, extent[1]))
        axes.set(xlabel="s (mm)", ylabel="θ (degrees)")
        axes.set_yticks(np.arange(0, np.degrees(geometry.arc) + 1, 45 if geometry.arc < 4 else 90))
    figure.savefig(path, format="png", metadata={"Software": "allpet"})


def outline(mask: np.ndarray, geometry: ParallelGeometry) -> np.ndarray:
    """Return the border of a mask along the pixel edges as segments ``[segment, end, (x, y)]`` in mm."""
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    pixel = geometry.pixel_mm
    left, top = geometry.x[0] - pixel / 2, geometry.y[0] + pixel / 2
    r, c = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    lying = np.stack([np.stack([c, r], -1), np.stack([c + 1, r], -1)], 1)
    r, c = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    standing = np.stack([np.stack([c, r], -1), np.stack([c, r + 1], -1)], 1)
    return np.concatenate([lying, standing]) * [pixel, -pixel] + [left, top]


def _reach(image_sinogram: np.ndarray, geometry: ParallelGeometry) -> float:
    """Return the largest abs(s) in mm that the object reaches, with a margin, so that empty borders are not shown."""
    seen = np.flatnonzero((np.abs(image_sinogram) > 0.01 * np.abs(image_sinogram).max()).any(axis=0))
    if not seen.size:
        return geometry.fov_mm / 2
    return 1.1 * float(np.abs(geometry.bin_edges[[seen[0], seen[-1] + 1]]).max())


def _display(image: np.ndarray, unit: str):
    """Return colour map, limits and label for a slice."""
    finite = image[np.isfinite(image)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if unit == "HU" or (unit == "unknown" and low < -500 and high > 200):
        return "gray", *_CT_WINDOW, "HU" if unit == "HU" else "value (shown like CT)"
    if low < 0:
        return "gray", low, high, unit
    bright = finite[finite > 0]
    return "gray_r", 0.0, float(np.percentile(bright, 99.8)) if bright.size else 1.0, (
        "value (unit unknown)" if unit == "unknown" else unit)
