"""Contact sheets: reconstructions, noise levels and tasks of simulated patients on one page, to be judged by eye.

Images are shown as nuclear medicine reads them: inverted grey, from SUV 0 to the end named below them, the
patient's left on the right. They are reconstructed from the counts (OSEM with the full model or FBP, then a Gaussian),
never the truth itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.emission import osem
from allpet_physics.errors import InputError
from allpet_physics.fbp import fbp
from allpet_physics.point_spread import GaussianPSF
from allpet_physics.radon import RadonOperator
from allpet_physics.scan import Scan
from allpet_physics.simulation.study import Study
from allpet_physics.simulation.task_pairs import low_dose_scan

#: OSEM with as many updates as clinical protocols have, then a filter of this FWHM.
N_ITERATIONS, N_SUBSETS, POST_FILTER_MM = 2, 16, 5.0
#: Where the grey scale ends, in SUV, by region and tracer.
_WINDOWS = {("head", "18F-FDG"): 12, ("head", "18F-DOPA"): 3, ("head", "68Ga-PSMA"): 6,
            ("chest", "18F-FDG"): 4, ("chest", "18F-DOPA"): 3, ("chest", "68Ga-PSMA"): 4,
            ("abdomen", "18F-FDG"): 5, ("abdomen", "18F-DOPA"): 6, ("abdomen", "68Ga-PSMA"): 12}
#: Half width and half height of what is shown, in mm.
_SHOWN = {"head": (118.0, 138.0), "chest": (225.0, 160.0), "abdomen": (215.0, 155.0)}
#: Width of a row, and what lies between panels, below and above them, and around the page, in inches.
_WIDTH, _GAP, _CAPTION, _TITLE, _MARGIN = 12.0, 0.06, 0.2, 0.34, 0.15
#: Height of a sinogram over its width.
_SINOGRAM_ASPECT = 0.7


@dataclass(frozen=True)
class _Panel:
    image: np.ndarray
    caption: str
    top: float
    aspect: float
    """Width over height."""


def reconstruct(scan: Scan, operator: RadonOperator, method: str = "osem", **corrections) -> np.ndarray:
    """Return filtered images of a scan in SUV, shape (slices, rows, cols).

    Parameters
    ----------
    scan : Scan
    operator : RadonOperator
    method : {"osem", "fbp"}
        OSEM with 2 iterations of up to 16 subsets, or FBP, both followed by a Gaussian of 5 mm.
    **corrections
        ``attenuation=False`` and the like, as of `Scan.model` and `Scan.precorrected`.
    """
    if method not in ("osem", "fbp"):
        raise InputError(f"method must be osem or fbp, but was {method!r}.")
    geometry = operator.geometry
    if method == "fbp":
        image = fbp(scan.precorrected(**corrections), geometry)
    else:
        image = osem(scan.model(operator, **corrections), scan.prompts, N_ITERATIONS,
                     min(N_SUBSETS, geometry.n_angles))
    return GaussianPSF(geometry, POST_FILTER_MM)(image)


def cohort_sheet(cohort, path: str | Path, *, columns: int = 6, dpi: int = 84) -> None:
    """Save a sheet of a cohort: patients of every class, then noise levels and tasks of one of them.

    Parameters
    ----------
    cohort : Cohort
        As `read_cohort` gives it.
    path : path-like
        A PNG file.
    columns : int
        Panels beside one another.
    dpi : int
    """
    operator = RadonOperator(cohort.geometry)
    rows = []
    for region in dict.fromkeys(cohort.regions.tolist()):
        here = np.flatnonzero(cohort.regions == region)
        n_tracers, wanted = len(cohort.tracers), columns if _SHOWN[region][0] > 150 else 3 * columns // 2
        panels = []
        for i in _spread_slices(cohort, here, max(1, wanted // n_tracers)):
            study = cohort.study(i)
            panels += [_image(study, tracer, reconstruct(study.scan(tracer), operator)[0],
                              f"#{cohort.patients[i]} {tracer}") for tracer in cohort.tracers[:wanted]]
        rows.append((f"{region.capitalize()}: OSEM of full-dose counts, SUV", panels))
    study = cohort.study(_telling_slice(cohort))
    rows += noise_rows(study, operator) + task_rows(study, operator)
    _save(rows, path, dpi, f"{len(np.unique(cohort.patients))} simulated patients, {len(cohort)} slices, "
          f"{cohort.geometry.n_angles} angles x {cohort.geometry.n_bins} bins")


def study_sheet(study: Study, path: str | Path, *, dpi: int = 84) -> None:
    """Save noise levels and tasks of the first slice of a study as PNG."""
    operator = RadonOperator(study.geometry)
    _save(noise_rows(study, operator) + task_rows(study, operator), path, dpi,
          f"One simulated patient, {study.region}")


def noise_rows(study: Study, operator: RadonOperator) -> list:
    """Return two rows of panels, sinograms and images, from the full dose to the lowest."""
    tracer = study.tracers[0]
    scans = {1: study.scan(tracer)} | {n: low_dose_scan(study, tracer, n) for n in study.settings.dose_factors}
    top = np.percentile(scans[1].prompts[0], 99.8)
    sinograms = [_sinogram(scan.prompts[0], f"1/{n} dose: {_counts(scan.prompts[0])}" if n > 1 else
                           f"full dose: {_counts(scan.prompts[0])}", max(top / n, 1.0)) for n, scan in scans.items()]
    images = [_image(study, tracer, reconstruct(scan, operator)[0], f"1/{n}" if n > 1 else "full dose")
              for n, scan in scans.items()]
    filtered = [_image(study, tracer, reconstruct(scan, operator, "fbp")[0], f"FBP, {f'1/{n}' if n > 1 else 'full'}")
                for n, scan in scans.items()]
    return [(f"Low dose: prompts of {study.prompt(tracer)}, thinned", sinograms), ("OSEM of the same, SUV", images),
            ("FBP of the same, SUV", filtered)]


def task_rows(study: Study, operator: RadonOperator) -> list:
    """Return rows of panels with source and target of the other tasks, as sinograms and as images."""
    tracer, scan = study.tracers[0], study.scan(study.tracers[0])
    delayed, ideal = study.scan(tracer, "delayed"), study.unattenuated(tracer)[0]
    sinograms = [_sinogram(scan.prompts[0], "attenuated: prompts"), _sinogram(ideal, "without attenuation"),
                 _sinogram(scan.prompts[0], "first frame"),
                 _sinogram(delayed.prompts[0], f"delayed frame: {_counts(delayed.prompts[0])}",
                           np.percentile(scan.prompts[0], 99.8))]
    corrected = reconstruct(scan, operator)[0]
    uncorrected = reconstruct(scan, operator, attenuation=False, background=False)[0]
    images = [_image(study, tracer, uncorrected, "not corrected (own scale)", float(np.percentile(uncorrected, 99.7))),
              _image(study, tracer, corrected, "corrected"), _image(study, tracer, corrected, _frame_text(study, 0)),
              _image(study, tracer, reconstruct(delayed, operator)[0], _frame_text(study, 1))]
    rows = [("Attenuation and delayed frame", sinograms), ("The same by OSEM, SUV", images)]
    if len(study.tracers) > 1:
        other = study.tracers[1]
        second = study.scan(other)
        both = scan.prompts[0] + second.prompts[0]
        model = AcquisitionModel(operator, multiplicative=scan.multiplicative()[0],
                                 additive=(scan.additive + second.additive)[0],
                                 image_operator=GaussianPSF(study.geometry, scan.protocol.psf_fwhm_mm))
        mixed = GaussianPSF(study.geometry, POST_FILTER_MM)(
            osem(model, both, N_ITERATIONS, min(N_SUBSETS, study.geometry.n_angles)))
        rows[0][1].extend([_sinogram(both, f"{tracer} + {other}"), _sinogram(second.prompts[0], f"{other}")])
        rows[1][1].extend([_image(study, tracer, mixed, f"{tracer} + {other}"),
                           _image(study, other, reconstruct(second, operator)[0], other)])
        rows[0] = ("Attenuation, delayed frame, two tracers at once and each", rows[0][1])
    return rows


def _spread_slices(cohort, here: np.ndarray, n: int) -> list[int]:
    """Return the middle slices of the first patients, then (where patients are few) their other slices."""
    found = []
    for patient in dict.fromkeys(cohort.patients[here].tolist()):
        own = here[cohort.patients[here] == patient]
        middle = len(own) // 2
        found += [(abs(k - middle), int(i)) for k, i in enumerate(own)]
    return [i for _, i in sorted(found)][:n]


def _telling_slice(cohort) -> int:
    """Return a slice to show the tasks on: a hot lesion in the trunk, and no urine to outshine it."""
    from allpet_physics.simulation.organs import ORGAN_NUMBER

    some = np.flatnonzero(cohort.regions != "head")
    some = (some if len(some) else np.arange(len(cohort)))[:48]
    found = []
    for i in some.tolist():
        n = np.bincount(cohort.group["labels"][cohort.samples[i]].ravel(), minlength=len(ORGAN_NUMBER))
        urine = n[ORGAN_NUMBER["bladder"]] + n[ORGAN_NUMBER["kidney_pelvis"]]
        found.append((urine == 0, n[ORGAN_NUMBER["lesion_hot"]], -i))
    return -max(found)[2]


def _image(study: Study, tracer: str, image: np.ndarray, caption: str, top: float | None = None) -> _Panel:
    half_x, half_y = _SHOWN.get(study.region, _SHOWN["abdomen"])
    geometry = study.geometry
    part = image[np.ix_(np.abs(geometry.y) <= half_y, np.abs(geometry.x) <= half_x)]
    own = top is not None
    top = float(_WINDOWS.get((study.region, tracer), 7)) if top is None else top
    return _Panel(part, caption if own else f"{caption}, 0-{top:g}", top, half_x / half_y)


def _sinogram(sinogram: np.ndarray, caption: str, top: float | None = None) -> _Panel:
    top = float(np.percentile(sinogram, 99.8)) if top is None else float(top)
    return _Panel(sinogram, caption, max(top, 1e-6), 1 / _SINOGRAM_ASPECT)


def _frame_text(study: Study, frame: int) -> str:
    start, end = study.settings.frames_min[frame]
    return f"{start:g}-{end:g} min"


def _counts(prompts: np.ndarray) -> str:
    n = float(prompts.sum())
    return f"{n / 1e6:.2g} million" if n >= 1e6 else f"{n / 1e3:.3g} thousand"


def _save(rows: Sequence, path: str | Path, dpi: int, title: str) -> None:
    """Lay rows of panels out at one width and save them as a grey PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    # No panel is wider than a sixth of a row, so that a short row keeps the scale of the others.
    high = [min((_WIDTH - _GAP * (len(panels) - 1)) / sum(p.aspect for p in panels),
                _WIDTH / 6 / max(p.aspect for p in panels) * (1 if len(panels) < 6 else np.inf))
            for _, panels in rows]
    height = sum(high) + len(rows) * (_CAPTION + _TITLE) + 2 * _MARGIN + _TITLE
    width = _WIDTH + 2 * _MARGIN
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    top = height - _MARGIN
    figure.text(_MARGIN / width, top / height, title, fontsize=13, fontweight="bold", va="top")
    top -= _TITLE
    for (name, panels), panel_height in zip(rows, high, strict=True):
        figure.text(_MARGIN / width, (top - 0.6 * _TITLE) / height, name, fontsize=11, va="center")
        left, bottom = _MARGIN, top - _TITLE - panel_height
        for panel in panels:
            across = panel.aspect * panel_height
            axes = figure.add_axes((left / width, bottom / height, across / width, panel_height / height))
            axes.imshow(panel.image, cmap="gray_r", vmin=0, vmax=panel.top, aspect="auto", interpolation="bilinear")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set(linewidth=0.5, color="0.75")
            axes.text(0.5, -0.02, panel.caption, transform=axes.transAxes, fontsize=7.5, ha="center", va="top")
            left += across + _GAP
        top = bottom - _CAPTION
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("L").save(path, format="PNG", optimize=True)
