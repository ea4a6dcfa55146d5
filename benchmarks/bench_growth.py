"""How the times grow with the image, the angles, the blocks of a set and the batch; drawn with --png."""

from pathlib import Path

import numpy as np
from _measure import interleave, machine, parse, report, standard_geometry
from _peers import AstraCalls, astra_or_reason
from _projection import ASTRA_KERNEL, smooth_image

MODELS = ("strip", "joseph")
COLOURS = {"strip": "#1b6ca8", "joseph": "#c8553d", "blocks": "#2a9d5c", "mask": "#7b4fa3"}


def main(argv=None):
    arguments = parse(__doc__, argv, repeats=3, extra=lambda parser: parser.add_argument(
        "--png", type=Path, metavar="FILE", help="draw the four panels here"))
    size, repeats = arguments.size, arguments.repeats
    astra = astra_or_reason()
    panels = [by_image(astra, size, repeats), by_angles(astra, size // 2, repeats),
              by_blocks(astra, size, repeats), by_batch(astra, size // 2, repeats)]
    for panel in panels:
        print(f"{panel['title']}: {panel['x']}")
        for name, points in panel["series"].items():
            print(f"  {name:24s}" + "  ".join(f"{x:g}: {1e3 * t:.3g} ms" for x, t in points))
    if arguments.png:
        draw(panels, arguments.png)
    return report(__file__, "Growth", [], arguments, panels=panels)


def by_image(astra, size, repeats):
    """Time forward and back projection over the image's size, with as many angles and bins as rows."""
    series = {}
    for n in (size // 8, size // 4, size // 2, size, 2 * size):
        # ASTRA needs tens of seconds beyond the claimed size.
        _projection_times(series, astra if n <= size else None, standard_geometry(n), n, repeats)
    return {"title": "Image size", "x": "rows = columns = angles = bins", "y": "one image, ms", "series": series}


def by_angles(astra, size, repeats):
    """Time forward and back projection of one image over the number of angles."""
    series = {}
    for n in (size // 8, size // 4, size // 2, size, 2 * size):
        _projection_times(series, astra, standard_geometry(size).replace(n_angles=n), n, repeats)
    return {"title": f"Angles, {size} × {size} px", "x": "angles", "y": "one image, ms", "series": series}


def by_blocks(astra, size, repeats):
    """Time the projection of sets of blocks over the number of blocks, as blocks and as a raster mask."""
    from allpet_physics import DynamicMultiMask, project_blocks, project_mask

    geometry, side = standard_geometry(size), size // 16
    buffer = np.empty(geometry.sinogram_shape, np.float32)
    series = {}
    for k in (1, 2, 4, 8, 16, 32, 64, 128):
        blocks = DynamicMultiMask((size, size), n_blocks=k, block_px=side, placement="grid").draw(0)
        mask = blocks.to_mask()
        calls = {"project_blocks": lambda blocks=blocks: project_blocks(blocks, geometry, out=buffer),
                 "project_mask": lambda mask=mask: project_mask(mask, geometry, out=buffer)}
        if astra and k in (1, 128):
            calls["ASTRA strip"] = AstraCalls(astra, geometry, "strip", mask).forward
        _add(series, k, interleave(calls, repeats if k not in (1, 128) else 1)[0])
    return {"title": f"Blocks of {side} px, {size} × {size} px", "x": "blocks in the set", "y": "one mask, ms",
            "series": series}


def by_batch(astra, size, repeats):
    """Time forward projections and block sets over the size of the batch, per item."""
    from allpet_physics import RadonOperator, block_catalogue, project_blocks

    geometry = standard_geometry(size)
    catalogue = block_catalogue((size, size), size // 8)
    operators = {model: RadonOperator(geometry, model) for model in MODELS}
    series = {}
    for n in (1, 2, 4, 8, 16, 32, 64):
        images = np.repeat(smooth_image(size)[np.newaxis], n, axis=0)
        buffer = np.empty((n, *geometry.sinogram_shape), np.float32)
        calls = {f"{model} forward": lambda a=a, x=images: a(x) for model, a in operators.items()}
        calls["project_blocks"] = lambda b=catalogue[:n], out=buffer: project_blocks(b, geometry, out=out)
        times = interleave(calls, repeats, dict.fromkeys(calls, n))[0]
        if astra and n == 1:
            theirs = {f"ASTRA {k}": AstraCalls(astra, geometry, k, images[0]).forward for k in ASTRA_KERNEL.values()}
            times |= interleave(theirs, 1)[0]
        _add(series, n, times)
    for name in [name for name in series if name.startswith("ASTRA")]:
        series[name].append((64, series[name][0][1]))  # one slice a call: the time per slice is what it is
    return {"title": f"Batch, {size} × {size} px, {size} angles", "x": "slices or sets in the batch",
            "y": "per slice or set, ms", "series": series}


def _projection_times(series, astra, geometry, n, repeats):
    from allpet_physics import RadonOperator

    image = smooth_image(geometry.image_shape[0])
    calls = {}
    for model in MODELS:
        operator = RadonOperator(geometry, model)
        sinogram = operator(image)
        calls[f"{model} forward"] = lambda a=operator: a(image)
        calls[f"{model} back"] = lambda a=operator, y=sinogram: a.T(y)
    times = interleave(calls, repeats)[0]
    if astra:
        times |= interleave({f"ASTRA {k}": AstraCalls(astra, geometry, k, image).forward
                             for k in ASTRA_KERNEL.values()}, 1)[0]
    _add(series, n, times)


def _add(series, x, timings):
    for name, timing in timings.items():
        series.setdefault(name, []).append((x, timing.median))


def draw(panels, path):
    """Draw the panels with logarithmic axes, ours as lines and the peers dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, NullLocator

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8.6), constrained_layout=True)
    for axis, panel in zip(axes.flat, panels, strict=True):
        for name, points in panel["series"].items():
            x, seconds = np.array(points).T
            peer = name.startswith("ASTRA")
            key = {"ASTRA linear": "joseph", "ASTRA strip": "strip", "project_blocks": "blocks",
                   "project_mask": "mask"}.get(name, name.split()[0])
            style = {"linestyle": "--", "marker": None if panel is panels[3] else "s"} if peer else {
                "linestyle": "-", "marker": "v" if name.endswith("back") else "o"}
            axis.loglog(x, 1e3 * seconds, color=COLOURS[key], alpha=0.65 if peer else 1, markersize=4.5,
                        label=_label(name), **style)
        ticks = sorted({x for points in panel["series"].values() for x, _ in points})
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set(title=panel["title"], xlabel=panel["x"], ylabel=panel["y"])
        axis.grid(alpha=0.3)
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.22)  # room for the legend above the lines
        axis.legend(fontsize=8, ncols=2, loc="upper left", frameon=False)
    m = machine()
    figure.suptitle(f"Time against size on {m['cpu']}, {m['threads']} threads "
                    f"(ASTRA {m['versions'].get('astra-toolbox', 'absent')}: one thread)", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _label(name):
    return name if name.startswith(("ASTRA", "project")) else f"allpet {name.replace('joseph', 'Joseph')}"


if __name__ == "__main__":
    main()
