"""What ``allpet translate`` makes and writes: estimates, spreads, samples, images, a picture, the record."""

import dataclasses
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allpet_physics import _command_line as line

PICTURE, RECORD = "translated.png", "record.json"


@dataclass(frozen=True)
class FileNames:
    """Names of the files of a translation; `targets` are appended to them where there are two."""

    targets: tuple[str, ...]
    n_samples: int
    suffixes: tuple[str, ...]
    with_images: bool

    def stem(self, what: str, target: int) -> str:
        """Return the name of a file without suffix."""
        return what if len(self.targets) == 1 else f"{what}_{self.targets[target]}"

    def sample(self, number: int) -> str:
        """Return what the file of a sample is called, from 1."""
        return f"sample_{number:0{len(str(self.n_samples))}d}"

    @property
    def all(self) -> list[str]:
        """Every file that is written but the picture and the record."""
        several = self.n_samples > 1
        whats = ["translated", *(["spread", *(self.sample(s + 1) for s in range(self.n_samples))] if several else [])]
        out = [f"{self.stem(what, k)}{suffix}" for what in whats for k in range(len(self.targets))
               for suffix in self.suffixes]
        if self.with_images:
            out += [f"{self.stem(what, k)}_images.nii.gz" for what in whats[:2] for k in range(len(self.targets))]
        return out


@dataclass(frozen=True, eq=False)
class Found:
    """What was made of all slices; ``...`` is (angle, bin) or (row, col), and every target has its place on an axis.

    `expected` and `images` have shape (n, targets, ...), `samples` (n, samples, targets, ...); the spreads as
    the estimate. `notes` hold for all parts, `part_notes` for one, by its name.
    """

    expected: np.ndarray
    spread: np.ndarray | None
    samples: np.ndarray | None
    images: np.ndarray | None
    image_spread: np.ndarray | None
    ratio: np.ndarray | None
    notes: tuple[str, ...]
    part_notes: dict[str, list[str]]


def target_names(task, source) -> tuple[str, ...]:
    """Return what the files of each target are called; one empty text where there is one target."""
    if task.n_targets == 1:
        return ("",)
    return source.parts[0].tracer or "first", source.parts[0].other


def read_roi_of(roi: str | None, stack, resample: bool):
    """Return the region that an option names, as `SinogramBridgePipeline` takes it, and what the record says of it."""
    if roi is None or roi == "auto":
        return roi, {"roi": roi}
    from allpet_physics._record import digest
    from allpet_physics.io.roi_files import read_roi
    from allpet_physics.io.volume import Volume

    rows, cols = stack.geometry.image_shape
    image = Volume(np.zeros((cols, rows, len(stack.data)), np.uint8), stack.image_affine())
    found = read_roi(Path(roi), image, resample=resample)
    for text in found.warnings:
        warnings.warn(text, UserWarning, stacklevel=2)
    return found.mask.transpose(2, 1, 0), {"roi": digest(roi), "voxels": int(found.mask.sum())}


