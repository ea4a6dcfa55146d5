"""Studies of anatomy that nobody here made: a head by FreeSurfer, an abdomen by TotalSegmentator and its CT."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from allpet_physics.simulation import from_freesurfer, from_totalsegmentator, simulate_study
from allpet_physics.simulation.lesions import add_lesions

REGIONS = ("head", "abdomen")
#: Share of the slices at either end of a label map that is left out: there it is cut off.
_EDGE = 0.15
#: Slices of a study; lesions may lie in any of them.
_SLICES = 3
_CT_KVP = 120.0


def real_studies(folder, cohort, region, n, seed):
    """Return `n` studies of one real person, at as many heights: (number, Study), scanned as a cohort's patients are.

    Uptake, lesions and counts are drawn for each; bones, organs and outline are the person's own. An interval over them
    is one over heights, tracers, lesions and noise, not over people: there is one.

    Parameters
    ----------
    folder : path-like
        With ``brain`` and ``ct_abdomen``.
    cohort : Cohort
        Whose geometry, tracers and protocols are taken.
    region : str
        One of `REGIONS`.
    n, seed : int
    """
    folder, geometry = Path(folder), cohort.geometry
    rng = np.random.default_rng((seed, REGIONS.index(region)))
    about = {"size": geometry.image_shape[0], "fov_mm": geometry.image_shape[0] * geometry.pixel_mm, "rng": rng,
             "slice_mm": cohort.card["parameters"]["slice_mm"][region], "region": region}
    if region == "head":
        person = from_freesurfer(folder / "brain" / "labels.nii.gz", names=folder / "brain" / "labels.ctab", **about)
    else:
        there = folder / "ct_abdomen"
        person = from_totalsegmentator(there / "labels.nii.gz", there / "ct.nii.gz", kvp=_CT_KVP,
                                       names=there / "labels.json", **about)
    height = len(person.labels)
    firsts = np.linspace(_EDGE * height, (1 - _EDGE) * height - _SLICES, n).round().astype(int)
    found = []
    for k, first in enumerate(firsts):
        key = (seed, REGIONS.index(region), k)
        part = _part(person, slice(first, first + _SLICES), key)
        found.append((k, simulate_study(part, (*key, 0), geometry, cohort.tracers, cohort.settings)))
    return found


def _part(person, which: slice, seed):
    """Return some slices of a patient without lesions, and draw lesions in them."""
    labels, lesions = add_lesions(person.labels[which], person.pixel_mm, person.slice_mm, person.region, None,
                                  np.random.default_rng(seed))
    return replace(person, labels=labels, lesions=lesions, texture=person.texture[which],
                   hu=None if person.hu is None else person.hu[which])
