"""Real anatomy in: label maps of TotalSegmentator and FreeSurfer, with a CT or without, become patients."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import GeometryError, InputError, MetadataError
from allpet_physics.simulation.anatomy import FOV_MM, Patient
from allpet_physics.simulation.ct import check_calibrated, hu_to_mu
from allpet_physics.simulation.label_filling import HOLLOW, fill_around_labels, fill_from_ct, fill_head, split_hollow
from allpet_physics.simulation.label_names import (
    TOTALSEGMENTATOR_V2,
    freesurfer_name,
    freesurfer_organ,
    totalsegmentator_organ,
)
from allpet_physics.simulation.lesions import Lesion, add_lesions
from allpet_physics.simulation.organs import ORGAN_NAME, ORGAN_NUMBER
from allpet_physics.simulation.texture import organ_texture

__all__ = ["from_freesurfer", "from_totalsegmentator", "hu_to_mu", "read_label_names", "write_label_mapping"]


def from_totalsegmentator(labels, ct=None, *, kvp: float | None = None, names=None, mapping=None,
                          region: str = "abdomen", size: int = 256, fov_mm: float = FOV_MM,
                          slice_mm: float | None = None, lesions=0, rng=0) -> Patient:
    """Return a patient from a label map of TotalSegmentator (v2, task "total").

    Organs that the map holds as one are split: kidneys into cortex and pelvis, stomach and bowel into wall and
    content, by depth below the surface. The heart is blood without a wall (the task "total" has no chambers; the
    names of "heartchambers_highres" are known too). What has no label becomes fat, muscle, bone, gas and skin by the
    CT, or, without one, layers around the organs.

    Parameters
    ----------
    labels : Volume, str or Path
        Integer labels.
    ct : Volume, str or Path, optional
        CT in HU, on any grid.
    kvp : float, optional
        Tube voltage in kV, for `Patient.mu_map`; may also be given there.
    names : mapping or path, optional
        Number to name; built in by default.
    mapping : mapping or path, optional
        Name to organ, for names that are not known, or against the built-in choice. JSON; see `write_label_mapping`,
        whose empty entries (null) are not filled in yet and change nothing.
    region : str
        A word for the records, and which sites lesions are drawn from.
    size : int
        Rows and columns of the patient.
    fov_mm : float
        Side of its slices, centred on the body.
    slice_mm : float, optional
        Distance of its slices; the label map's by default.
    lesions : None, int or sequence of LesionSpec
        As in `draw_patient`; none by default.
    rng : numpy.random.Generator, int or sequence of int
        Draws texture and lesions.

    Raises
    ------
    InputError
        Unknown names, or names that map to an unknown organ.
    MetadataError
        A CT that is not in HU, label numbers without a name.
    GeometryError
        A label map without any organ, or a CT that does not overlap it.
    """
    table = read_label_names(TOTALSEGMENTATOR_V2 if names is None else names)
    return _patient(labels, ct, kvp, lambda n: table.get(n), totalsegmentator_organ, mapping, region, size, fov_mm,
                    slice_mm, lesions, rng, "TotalSegmentator")


def from_freesurfer(labels, ct=None, *, kvp: float | None = None, names=None, mapping=None, region: str = "head",
                    size: int = 256, fov_mm: float = FOV_MM, slice_mm: float | None = None, lesions=0,
                    rng=0) -> Patient:
    """Return a patient from a label map of FreeSurfer (aseg, aparc+aseg, or gtmseg with the head around it).

    Where the map holds a brain alone and there is no CT, fluid, skull and scalp are put around it. Parameters and
    errors are those of `from_totalsegmentator`; `names` also reads a FreeSurfer colour table (``.ctab``).
    """
    if names is None:
        def name_of(number):
            return freesurfer_name(number)
    else:
        name_of = read_label_names(names).get
    return _patient(labels, ct, kvp, name_of, freesurfer_organ, mapping, region, size, fov_mm, slice_mm, lesions, rng,
                    "FreeSurfer")


def read_label_names(names) -> dict[int, str]:
    """Return number to name from a mapping, a JSON file ``{"1": "spleen"}`` or a FreeSurfer colour table.

    Raises
    ------
    MetadataError
        A file that is neither.
    """
    try:
        if not isinstance(names, Mapping):
            text = Path(names).read_text(encoding="utf-8")
            if Path(names).suffix.lower() == ".json":
                names = json.loads(text)
            else:
                rows = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
                names = {row[0]: row[1] for row in rows}
        return {int(number): str(name) for number, name in names.items()}
    except (OSError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise MetadataError('names must map label number to name, {"1": "spleen"}, or be a JSON file or a FreeSurfer '
                            f"colour table that does, but could not be used ({error}).") from None


def write_label_mapping(path, names, known=totalsegmentator_organ) -> None:
    """Write a JSON file from name to organ to fill in: null where a name is not known.

    Parameters
    ----------
    path : str or Path
        Must not exist.
    names : iterable of str, or what `read_label_names` takes
    known : callable
        `totalsegmentator_organ` or `freesurfer_organ` of `allpet_physics.simulation.label_names`.

    Raises
    ------
    InputError
        A file that exists.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"path must not exist, but {path} does; choose another name.")
    if isinstance(names, (Mapping, str, Path)):
        names = read_label_names(names).values()
    path.write_text(json.dumps({name: known(name) for name in names}, indent=1) + "\n", encoding="utf-8")


