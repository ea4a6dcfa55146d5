"""The region of interest that the options of ``allpet roi2sino`` describe, and what the record says of it."""

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from allpet_physics._command_line import FilePath, base_name
from allpet_physics.commands._options import pick, together
from allpet_physics.errors import InputError

_path = FilePath()
_METHODS = ("relative", "fixed", "otsu", "percentile", "local")
_MASK_OPTIONS = ("label", "roi_name", "label_names")
_THRESHOLD_OPTIONS = ("polarity", "body", "floor", "window_mm", "offset", "rim_mm", "min_volume_ml", "connectivity",
                      "largest_only")

region_options = together(
    click.option("--mask", type=_path, metavar="FILE", help="Region: NIfTI mask or label map, RTSTRUCT or SEG."),
    click.option("--label", type=str, multiple=True, metavar="N|NAME",
                 help="Label, ROI or segment number of --mask, or its name; repeat for the union."),
    click.option("--roi-name", multiple=True, metavar="NAME", help="Name of a region of --mask; repeat for the union."),
    click.option("--label-names", type=_path, metavar="JSON",
                 help='Names of a NIfTI file\'s labels, {"5": "liver"} [default: labels.json beside it].'),
    click.option("--resample", is_flag=True, help="Accept a mask on another grid: resample it to the image's."),
    click.option("--threshold", metavar="METHOD[:VALUE]",
                 help="Region by threshold: relative[:0.41], fixed:VALUE, otsu, percentile[:95], local[:2]; "
                      "VALUE may be COLD,HOT with --polarity both."),
    click.option("--polarity", type=click.Choice(["hot", "cold", "both"]), help="[default: hot]"),
    click.option("--body", type=_path, metavar="FILE", help="Mask that thresholded regions must lie in."),
    click.option("--floor", type=float, help="relative: lowest value of a hot region, e.g. SUV 2.5."),
    click.option("--window-mm", type=float, metavar="MM", help="local: width of the window [default: 40]."),
    click.option("--offset", type=float, help="local: constant added to the threshold's distance."),
    click.option("--rim-mm", type=float, metavar="MM", help="Distance of cold regions from the body's edge."),
    click.option("--min-volume-ml", type=float, metavar="ML", help="Drop smaller components."),
    click.option("--connectivity", type=click.IntRange(1, 3), help="1 faces, 2 edges, 3 corners [default: 1]."),
    click.option("--largest-only", is_flag=True, default=None, help="Keep the largest component of each polarity."),
)


@dataclass(frozen=True, eq=False)
class Region:
    """A region on the image's grid, its short title, and what the record says of it."""

    mask: np.ndarray
    title: str
    record: dict
    inputs: dict[str, Path]
    warnings: tuple[str, ...]


def pick_region(options: dict) -> dict:
    """Take the options of `region_options` out of a dict of all of them, after checking that they go together."""
    chosen = pick(options, "mask", "threshold", "resample", *_MASK_OPTIONS, *_THRESHOLD_OPTIONS)
    if (chosen["mask"] is None) == (chosen["threshold"] is None):
        raise click.UsageError("give the region either by --mask FILE or by --threshold METHOD[:VALUE], not "
                               f"{'both' if chosen['mask'] else 'neither'}.")
    wrong = _THRESHOLD_OPTIONS if chosen["mask"] is not None else _MASK_OPTIONS
    used = ["--" + name.replace("_", "-") for name in wrong if chosen[name] not in (None, ())]
    if used:
        raise click.UsageError(f"{', '.join(used)} cannot be used with "
                               f"{'--mask' if chosen['mask'] is not None else '--threshold'}.")
    if chosen["threshold"] is not None:
        chosen["threshold"] = parse_threshold(chosen["threshold"])
    return chosen


def files_of_region(options: dict) -> dict[str, Path | None]:
    """Return the files that the options (from `pick_region`) name, by what they are called in a message."""
    mask = options["mask"]
    return {"--mask": mask, "--label-names": options["label_names"], "--body": options["body"],
            "the labels.json beside --mask": None if mask is None else mask.with_name("labels.json")}


