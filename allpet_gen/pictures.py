"""Contact sheets of sinograms and their images, as nuclear medicine reads them: inverted grey, axes in mm and degrees.

The patient's left is on the right of an image. Sinograms of one group share a grey scale, images of one group another,
both from zero to the value that is written under them. All images of a row show the same part of their field of view.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

#: Where a grey scale ends, among the values that it shows.
_QUANTILE = 0.998
#: What is shown of an image: this part of the pixels that are brighter than this part of the grey scale, rounded up by
#: steps. The outermost part of the disc that all angles see whole is left out of account: randoms pile up there.
_SHOWN, _BRIGHT, _STEP_MM, _RIM = 0.99, 0.25, 25.0, 0.9
#: In inches: a panel's side, gaps, a line of text, the margin, and what the labels of an axis need beside and below.
_SIDE, _GAP, _LINE, _MARGIN, _BESIDE, _BELOW = 1.75, 0.2, 0.15, 0.2, 0.5, 0.4
#: Width of a character of the subtitle and of the title, and the least width of a sheet, in inches.
_CHARACTER, _TITLE_CHARACTER, _NARROWEST = 0.075, 0.13, 5.0


@dataclass(frozen=True, eq=False)
class Panel:
    """One sinogram of a sheet with its image.

    Attributes
    ----------
    sinogram : ndarray, shape (angle, bin)
        Counts.
    image : ndarray or None, shape (row, col)
    title : str
    lines : tuple of str
        Written below.
    group : str
        Panels of a group share their grey scales.
    scale : str
        Those of a group that have another name here share scales of their own.
    """

    sinogram: np.ndarray
    image: np.ndarray | None = None
    title: str = ""
    lines: tuple[str, ...] = ()
    group: str = ""
    scale: str = ""


def contact_sheet(path: str | Path, panels: Sequence[Panel], geometry: ParallelGeometry, *, columns: int = 8,
                  beside: bool | None = None, title: str = "", subtitle: str = "", image_unit: str = "counts/mm",
                  dpi: int = 110) -> None:
    """Save sinograms with their images as a PNG file.

    Parameters
    ----------
    path : path-like
    panels : sequence of Panel
        All with an image, or all without.
    geometry : ParallelGeometry
        Of the sinograms and the images.
    columns : int
        The most panels in a row; a new group begins a row of its own where there are several in one group.
    beside : bool, optional
        Whether an image stands beside its sinogram, not below it; by default where there is one column.
    title, subtitle : str
        The latter is broken into lines as wide as the panels.
    image_unit : str
    dpi : int
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not panels or len({p.image is None for p in panels}) > 1:
        raise InputError("panels must be at least one, all with an image or all without.")
    with_image = panels[0].image is not None
    rows = _rows(panels, columns)
    most = max(map(len, rows))
    beside = most == 1 if beside is None else beside
    scales = {key: _scales([p for p in panels if (p.group, p.scale) == key])
              for key in {(p.group, p.scale) for p in panels}}
    wide, high = ((2, 1) if beside else (1, 2)) if with_image else (1, 1)
    cell_width = wide * _SIDE + (wide - 1) * _BESIDE
    texts = {id(p): [*p.lines, *_scale_lines(*scales[p.group, p.scale], with_image, beside, image_unit)]
             for p in panels}
    cell_height = high * (_SIDE + _BELOW) + _LINE * (1.6 + max(map(len, texts.values()))) + _GAP
    width = max(_MARGIN + _BESIDE + most * (cell_width + _GAP) + _MARGIN,
                2 * _MARGIN + _TITLE_CHARACTER * len(title), _NARROWEST)
    fits = int((width - 2 * _MARGIN) / _CHARACTER)
    subtitle = "\n".join(textwrap.fill(text, fits, subsequent_indent="   ") for text in subtitle.splitlines())
    head = _MARGIN + (0.36 if title else 0) + (0.18 * (1 + subtitle.count("\n")) + 0.12 if subtitle else 0)
    height = head + len(rows) * cell_height + _MARGIN
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)

    def write(left, top, text, **style):
        figure.text(left / width, 1 - top / height, text, va="top", linespacing=1.3, **style)

    def axes(left, top):
        return figure.add_axes((left / width, 1 - (top + _SIDE) / height, _SIDE / width, _SIDE / height))

    write(_MARGIN, _MARGIN, title, fontsize=14, fontweight="bold")
    write(_MARGIN, _MARGIN + 0.34, subtitle, fontsize=9.5, color="0.3")
    for i, row in enumerate(rows):
        above = head + i * cell_height
        top = above + 1.3 * _LINE
        half = shown_half_width([p.image for p in row], geometry) if with_image else 0.0
        for j, panel in enumerate(row):
            left = _MARGIN + _BESIDE + j * (cell_width + _GAP)
            counts, brightest = scales[panel.group, panel.scale]
            write(left, above, panel.title, fontsize=9.5, fontweight="bold")
            _sinogram(axes(left, top), panel.sinogram, geometry, counts, j == 0)
            if with_image:
                place = (left + _SIDE + _BESIDE, top) if beside else (left, top + _SIDE + _BELOW)
                _image(axes(*place), panel.image, geometry, brightest, half, j == 0 or beside)
            write(left, top + high * (_SIDE + _BELOW), "\n".join(texts[id(panel)]), fontsize=7.8, color="0.15")
    figure.savefig(path, format="png", metadata={"Software": "allpet"})