def _patient(labels, ct, kvp, name_of, known, mapping, region, size, fov_mm, slice_mm, lesions, rng, tool):
    from allpet_physics.io.volume import resample_to

    size, fov_mm = as_positive_int("size", size, minimum=16), as_positive_float("fov_mm", fov_mm)
    labels = _volume("labels", labels)
    values = labels.data
    if values.dtype.kind == "f" and np.array_equal(values, np.round(values)):
        values = values.astype(np.int64)
    if values.dtype.kind not in "iu":
        raise InputError(f"labels must be integers, but their dtype was {labels.data.dtype}; threshold an image first.")
    organs = _organs_of(values, name_of, known, _mapping(mapping), tool)
    grid = _axial_grid(labels, values, organs, size, fov_mm, slice_mm)
    moved = resample_to(labels.replace(data=values), grid, order=0).axial_slices()
    spacing = (float(grid.voxel_mm[2]), fov_mm / size, fov_mm / size)
    out = np.zeros(moved.shape, np.uint8)
    masks = {}
    for number, organ in organs.items():
        where = moved == number
        if organ in HOLLOW:
            masks[organ] = masks.get(organ, False) | where
        else:
            out[where] = ORGAN_NUMBER[organ]
    hu = None
    if ct is not None:
        ct = _volume("ct", ct)
        check_calibrated(ct.data)
        hu = resample_to(ct.replace(data=np.asarray(ct.data, np.float32)), grid, order=1, fill=-1024.0).axial_slices()
        if not (hu > -900).any():
            raise GeometryError("ct must overlap the label map in space, but does not; check that both are of one "
                                "patient and were not moved.")
    cysts = out == ORGAN_NUMBER["lesion_cold"]
    out[cysts] = ORGAN_NUMBER["kidney_cortex"]
    split_hollow(out, masks, spacing, hu)
    head_alone = tool == "FreeSurfer" and not np.isin(out, [ORGAN_NUMBER["skull"], ORGAN_NUMBER["scalp"]]).any()
    if hu is not None:
        fill_from_ct(out, hu, spacing)
    elif head_alone:
        fill_head(out, spacing)
    elif tool != "FreeSurfer":
        fill_around_labels(out, spacing)
    rng = np.random.default_rng(rng)
    child = [np.random.default_rng(s) for s in rng.integers(2**63, size=2)]
    out, found = add_lesions(out, spacing[1], spacing[0], region, lesions, child[0])
    found += _cysts(out, cysts & (out == ORGAN_NUMBER["kidney_cortex"]), spacing)
    texture = organ_texture(out, spacing[1], spacing[0], child[1])
    parameters = {"source": tool, "kvp": kvp, "names": {str(n): organs[n] for n in sorted(organs)}}
    return Patient(out, spacing[1], spacing[0], region, None, parameters, found, texture, hu)