def earlier_files(folder: Path) -> list[str]:
    """Return the files that an earlier translation in a folder says to have written."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return [str(name) for name in record["files"]] if record["allpet"] == "translate" else []
    except (OSError, ValueError, LookupError, TypeError):
        return []


def translate(pipe, source, mask, settings: dict, progress) -> Found:
    """Return what a pipeline makes of a source, part by part: of each part something else is said."""
    stack, n_targets, results = source.stack, 2 if settings["task"] == "tracer-separation" else 1, []
    for part in source.parts:
        stage = f"translating {part.name}".rstrip()
        results.append(pipe(
            stack.data[part.slices], tracer=part.tracer, region=part.region, other=part.other, geometry=stack.geometry,
            roi=mask if mask is None or isinstance(mask, str) else mask[part.slices],
            first_slice=part.slices.start or 0, progress=lambda rounds, stage=stage: progress(rounds, stage),
            **settings))

    def joined(name: str, lead: int = 1):
        arrays = [getattr(result, name) for result in results]
        if arrays[0] is None:
            return None
        return np.concatenate([a.reshape(*a.shape[:lead], n_targets, *a.shape[-2:]) for a in arrays])

    ratio = None if results[0].source_ratio is None else np.concatenate([r.source_ratio for r in results])
    samples = joined("samples", 2)
    images, image_spread = joined("images"), None
    if images is not None and samples is not None and samples.shape[1] > 1:
        image_spread = _image_spread(samples, stack.geometry, settings["reconstruct"], progress)
    shared = [note for note in results[0].notes if all(note in result.notes for result in results)]
    own = {part.name: [note for note in result.notes if note not in shared]
           for part, result in zip(source.parts, results, strict=True) if part.name}
    return Found(joined("expected"), joined("spread"), samples, images, image_spread, ratio,
                 (*source.notes, *shared), own)


def out_stack(source, task, settings: dict):
    """Return the stack of the source with the unit and scale that its translation has."""
    stack = source.stack
    # Counts of a known image: those of the full dose are so many times more of the same image.
    known = task.dose and stack.image_unit not in ("", "unknown", "counts/mm")
    how = {"scale": stack.scale * settings["dose_factor"], "image_unit": stack.image_unit} if known else \
        {"scale": 1.0, "image_unit": "counts/mm"}
    return dataclasses.replace(stack, unit="counts", warnings=(), **how)


def write_files(folder: Path, names: FileNames, like, found: Found) -> None:
    """Write sinograms and images."""
    from allpet_physics.io.nifti import write_nifti
    from allpet_physics.io.sinogram_files import write_sinogram
    from allpet_physics.io.volume import Volume

    for k in range(len(names.targets)):
        arrays = {"translated": found.expected[:, k]}
        if found.spread is not None:
            arrays |= {"spread": found.spread[:, k]}
            arrays |= {names.sample(s + 1): found.samples[:, s, k] for s in range(names.n_samples)}
        for what, data in arrays.items():
            write_sinogram(folder / f"{names.stem(what, k)}{names.suffixes[0]}", dataclasses.replace(like, data=data))
        for what, images in (("translated", found.images), ("spread", found.image_spread)):
            if images is not None:
                data = (images[:, k] / like.scale).astype(np.float32).transpose(2, 1, 0)
                write_nifti(folder / f"{names.stem(what, k)}_images.nii.gz",
                            Volume(data, like.image_affine(), like.unit_of_images))


def write_picture(path: Path, source, task, like, found: Found, settings: dict, targets) -> None:
    """Write source, estimate, spread and truth side by side."""
    from allpet_gen.generated import reconstruct_uncorrected
    from allpet_gen.translation_picture import Column, translation_picture

    factor = settings["dose_factor"] or 1

    def images_of(sinograms):
        if found.images is None:
            return None
        shape = sinograms.shape[:2]
        flat = sinograms.reshape(-1, *sinograms.shape[-2:])
        images, _ = reconstruct_uncorrected(flat, like.geometry, settings["reconstruct"])
        return images.reshape(*shape, *images.shape[-2:]) / like.scale

    def scaled(images):
        return None if images is None else images / like.scale

    given = source.stack.data[:, None] * np.float32(factor)
    columns = [Column(f"source × {factor:g}" if task.dose else "source", given, images_of(given),
                      "counts" if task.dose else "source"),
               Column("translation", found.expected, scaled(found.images), "counts")]
    if found.spread is not None:
        columns.append(Column("spread", found.spread, scaled(found.image_spread), "spread", totals=False))
    if source.truth is not None:
        truth = source.truth.reshape(found.expected.shape)
        columns.append(Column("truth", truth, images_of(truth), "counts"))
    about = [f"The spread is the standard deviation of {settings['n_samples']} samples, seed {settings['seed']}."
             if found.spread is not None else "One estimate without samples.",
             "Made by a model that was trained on simulated patients alone."]
    if found.images is not None:
        about.append("Images are not corrected for attenuation, scatter or randoms."
                     + ("" if task.attenuated else " The translated counts hold none of these."))
    translation_picture(path, columns, like.geometry, source.names, targets, title=f"Translation: {task.name}",
                        subtitle=" ".join(about), image_unit=like.unit_of_images)


def compared(source, task, found: Found, settings: dict, targets) -> dict | None:
    """Return PSNR and total error beside the truth of a simulation, by target; None where no truth is known."""
    from allpet_physics.metrics import psnr

    if source.truth is None:
        return None
    truths, out = source.truth.reshape(found.expected.shape), {}
    given = source.stack.data * (settings["dose_factor"] or 1)
    for k, target in enumerate(targets):
        truth, made = truths[:, k], found.expected[:, k]
        top, total = float(truth.max()), truth.sum(axis=(1, 2), dtype=np.float64)

        def against(estimate, truth=truth, top=top, total=total):
            error = (estimate.sum(axis=(1, 2), dtype=np.float64) - total) / total
            return {"psnr_db": psnr(estimate, truth, data_range=top), "total_error": error}

        out[target or "target"] = {"data_range": top, "translation": against(made)}
        if task.n_targets == 1:
            out[target or "target"]["source"] = against(given)
    return out


def counts_of(source, found: Found, targets) -> dict:
    """Return the counts of each slice of the source, and those expected of each target."""
    made = found.expected.sum(axis=(2, 3), dtype=np.float64)
    return {"source": source.stack.data.sum(axis=(1, 2), dtype=np.float64),
            "translated": {target or "target": made[:, k] for k, target in enumerate(targets)}}


def versions_of_all() -> dict:
    """Return the versions of allpet and of what it stands on, torch included."""
    from importlib.metadata import version

    from allpet_physics._record import versions

    return versions() | {name: version(name) for name in ("torch", "diffusers")}


def about_model(pipe, folder: Path, name, source) -> dict:
    """Return what the record says of a model; warn of patients that it was trained on."""
    from allpet_gen._pretrained import model_digests
    from allpet_gen.training_card import read_card

    card = read_card(folder)
    if card is not None and source.store and source.store == card["store"]["sha256"]:
        seen = sorted(set(source.patients) & set(card["patients"]["train"]))
        if seen:
            warnings.warn(f"the model was trained on {_listed(seen)} of this store: how well it does there says "
                          "nothing of other patients; choose --split test.", UserWarning, stacklevel=2)
    return {"name": line.base_name(name), "files": model_digests(folder), "card": dict(pipe.card),
            "geometry": pipe.geometry.to_dict()}


def lines(record: dict) -> list[str]:
    """Return what a reader is told."""
    settings, counts = record["settings"], record["counts"]
    n, n_samples = len(counts["source"]), settings["n_samples"]
    out = [f"{settings['task']}: {n} slice{'s' * (n > 1)}, "
           + (f"an estimate of {n_samples} samples each" if n_samples > 1 else "one estimate each"),
           f"counts   {_total(counts['source'])} in the source, "
           + ", ".join(f"{_total(values)} expected{f' of {name}' * (name != 'target')}"
                       for name, values in counts["translated"].items())]
    for target, found in (record["truth"] or {}).items():
        of = "" if target == "target" else f" of {target}"
        text = f"truth{of}: {_quality(found['translation'])}"
        if "source" in found:
            times = f" x {settings['dose_factor']:g}" if settings["dose_factor"] else ""
            text += f"; the source{times}: {_quality(found['source'])}"
        out.append(text)
    ratio = [value for value in record["source_ratio"] or [] if not isinstance(value, str)]
    if len(record["part_notes"]) > 1 and ratio:
        out.append(f"the estimates imply {np.mean(ratio):.4g} of the counts of the source ({min(ratio):.4g} to "
                   f"{max(ratio):.4g} by slice)")
    return [*out, *record["notes"]]


def _image_spread(samples: np.ndarray, geometry, method: str, progress) -> np.ndarray:
    from allpet_gen.generated import reconstruct_uncorrected

    out = []
    for one in progress(samples, f"images of the samples, {method.upper()}", unit="slice"):
        images, _ = reconstruct_uncorrected(one.reshape(-1, *one.shape[-2:]), geometry, method)
        out.append(images.reshape(*one.shape[:2], *images.shape[-2:]).std(axis=0, ddof=1))
    return np.stack(out)


def _quality(found: dict) -> str:
    error = 100 * np.asarray(found["total_error"])
    span = f" ({error.min():+.1f} to {error.max():+.1f} by slice)" if error.size > 1 else ""
    return f"PSNR {np.mean(found['psnr_db']):.2f} dB, total counts {error.mean():+.1f} %{span}"


def _total(counts) -> str:
    total = float(np.sum(counts))
    return f"{total / 1e6:.3g} million" if total >= 1e5 else f"{total:,.0f}"


def _listed(patients) -> str:
    return (f"patient{'s' * (len(patients) > 1)} {', '.join(map(str, patients[:6]))}{', ...' * (len(patients) > 6)}")
