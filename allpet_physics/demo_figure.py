"""The picture of the demonstration: images above, sinograms below."""

from pathlib import Path

import numpy as np

from allpet_physics.demo import FBP_CUTOFF, N_ITERATIONS, N_SUBSETS, POST_FILTER_MM, Demonstration
from allpet_physics.preview import outline

_COLOURS = {"hot": "#e8430a", "cold": "#0077c8"}
_BRIGHTEST_SUV = 8.0
#: What is shown of the image, half width and half height in mm: the thorax with a margin.
_HALF_X, _HALF_Y = 215.0, 145.0
_OPAQUE = 0.9
#: Counts under the attention are drawn paler than alone, so that the colours stand out.
_PALE = 0.7


def save_figure(path: str | Path, demo: Demonstration, dpi: int = 120) -> None:
    """Save the six panels of a demonstration as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    scan, geometry = demo.scan, demo.scan.geometry
    figure = Figure(figsize=(15.6, 8.6), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3, left=0.047, right=0.93, bottom=0.065, top=0.885, wspace=0.24, hspace=0.22,
                              height_ratios=(1, 1.1))
    axes = [[figure.add_subplot(grid[i, j]) for j in range(3)] for i in range(2)]
    figure.text(0.012, 0.962, "From counts to attention in the sinogram", fontsize=17, fontweight="bold", va="center")
    figure.text(0.012, 0.924, f"One axial slice of a thorax phantom after FDG, {geometry.n_angles} angles × "
                f"{geometry.n_bins} bins of {geometry.bin_mm:.2f} mm, with attenuation, scatter, randoms and Poisson "
                "noise", fontsize=11, va="center", color="0.3")

    half_x, half_y = (n * geometry.pixel_mm / 2 for n in geometry.image_shape[::-1])
    box = (-half_x, half_x, -half_y, half_y)
    sinogram_box = (geometry.bin_edges[0], geometry.bin_edges[-1], np.degrees(geometry.arc), 0)

    def bar(shown, panel, label):
        figure.colorbar(shown, cax=panel.inset_axes((1.02, 0, 0.035, 1))).set_label(label, labelpad=3)

    pictures = ((scan.activity, "a  True activity"),
                (demo.fbp, f"b  FBP, Hann window, cutoff {FBP_CUTOFF:g} Nyquist"),
                (demo.osem, f"c  OSEM, {N_ITERATIONS} × {N_SUBSETS}, {POST_FILTER_MM:g} mm filter, and its regions"))
    for panel, (image, title) in zip(axes[0], pictures, strict=True):
        shown = panel.imshow(image, cmap="gray_r", vmin=0, vmax=_BRIGHTEST_SUV, extent=box)
        panel.set(xlim=(-_HALF_X, _HALF_X), ylim=(-_HALF_Y, _HALF_Y), xlabel="x (mm)")
        panel.set_title(title, loc="left", fontsize=12)
        bar(shown, panel, "SUV (g/ml)")
        for x, side in ((0.02, "R"), (0.98, "L")):
            panel.text(x, 0.96, side, transform=panel.transAxes, fontsize=11, color="0.35", va="top",
                       ha="left" if x < 0.5 else "right")
    for name, mask in demo.regions.items():
        axes[0][2].add_collection(LineCollection(outline(mask, geometry), colors=_COLOURS[name], linewidths=1.6))
    _name_lesions(axes[0][2], scan)

    counts, attention, overlay = axes[1]
    brightest = max(np.percentile(scan.counts, 99.9), 1)  # few counts leave most bins at zero
    shown = counts.imshow(scan.counts, cmap="gray_r", vmin=0, vmax=brightest, extent=sinogram_box, aspect="auto")
    bar(shown, counts, "prompts (counts per bin)")
    white = np.ones((*geometry.sinogram_shape, 3))
    grey = white - _PALE * np.clip(scan.counts / brightest, 0, 1)[..., None]
    attention.imshow(_painted(white, demo.attention, 1.0), extent=sinogram_box, aspect="auto")
    overlay.imshow(_painted(grey, demo.attention, _OPAQUE), extent=sinogram_box, aspect="auto")
    for panel, opaque in ((attention, 1.0), (overlay, _OPAQUE)):
        _attention_bars(panel, demo.attention, opaque, "attention (path / longest path)" if panel is overlay else "")
    millions = scan.counts.sum() / 1e6
    titles = (f"d  Measured: {millions:.1f} million prompts ({scan.n_trues / 1e6:.1f} true)",
              "e  Attention: projected regions", "f  Attention over the measured sinogram")
    for panel, title in zip(axes[1], titles, strict=True):
        panel.set(xlim=(-_HALF_X, _HALF_X), xlabel="s (mm)")
        panel.set_yticks(np.arange(0, np.degrees(geometry.arc) + 1, 45))
        panel.set_title(title, loc="left", fontsize=12)
    axes[0][0].set_ylabel("y (mm)")
    axes[1][0].set_ylabel("θ (degrees)")
    for panel in (*axes[0][1:], *axes[1][1:]):
        panel.tick_params(labelleft=False)
    figure.savefig(path, format="png", metadata={"Software": "allpet"})


def _name_lesions(panel, scan) -> None:
    from matplotlib.patheffects import withStroke

    # Where each name stands, in mm.
    for name, kind, place in (("lung lesion", "hot", (-150, -122)), ("lymph node", "hot", (10, -100)),
                              ("liver cyst", "cold", (-165, 100))):
        rows, columns = np.nonzero(scan.organs[name])
        centre = scan.geometry.x[columns].mean(), scan.geometry.y[rows].mean()
        panel.annotate(name, centre, place, color=_COLOURS[kind], fontsize=11, fontweight="bold", ha="center",
                       arrowprops={"arrowstyle": "-", "color": _COLOURS[kind], "lw": 1.0, "shrinkB": 9},
                       path_effects=[withStroke(linewidth=2.5, foreground="white")])


def _painted(base: np.ndarray, attention: dict, opaque: float) -> np.ndarray:
    """Return an RGB picture with each region's attention laid over it in its colour."""
    from matplotlib.colors import to_rgb

    out = np.array(base, dtype=np.float64)
    for name, values in attention.items():
        alpha = opaque * values[..., None]
        out = (1 - alpha) * out + alpha * np.array(to_rgb(_COLOURS[name]))
    return np.clip(out, 0, 1)


def _attention_bars(panel, attention: dict, opaque: float, label: str) -> None:
    """Draw one bar for each region beside a panel, from no attention to full."""
    ramp = np.linspace(0, 1, 256)[:, None]
    for k, name in enumerate(attention):
        last = k == len(attention) - 1
        axes = panel.inset_axes((1.02 + 0.042 * k, 0, 0.038, 1))
        axes.imshow(_painted(np.ones((256, 1, 3)), {name: ramp}, opaque), extent=(0, 1, 0, 1), aspect="auto",
                    origin="lower")
        axes.set_xticks([])
        axes.text(0.5, 0.97, name, rotation=90, fontsize=10, color="white", ha="center", va="top")
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")
        if last:
            axes.set_ylabel(label)
        else:
            axes.set_yticks([])
