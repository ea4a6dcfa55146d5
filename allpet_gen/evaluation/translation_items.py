"""What measures of translations share: test items of a task, methods, images of sinograms."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from allpet_physics import bsrem, fbp, osem
from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.counts import poisson_counts
from allpet_physics.point_spread import GaussianPSF
from allpet_physics.radon import RadonOperator

POST_FILTER_MM = 5.0
ITERATIONS, SUBSETS = 2, 16
#: Iterations and subsets of BSREM.
BSREM = (8, 4)


#: Tasks whose target was measured apart from the source, so that its counts can judge an estimate. For the others
#: counts are drawn that are in no source, as if the patient had been scanned once more.
_INDEPENDENT = ("delayed-frame", "tracer-conversion")


@dataclass(frozen=True, eq=False)
class Items:
    """Slices of patients with source, truth and what reconstruction needs.

    One row a target: the two of a separation are two rows, with ``slot`` 0 and 1 of the same ``source``.
    """

    task: str
    options: dict
    geometry: object
    sources: np.ndarray        # (n, angle, bin), counts
    truth: np.ndarray          # (n, angle, bin), expected counts
    measured: np.ndarray       # (n, angle, bin), counts of the target at full dose, none of them in the source
    multiplicative: np.ndarray  # (n, angle, bin), of the target's image
    additive: np.ndarray
    source_multiplicative: np.ndarray
    source_additive: np.ndarray
    patients: np.ndarray
    said: list                 # (tracer, region, other) of each row
    slots: np.ndarray
    masks: dict                # name -> (n, row, col)
    lesion_background: np.ndarray
    psf_mm: np.ndarray         # (n,)

    def __len__(self):
        return len(self.sources)

    def part(self, rows):
        """Return some of the items."""
        alike = {"task", "options", "geometry"}
        changed = {}
        for name, value in vars(self).items():
            if name not in alike:
                changed[name] = ({k: v[rows] for k, v in value.items()} if name == "masks" else
                                 [value[i] for i in rows] if name == "said" else value[rows])
        return replace(self, **changed)


def draw_items(studies, task, *, dose_factor=None, target_slice=1) -> Items:
    """Return one slice of each study for a task; within each region tracers, and pairs of them, go round."""
    rows, seen = [], {}
    for patient, study in studies:
        number = seen.setdefault(study.region, 0)
        seen[study.region] += 1
        rows += _rows(patient, study, number, task, dose_factor, min(target_slice, len(study) - 1))
    def stack(name, dtype=np.float32):
        return np.stack([row[name] for row in rows]).astype(dtype)
    return Items(task, {} if dose_factor is None else {"dose_factor": dose_factor}, studies[0][1].geometry,
                 stack("source", np.int64), stack("truth"), stack("measured", np.int64), stack("multiplicative"),
                 stack("additive"),
                 stack("source_multiplicative"), stack("source_additive"), np.array([r["patient"] for r in rows]),
                 [r["said"] for r in rows], np.array([r["slot"] for r in rows]),
                 {name: np.stack([r["masks"][name] for r in rows]) for name in rows[0]["masks"]},
                 np.stack([r["background"] for r in rows]), np.array([r["psf"] for r in rows]))


def _rows(patient, study, number, task, dose_factor, k):
    from allpet_physics.simulation.task_pairs import low_dose

    tracers = study.tracers
    tracer = tracers[number % len(tracers)]
    other = tracers[(number + 1 + number // len(tracers) % 2) % len(tracers)] if len(tracers) > 1 else None
    first = study.scan(tracer)
    frame = "delayed" if task == "delayed-frame" else "first"
    lesions = (study.lesion_map[k] > 0)
    body = study.mu[k] > 0.005
    organs = _organs(study, k)

    def row(scan, slot, source, source_scan, dose=1.0, truth=None, attenuated=True, both=None):
        multiplicative = np.broadcast_to(scan.multiplicative(attenuated), scan.prompts.shape)[k]
        additive = scan.additive[k] if attenuated else np.zeros_like(scan.additive[k])
        seen = np.broadcast_to(source_scan.multiplicative(True), scan.prompts.shape)[k] * dose
        truth = scan.expected[k] if truth is None else truth
        return {"source": source, "truth": truth,
                "measured": scan.prompts[k] if task in _INDEPENDENT else _counts(truth, task, patient, slot),
                "multiplicative": multiplicative, "additive": additive,
                "source_multiplicative": seen,
                "source_additive": source_scan.additive[k] * dose if both is None else
                source_scan.additive[k] + both.additive[k],
                "patient": patient, "said": (tracer, study.region, other if task.startswith("tracer") else None),
                "slot": slot, "masks": organs | {"lesions": lesions}, "psf": scan.protocol.psf_fwhm_mm,
                "background": _around(lesions, body)}

    if task == "low-dose":
        return [row(first, 0, low_dose(study, tracer, dose_factor)[k], first, 1 / dose_factor)]
    if task == "attenuation-correction":
        return [row(first, 0, first.prompts[k], first, truth=study.unattenuated(tracer)[k], attenuated=False)]
    if task == "delayed-frame":
        return [row(study.scan(tracer, frame), 0, first.prompts[k], first)]
    second = study.scan(other)
    if task == "tracer-conversion":
        return [row(second, 0, first.prompts[k], first)]
    mixed = first.prompts[k] + second.prompts[k]
    return [row(first, 0, mixed, first, both=second), row(second, 1, mixed, first, both=second)]


def _counts(expected, *words):
    """Return Poisson counts, always the same for the same words."""
    digest = hashlib.sha256(repr(words).encode()).digest()
    return poisson_counts(expected, np.random.default_rng(list(digest)))


def _organs(study, k):
    names = {"head": ("brain_grey", "brain_white", "cerebellum"), "chest": ("lung", "heart_muscle", "blood_pool"),
             "abdomen": ("liver", "spleen", "kidney_cortex")}
    out = {}
    for group in sorted({name for names_of in names.values() for name in names_of}):
        out[group] = study.mask(group)[k]
    return out


def _around(lesions, body, inner=2, outer=5):
    from scipy.ndimage import binary_dilation

    if not lesions.any():
        return np.zeros_like(lesions)
    return binary_dilation(lesions, iterations=outer) & ~binary_dilation(lesions, iterations=inner) & body


def images(sinograms, items: Items, *, of_source=False, post_filter_mm=POST_FILTER_MM, method="osem", **options):
    """Return images of sinograms of the target (or of the source), corrected with the true factors, in SUV."""
    operator = RadonOperator(items.geometry)
    multiplicative = items.source_multiplicative if of_source else items.multiplicative
    additive = items.source_additive if of_source else items.additive
    out = np.empty((len(items), *items.geometry.image_shape), np.float32)
    for width in np.unique(items.psf_mm):
        rows = np.flatnonzero(items.psf_mm == width)
        blur = GaussianPSF(items.geometry, float(width)) if width else None
        model = AcquisitionModel(operator, multiplicative=multiplicative[rows], additive=additive[rows],
                                 image_operator=blur)
        counts = np.asarray(sinograms[rows], np.float32)
        if method == "osem":
            out[rows] = osem(model, counts, ITERATIONS, SUBSETS)
        elif method == "fbp":
            out[rows] = fbp((counts - additive[rows]) / multiplicative[rows], items.geometry, filter="hann")
        else:
            level = float(model.sensitivity().max())
            out[rows] = bsrem(model, counts, options["beta"] * level, *BSREM)
    return GaussianPSF(items.geometry, post_filter_mm)(out) if post_filter_mm else out


def projected(image, items: Items):
    """Return the expected counts of the target that images in SUV mean."""
    operator = RadonOperator(items.geometry)
    out = np.empty_like(items.truth)
    for width in np.unique(items.psf_mm):
        rows = np.flatnonzero(items.psf_mm == width)
        blur = GaussianPSF(items.geometry, float(width)) if width else None
        out[rows] = AcquisitionModel(operator, multiplicative=items.multiplicative[rows],
                                     additive=items.additive[rows], image_operator=blur).expected(image[rows])
    return out
