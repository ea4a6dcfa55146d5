"""What ``allpet roi2sino`` writes: the stacks, the region, the picture and the record."""

import json
import re
from pathlib import Path

import numpy as np

from allpet_physics._record import digest, plain, versions
from allpet_physics.io.nifti import is_nifti, write_nifti
from allpet_physics.io.sinogram_files import SinogramStack, sinogram_format, write_sinogram
from allpet_physics.preview import save_preview
from allpet_physics.radon import RadonOperator
from allpet_physics.roi2sino import roi2sino

_ORIENTATION = ("Slices are axial, index 0 the most inferior; in a slice the column grows towards patient left, the "
                "row towards posterior. s = x cos(theta) + y sin(theta) with x to patient left and y to anterior, "
                "theta = i arc / n_angles; the origin is the middle of the image grid.")


def describe(volume, region, grid, geometry, chosen, per_slice, image_path: Path, **settings) -> dict:
    """Return what the record says before anything is computed."""
    filled = np.flatnonzero(per_slice)
    values = np.asarray(volume.data)[region.mask]
    middle = grid.affine @ [*((n - 1) / 2 for n in geometry.image_shape[::-1]), (len(per_slice) - 1) / 2, 1]
    whole = image_path if image_path.is_dir() or is_nifti(image_path) else image_path.parent
    return plain({
        "versions": versions(),
        "inputs": {"image": digest(whole), **{name: digest(p) for name, p in region.inputs.items()}},
        "image": {"unit": volume.unit, "shape": volume.data.shape, "voxel_mm": volume.voxel_mm, "affine": volume.affine,
                  "axis_codes": "".join(volume.axis_codes), "obliquity_deg": round(volume.obliquity_deg, 4),
                  "tags": dict(volume.tags)},
        "region": {**region.record, "n_voxels": int(region.mask.sum()),
                   "volume_ml": float(region.mask.sum() * volume.voxel_ml), "n_slices": len(filled),
                   "slices": [int(filled[0]), int(filled[-1])] if len(filled) else [],
                   "values": {"unit": volume.unit, "minimum": values.min(), "mean": values.mean(dtype=np.float64),
                              "median": np.median(values), "maximum": values.max()} if values.size else {}},
        "projection": {"geometry": geometry.to_dict(), **settings, "n_slices_of_volume": len(per_slice),
                       "slices": chosen, "voxels_per_slice": per_slice[chosen], "slice_mm": grid.slice_mm,
                       "pixel_affine": grid.affine, "origin_ras_mm": middle[:3], "orientation": _ORIENTATION},
    })


def compute_and_write(folder: Path, names: dict, volume, region, grid, geometry, chosen, *, model, normalisation, per,
                      scale_mm, with_activity, progress, notes: list) -> dict:
    """Project the region, write every file but the record, and return what each of them is."""
    result = roi2sino(volume, region.mask, geometry, normalisation=normalisation, per=per, scale_mm=scale_mm,
                      model=model, slices=chosen, with_activity=with_activity, progress=progress)
    notes += [text for text in result.warnings if text not in grid.warnings]
    progress.stage("writing")
    unit = f"{volume.unit} mm"
    relative = "mm" if normalisation == "exact" else "relative"
    extra = {"attention": (result.attention, relative)}
    if with_activity:
        extra |= {"activity": (result.activity, unit), "image_sinogram": (result.image, unit)}
    where = {"geometry": geometry, "affine": result.affine, "slice_mm": result.slice_mm, "slices": result.slices}
    first = SinogramStack(result.sinogram, unit="mm", **where)
    outputs = {}
    if sinogram_format(names["sinogram"]) == "npz":
        write_sinogram(folder / names["sinogram"], first, extra)
        outputs[names["sinogram"]] = {"arrays": {"sinogram": "mm"} | {k: u for k, (_, u) in extra.items()}}
    else:
        write_sinogram(folder / names["sinogram"], first)
        outputs[names["sinogram"]] = {"array": "sinogram", "unit": "mm"}
        for name, (data, of) in extra.items():
            write_sinogram(folder / names[name], SinogramStack(data, unit=of, **where))
            outputs[names[name]] = {"array": name, "unit": of}
    write_nifti(folder / names["roi"], volume.replace(data=region.mask.astype(np.uint8), unit="mask"))
    outputs[names["roi"]] = {"array": "region on the image's grid", "unit": "mask"}
    if "preview" in names:
        _preview(folder / names["preview"], volume, region, grid, result, model)
        outputs[names["preview"]] = {"picture": "slice with most of the region"}
    for name in sorted(p.name for p in folder.iterdir()):
        outputs[name] = {**outputs.get(name, {}), "sha256": digest(folder / name)["sha256"]}
    return outputs


def write_record(path: Path, record: dict) -> None:
    """Write the record as indented JSON, short lists on one line."""
    text = json.dumps(record, indent=2, ensure_ascii=False)
    text = re.sub(r"\[\s*((?:[^\[\]{}\"]|\n)*?)\s*\]", lambda m: "[" + " ".join(m[1].split()) + "]", text)
    path.write_text(text + "\n", encoding="utf-8")


def without_paths(texts, *paths: Path) -> list[str]:
    """Return each text once, with the folders of the inputs cut off: their names may be a patient's."""
    out = []
    for text in texts:
        for path in paths:
            for form in {str(path), str(path.absolute())}:
                text = text.replace(form, path.name)
        out.append(text)
    return list(dict.fromkeys(out))


def _preview(path: Path, volume, region, grid, result, model) -> None:
    from allpet_physics.axial_grid import axial_slices

    i = int(np.argmax(result.slice_voxels))
    k = result.slices[i]
    mask = axial_slices(volume.replace(data=region.mask, unit="mask")).data[k]
    image = grid.data[k]
    z = (grid.affine @ [(image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2, k, 1])[2]
    # Line integrals of HU are dominated by air at -1000; HU + 1000 is proportional to attenuation.
    projected = np.nan_to_num(image.astype(np.float32), posinf=0.0, neginf=0.0)
    if volume.unit == "HU" or (projected.min() < -500 and projected.max() > 200):
        projected = np.maximum(projected + 1000, 0)
    label = {"linear": "attention (path / longest path)", "clip": "attention (path, clipped)",
             "exact": "path length (mm)"}[result.normalisation]
    total = int(region.mask.sum())
    save_preview(path, image, mask, result.sinogram[i], result.attention[i],
                 RadonOperator(result.geometry, model=model)(projected), result.geometry, unit=volume.unit,
                 attention_label=label,
                 title=f"{region.title}: {total} voxels, {total * volume.voxel_ml:.4g} mL",
                 subtitle=f"axial slice {k} of {len(grid.data)} (0 most inferior), z = {z:.1f} mm, "
                          f"{result.slice_voxels[i]} voxels of the region")