def parse_threshold(text: str) -> tuple[str, object]:
    """Return method and value of ``METHOD``, ``METHOD:VALUE`` or ``METHOD:COLD,HOT``."""
    method, colon, value = text.partition(":")
    if method not in _METHODS:
        raise click.UsageError(f"--threshold must start with one of {', '.join(_METHODS)}, but was {text!r}.")
    try:
        numbers = tuple(float(part) for part in value.split(",")) if colon else ()
    except ValueError:
        numbers = (0.0, 0.0, 0.0)
    if len(numbers) > 2:
        raise click.UsageError(f"--threshold must be METHOD:VALUE or METHOD:COLD,HOT with numbers, but was {text!r}.")
    return method, None if not numbers else numbers[0] if len(numbers) == 1 else numbers


def read_region(volume, options: dict) -> Region:
    """Return the region of a volume that the options (from `pick_region`) describe."""
    return _from_file(volume, options) if options["mask"] is not None else _by_threshold(volume, options)


def _from_file(volume, options) -> Region:
    from allpet_physics.io.roi_files import read_roi

    file, given = options["mask"], {"resample": options["resample"], "label_names": options["label_names"]}
    numbers = [int(text) for text in options["label"] if text.lstrip("+-").isdigit()]
    names = [text for text in options["label"] if not text.lstrip("+-").isdigit()] + list(options["roi_name"])
    parts = []
    if numbers or not names:
        parts.append(read_roi(file, volume, label=numbers or None, **given))
    if names:
        parts.append(read_roi(file, volume, name=names, **given))
    mask = np.logical_or.reduce([part.mask for part in parts])
    chosen = {n: name for part in parts for n, name in zip(part.numbers, part.names, strict=True)}
    title = ", ".join(name or f"label {n}" for n, name in chosen.items()) or "mask"
    record = {"from": "mask", "file": base_name(file), "format": parts[0].source,
              "regions": [{"number": n, "name": name} for n, name in chosen.items()],
              "resampled": options["resample"], "tags": dict(parts[0].tags)}
    inputs = {"mask": file} | ({"label names": options["label_names"]} if options["label_names"] else {})
    return Region(mask, title, record, inputs, tuple(dict.fromkeys(w for part in parts for w in part.warnings)))


def _by_threshold(volume, options) -> Region:
    from allpet_physics.io.roi_files import read_roi
    from allpet_physics.roi2sino import threshold_volume

    method, value = options["threshold"]
    if options["resample"] and options["body"] is None:
        raise InputError("--resample belongs to a --mask or --body, but neither was given; leave it out.")
    settings = {name: options[name] for name in _THRESHOLD_OPTIONS if name != "body" and options[name] is not None}
    body = options["body"]
    mask = None if body is None else read_roi(body, volume, resample=options["resample"]).mask
    roi = threshold_volume(volume, method, value=value, body=mask, **settings)
    polarity = settings.get("polarity", "hot")
    thresholds = {name: _threshold_record(t, volume) for name, t in roi.thresholds.items()}
    record = {"from": "threshold", "method": method, "value": value, "settings": {"polarity": polarity, **settings},
              "thresholds": thresholds, "n_components": roi.n_components,
              "components": [vars(c) for c in roi.components[:50]]}
    title = " ".join([f"{method} threshold", *([] if value is None else [str(value)]), f"({polarity})"])
    notes = list(roi.warnings)
    if volume.unit == "unknown":
        notes.append("The unit of the image is unknown, so the threshold is in its stored values; declare it with "
                     "--unit.")
    return Region(volume.from_axial_slices(roi.mask).data, title, record, {} if body is None else {"body": body},
                  tuple(notes))


def _threshold_record(threshold, volume) -> dict:
    """Return a threshold in the image's unit, in SUV and in the unit stored in the file, where the scale is known."""
    values = np.atleast_1d(np.asarray(threshold, dtype=np.float64))
    if values.size == 0:  # the relative method has a threshold per region, hence none without a region
        return {}
    several = {"lowest": float(values.min()), "highest": float(values.max())} if values.ndim > 1 else None

    def scaled(factor):
        if several:
            return {name: v * factor for name, v in several.items()}
        return values[0] * factor if values.size == 1 else (values * factor).tolist()

    out = {volume.unit: scaled(1.0)}
    factor = volume.tags.get("factor")
    if volume.unit == "SUVbw" and factor is not None:
        low, high = np.min(factor), np.max(factor)
        stored = str(volume.tags.get("Units", "native"))
        one = high <= low * (1 + 1e-6)  # where the decay correction differs from slice to slice, a range
        out["Bq/ml" if stored.upper() in ("BQML", "BQ/ML") else f"stored ({stored})"] = (
            scaled(1 / low) if one else {"lowest": scaled(1 / high), "highest": scaled(1 / low)})
    return out
