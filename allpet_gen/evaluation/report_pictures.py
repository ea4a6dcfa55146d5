"""The pictures of the report, as PNG files: contact sheets, intervals of every method, bounds."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from allpet_gen.evaluation.classical import scaled
from allpet_gen.evaluation.translation_items import images
from allpet_gen.generated import reconstruct_uncorrected
from allpet_gen.pictures import Panel, contact_sheet

_DPI = 75
#: Colours that are told apart without seeing red and green (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#000000", "#999933",
            "#882255", "#44AA99")
_METRICS = (("psnr", "PSNR, dB"), ("ssim", "SSIM"), ("rmse", "RMSE"))


def draw_all(folder: Path, found, geometry) -> None:
    """Draw what an `Evaluation` has to show."""
    shown, tables = found.shown, found.tables
    if "drawn" in shown:
        if "generator" in shown["drawn"]:
            drawn_sheet(folder / "drawn.png", shown["drawn"]["generator"], tables["classes"], geometry)
        methods_sheet(folder / "methods.png", shown["drawn"], tables["classes"], geometry)
    if "distances" in tables:
        distance_figure(folder / "distances.png", tables["distances"])
    if "pairs" in shown:
        pairs_sheet(folder / "pairs.png", shown["pairs"], geometry)
    if "correction" in shown:
        correction_sheet(folder / "correction.png", *shown["correction"])
    if tables.get("translations"):
        interval_figure(folder / "translations.png", tables["translations"])
    if tables["certificates"]:
        bounds_figure(folder / "bounds.png", tables["certificates"])


def drawn_sheet(path, drawn, classes, geometry) -> None:
    """Draw one sinogram of each class with its image."""
    counts, pictures = drawn
    contact_sheet(path, [Panel(counts[k], pictures[k], title=name, lines=(f"{counts[k].sum():,.0f} counts",))
                         for k, name in enumerate(classes)], geometry, columns=min(9, len(classes)),
                  title="Drawn sinograms", subtitle="the first of each class; images: OSEM, 5 mm Gaussian, no "
                  "corrections", dpi=_DPI)


def methods_sheet(path, drawn: Mapping, classes, geometry) -> None:
    """Draw one sinogram of every third class by every generator, real ones first."""
    chosen = list(range(0, len(classes), max(1, len(classes) // 3)))[:3]
    panels = [Panel(counts[k], pictures[k], title=name, lines=(classes[k],), group=classes[k])
              for k in chosen for name, (counts, pictures) in drawn.items()]
    contact_sheet(path, panels, geometry, columns=len(drawn), title="Generators beside one another",
                  subtitle="the first that each drew; real ones are of test patients", dpi=_DPI)


def pairs_sheet(path, pairs, geometry) -> None:
    """Draw source and targets of each pair."""
    panels = []
    for task, words, source, targets in pairs:
        parts = [("source", source), *((f"target {k + 1}" if len(targets) > 1 else "target", target)
                                       for k, target in enumerate(targets))]
        for title, counts in parts:
            image = reconstruct_uncorrected(np.asarray(counts, np.float32)[None], geometry)[0][0]
            panels.append(Panel(counts, image, title=f"{task}: {title}", lines=(words,), group=task, scale=title))
    contact_sheet(path, panels, geometry, columns=3, beside=True, title="Pairs of drawn sinograms",
                  subtitle="grey scales of their own; images without corrections", image_unit="counts/mm", dpi=_DPI)


def correction_sheet(path, items, made: Mapping) -> None:
    """Draw sources, estimates and truth of attenuation correction."""
    sources = scaled(items, items)
    columns = [("no correction", sources, images(sources, items)),
               *((name, counts, images(counts, items)) for name, counts in made.items()),
               ("truth", items.truth, images(items.truth, items))]
    panels = [Panel(counts[i], pictures[i], title=title, lines=(" ".join(filter(None, items.said[i][:2])),),
                    group=str(i)) for i in range(len(items)) for title, counts, pictures in columns]
    contact_sheet(path, panels, items.geometry, columns=len(columns), title="Attenuation correction",
                  subtitle="the first test patients; the uncorrected source has the total of the truth",
                  image_unit="SUV", dpi=_DPI)


def distance_figure(path, tables: Mapping) -> None:
    """Draw Fréchet distances by tracer with their intervals, and the floor of real against real."""
    chosen = {key: table for key, table in tables.items() if "random" in key}
    figure, axes = _figure(1, len(chosen), 4.6, 3.2)
    for axis, (key, table) in zip(axes[0], chosen.items(), strict=True):
        methods = list(table["all"])
        width = 0.8 / (len(methods) + 1)
        for m, name in enumerate([*methods, "real against real"]):
            rows = [(k, next(iter(t.values()))["frechet"]["floor"] if name == "real against real"
                     else t[name]["frechet"]["generated"]) for k, t in enumerate(table.values())
                    if name in t or name == "real against real"]
            at = np.array([k for k, _ in rows]) + (m - len(methods) / 2) * width
            _dots(axis, at, [row for _, row in rows], "#000000" if name == "real against real" else _COLOURS[m], name)
        axis.set_xticks(range(len(table)), list(table), fontsize=7)
        axis.set_yscale("log")
        axis.set_title(f"Fréchet distance, {key}", fontsize=8)
        axis.legend(fontsize=6)
    _save(figure, path)


def interval_figure(path, tables: Mapping) -> None:
    """Draw PSNR, SSIM and RMSE of every method with their intervals, by row and domain."""
    names = list(dict.fromkeys(m for row in tables.values() for m in row["images"]["methods"]))
    figure, axes = _figure(len(_METRICS), 2, 6.2, 2.6)
    for column, domain in enumerate(("sinograms", "images")):
        for axis, (metric, label) in zip(axes[:, column], _METRICS, strict=True):
            for m, name in enumerate(names):
                rows = [row[domain]["methods"].get(name, {}).get("metrics", {}).get(metric) for row in tables.values()]
                at = np.arange(len(tables)) + (m - (len(names) - 1) / 2) * 0.8 / len(names)
                there = [k for k, row in enumerate(rows) if row is not None]
                _dots(axis, at[there], [rows[k] for k in there], _COLOURS[m % len(_COLOURS)], name)
            axis.set_xticks(range(len(tables)), [name.replace(" ", "\n") for name in tables], fontsize=7)
            axis.set_ylabel(label, fontsize=8)
            if metric == "rmse":
                axis.set_yscale("log")
        axes[0, column].set_title(domain, fontsize=9)
    axes[0, 1].legend(fontsize=6, loc="center left", bbox_to_anchor=(1.01, 0.5))
    _save(figure, path)


def bounds_figure(path, tables: Mapping) -> None:
    """Draw the certified bounds over δ, before and after augmentation, and what miscounting would make of them."""
    figure, axes = _figure(1, len(tables), 4.2, 3.2)
    for axis, (name, kinds) in zip(axes[0], tables.items(), strict=True):
        for k, (kind, table) in enumerate(kinds.items()):
            deltas = [row["delta"] for row in table["rows"]]
            axis.plot(deltas, [row["bound"] for row in table["rows"]], "o-", color=_COLOURS[k],
                      label=f"{kind}, certificate")
            axis.plot(deltas, [row["not_certificates"]["copies"] for row in table["rows"]], "x:", color=_COLOURS[k],
                      label=f"{kind}, copies counted (none)")
            axis.axhline(table["loss"], color=_COLOURS[k], linewidth=0.7, linestyle="--")
        axis.set_xscale("log")
        axis.set_ylim(0, 1.05)
        axis.axhline(1, color="#999999", linewidth=0.7)
        axis.set_xlabel("δ", fontsize=8)
        axis.set_title(f"denoising loss, {name}", fontsize=9)
        axis.legend(fontsize=6)
    _save(figure, path)


def _figure(rows: int, columns: int, width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.tick_params(labelsize=7)
    return figure, axes


def _dots(axis, at, rows, colour: str, label: str) -> None:
    """Draw means with their intervals."""
    mean = np.array([row.get("mean", row.get("value")) for row in rows], float)
    low, high = (np.array([np.nan if row[end] is None else row[end] for row in rows], float) for end in ("low", "high"))
    axis.errorbar(at, mean, yerr=np.abs([mean - low, high - mean]), fmt="o", markersize=3, linewidth=0.9, color=colour,
                  label=label)


def _save(figure, path) -> None:
    figure.savefig(path, dpi=_DPI * 1.6, metadata={"Software": None})
