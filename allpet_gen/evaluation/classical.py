"""What can be made of counts without training: filters and reconstructions, tuned on other patients."""

import numpy as np
from scipy.ndimage import gaussian_filter

from allpet_gen.evaluation.translation_items import BSREM, images, projected
from allpet_physics import bsrem
from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.radon import RadonOperator

FILTERS_MM = (0.0, 5.0, 8.0, 12.0, 16.0, 24.0)
BLURS_BINS = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)
STRENGTHS = (0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
#: What is chosen from, and by what.
GRIDS = ("mean PSNR", FILTERS_MM, BLURS_BINS, STRENGTHS)


def classical(items, tuning) -> dict:
    """Return sinograms and images by method, and the settings that were chosen.

    Each setting is chosen in the domain where the method works: filters and priors of images by images, those of
    sinograms by sinograms. Images are there for methods that make their own.
    """
    counts, pictures, chosen = {"source": scaled(items, tuning)}, {}, {}
    if items.task == "low-dose":
        truth = images(tuning.truth, tuning)
        for name, values, make in (("fbp", FILTERS_MM, _fbp), ("osem", FILTERS_MM, _osem),
                                   ("bsrem", STRENGTHS, _bsrem)):
            chosen[name] = best(tuning, values, make, truth)
            pictures[name] = make(items, chosen[name])
        counts |= {name: projected(picture, items) for name, picture in pictures.items()}
        for name, values, make in (("gaussian", BLURS_BINS, _blurred),
                                   ("bsrem, no factors", STRENGTHS, _without_factors)):
            chosen[name] = best(tuning, values, make, tuning.truth)
            counts[name] = make(items, chosen[name])
    if items.task == "attenuation-correction":
        # The ceiling: the same counts with the attenuation, scatter and randoms of the CT.
        pictures["with CT"] = images(items.sources, items, of_source=True)
        counts["with CT"] = projected(pictures["with CT"], items)
    return {"counts": counts, "pictures": pictures, "chosen": chosen}


def scaled(items, tuning=None) -> np.ndarray:
    """Return the sources at full dose, or brought to the counts of their targets as in other patients.

    A low dose is multiplied by its factor. For other tasks the factor is the ratio of targets to sources of `tuning`,
    for the same region and tracers where they are among them: decay, the lack of attenuation, the share of a mixture.
    """
    if items.task == "low-dose":
        return items.sources * np.float32(items.options["dose_factor"])
    known = {}
    for words, slot, source, truth in zip(tuning.said, tuning.slots, tuning.sources, tuning.truth, strict=True):
        for key in _from_near_to_far(words, slot):
            known.setdefault(key, []).append(float(truth.sum() / source.sum()))
    gains = [np.mean(next(known[key] for key in _from_near_to_far(words, slot) if key in known))
             for words, slot in zip(items.said, items.slots, strict=True)]
    return items.sources * np.asarray(gains, np.float32)[:, None, None]


def _from_near_to_far(words, slot) -> list[tuple]:
    tracer, region, other = words
    return [(tracer, region, other, int(slot)), (region, int(slot)), (int(slot),)]


def best(tuning, values, make, truth):
    """Return the value that is best for other patients in what is reported, the mean of their PSNR.

    A mean of squared errors would be decided by the hottest slices alone.
    """
    return min(values, key=lambda v: float(np.log(np.square(make(tuning, v) - truth).mean(axis=(1, 2))).mean()))


def _fbp(items, width_mm):
    return images(items.sources, items, of_source=True, post_filter_mm=width_mm, method="fbp")


def _osem(items, width_mm):
    return images(items.sources, items, of_source=True, post_filter_mm=width_mm)


def _bsrem(items, beta):
    return images(items.sources, items, of_source=True, post_filter_mm=0, method="bsrem", beta=beta)


def _blurred(items, width):
    return gaussian_filter(scaled(items), (0, width, width), mode=("constant", "nearest", "constant"))


def _without_factors(items, beta):
    """Return what BSREM makes of counts alone, as a bridge gets them: projected again, at full dose."""
    model = AcquisitionModel(RadonOperator(items.geometry))
    image = bsrem(model, items.sources.astype(np.float32), beta * float(model.sensitivity().max()), *BSREM)
    return model.expected(image) * np.float32(items.options["dose_factor"])