def shown_half_width(images: Sequence[np.ndarray], geometry: ParallelGeometry) -> float:
    """Return half the side, in mm, of the centred square that holds what is bright in all of some images.

    Images that were not corrected hold randoms up to the rim of the field of view, so it is not their total that says
    where the patient is.
    """
    x, y = np.meshgrid(np.abs(geometry.x), np.abs(geometry.y))
    inside = np.hypot(x, y) < _RIM * geometry.fov_mm / 2
    away = np.maximum(x, y)
    reach = [np.quantile(away[bright], _SHOWN) for image in images
             if (bright := inside & (image > _BRIGHT * max(_top([image]), 1e-6))).any()]
    most = away.max() + geometry.pixel_mm / 2
    return float(min(_STEP_MM * (np.ceil(max(reach) / _STEP_MM) + 1), most)) if reach else float(most)


def _rows(panels, columns: int) -> list[list[Panel]]:
    """Return panels in rows: of one group each, unless every group has a single panel."""
    groups = dict.fromkeys(p.group for p in panels)
    if len(groups) == len(panels):
        rows = [list(panels)]
    else:
        rows = [[p for p in panels if p.group == group] for group in groups]
    return [row[k:k + columns] for row in rows for k in range(0, len(row), columns)]


def _scales(panels) -> tuple[float, float]:
    """Return where the grey scales of a group end, for sinograms and images."""
    return (_top([p.sinogram for p in panels]),
            _top([p.image for p in panels]) if panels[0].image is not None else 1.0)


def _top(arrays) -> float:
    return float(max(np.quantile(np.stack(arrays), _QUANTILE), 1e-6))


def _scale_lines(counts: float, brightest: float, with_image: bool, together: bool, unit: str) -> list[str]:
    texts = [f"sinogram 0 to {_number(counts)} counts"]
    if with_image:
        texts.append(f"image 0 to {_number(brightest)} {unit}")
    return [", ".join(texts)] if together else texts


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _sinogram(axes, sinogram, geometry, top, left: bool) -> None:
    degrees = np.degrees(geometry.arc)
    axes.imshow(sinogram, cmap="gray_r", vmin=0, vmax=top, aspect="auto", interpolation="nearest",
                extent=(geometry.bin_edges[0], geometry.bin_edges[-1], degrees, 0))
    axes.set_xticks(_ticks(geometry.fov_mm / 2))
    axes.set_yticks(np.arange(0, degrees + 1, degrees / 4))
    _finish(axes, "s (mm)", "θ (degrees)", left)


def _image(axes, image, geometry, top, half, left: bool) -> None:
    rows, cols = geometry.image_shape
    x, y = cols * geometry.pixel_mm / 2, rows * geometry.pixel_mm / 2
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=top, extent=(-x, x, -y, y), interpolation="nearest")
    axes.set(xlim=(-half, half), ylim=(-half, half), xticks=_ticks(half), yticks=_ticks(half))
    for place, side in ((0.03, "R"), (0.97, "L")):
        axes.text(place, 0.97, side, transform=axes.transAxes, fontsize=7, color="0.35", va="top",
                  ha="left" if place < 0.5 else "right")
    _finish(axes, "x (mm)", "y (mm)", left)


def _ticks(half: float) -> np.ndarray:
    """Return round positions in mm within a half width, two or so at either side of zero."""
    step = max(50 * np.round(half / 120), 50)
    n = np.floor(0.95 * half / step)
    return np.arange(-n, n + 1) * step


def _finish(axes, across: str, up: str, left: bool) -> None:
    axes.tick_params(labelsize=6.5, length=2, pad=1.5, labelleft=left)
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color="0.6")
    axes.set_xlabel(across, fontsize=7.5, labelpad=1)
    if left:
        axes.set_ylabel(up, fontsize=7.5, labelpad=1)