def _volume(name, value):
    """Return a `Volume`, reading it when it is a path."""
    from allpet_physics.io.nifti import read_nifti
    from allpet_physics.io.volume import Volume

    if isinstance(value, Volume):
        return value
    if isinstance(value, (str, Path)):
        return read_nifti(value)
    raise InputError(f"{name} must be a Volume or the path of a NIfTI file, but was {type(value).__name__}.")


def _mapping(mapping) -> dict[str, str | None]:
    if mapping is None:
        return {}
    try:
        if not isinstance(mapping, Mapping):
            mapping = json.loads(Path(mapping).read_text(encoding="utf-8"))
        mapping = {str(k): v for k, v in mapping.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise MetadataError('mapping must map name to organ, {"liver": "liver"}, or be a JSON file that does, but '
                            f"could not be used ({error}).") from None
    allowed = {*ORGAN_NAME, *HOLLOW}
    wrong = sorted(f"{k}: {v}" for k, v in mapping.items() if v is not None and v not in allowed)
    if wrong:
        raise InputError(f"mapping must name organs ({', '.join(sorted(allowed))}), but had {'; '.join(wrong)}.")
    return mapping


def _organs_of(values, name_of, known, mapping, tool) -> dict[int, str]:
    """Return number to organ for the labels that are present, background left out."""
    present = [int(n) for n in np.unique(values) if n != 0]
    names = {n: name_of(n) for n in present}
    nameless = [str(n) for n, name in names.items() if name is None]
    if nameless:
        raise MetadataError(f"labels must have a name each, but {', '.join(nameless)} have none in {tool}'s table; "
                            "give names={number: name}, a JSON file or a colour table.")
    organs = {n: mapping.get(name) or known(name) for n, name in names.items()}
    unknown = [names[n] for n, organ in organs.items() if organ is None]
    if unknown:
        raise InputError(f"labels must have names that are known, but these are not: {', '.join(unknown)}; give "
                         'mapping={"name": "organ"} or a JSON file (write_label_mapping makes one to fill in), with '
                         f"organs among {', '.join(ORGAN_NAME)}.")
    return {n: organ for n, organ in organs.items() if organ != "air"}


def _cysts(labels, mask, spacing) -> tuple[Lesion, ...]:
    """Turn cysts of the kidney that the label map names into cold lesions, one per connected piece, in place."""
    from scipy import ndimage

    pieces, n = ndimage.label(mask)
    labels[mask] = ORGAN_NUMBER["lesion_cold"]
    out = []
    for k in range(1, n + 1):
        piece = pieces == k
        diameter = (6 * piece.sum() * np.prod(spacing) / np.pi) ** (1 / 3)
        centre = tuple(float(np.mean(w)) for w in np.nonzero(piece))
        out.append(Lesion("cold", "kidney_cortex", "kidney_cortex", float(diameter), 1.0, centre, piece))
    return tuple(out)


def _axial_grid(labels, values, organs, size, fov_mm, slice_mm):
    """Return an empty axial volume of square slices around the middle of the labelled organs, over all their slices."""
    from allpet_physics.io.volume import AXIAL, Volume

    axial = labels.replace(data=np.isin(values, list(organs))).reoriented(AXIAL)
    if axial.obliquity_deg > 1:
        raise GeometryError(f"labels must lie along the patient's axes, but are turned by {axial.obliquity_deg:.1f} "
                            "degrees; resample them first.")
    where = np.nonzero(axial.data)
    if not len(where[0]):
        raise GeometryError("labels must hold at least one organ, but hold none.")
    low, high = (np.array([f(w) for w in where], float) for f in (np.min, np.max))
    middle = axial.affine @ np.r_[(low + high) / 2, 1.0]
    height = (high[2] - low[2] + 1) * axial.voxel_mm[2]
    slice_mm = float(axial.voxel_mm[2]) if slice_mm is None else as_positive_float("slice_mm", slice_mm)
    n = max(1, round(height / slice_mm))
    pixel = fov_mm / size
    affine = np.diag([-pixel, -pixel, slice_mm, 1.0])
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array([size, size, n]) - 1) / 2)
    return Volume(np.zeros((size, size, n), np.uint8), affine, "label")
