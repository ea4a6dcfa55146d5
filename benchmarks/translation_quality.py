"""Measure translations on patients that no method has seen, beside every baseline, in sinograms and in images.

    python benchmarks/translation_quality.py cohort.zarr --bridge small --unet run/unet --json docs/translation.json
    python benchmarks/translation_quality.py cohort.zarr --bridge small --anatomy DATA --json docs/translation.json
    python benchmarks/translation_quality.py cohort.zarr --cyclegan run/cyclegan --add --json docs/translation.json

Settings of the classical methods (filters, strength of the prior) are chosen on validation patients, never on those
that are tested. PSNR and SSIM take one range for all items of a row: the median over items of the truth's maximum. With
--anatomy the items are slices of real anatomy instead, see
`allpet_gen.evaluation.real_anatomy`; settings still come from the cohort. --keep
keeps what each method made, by the digest of its model, so that a further method costs its own time alone; where that
folder is gone, --add measures the models that are named alone, and adds them to the rows that are there.
"""

import argparse
import platform
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import record_to_renew, write_record

from allpet_gen.evaluation.real_anatomy import REGIONS, real_studies
from allpet_gen.evaluation.translation_table import (
    ROWS,
    TUNING,
    HowMeasured,
    join_rows,
    load_models,
    measure_row,
    read_patients,
)


def main(argv=None) -> dict:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="the cohort that the models were trained on, with its test patients")
    parser.add_argument("--bridge", help="a shipped model's name, or a folder")
    parser.add_argument("--unet", help="a folder")
    parser.add_argument("--cyclegan", help="a folder")
    parser.add_argument("--model", nargs=2, action="append", default=[], metavar=("NAME", "DIR"), help="a further one")
    parser.add_argument("--anatomy", type=Path, help="a folder with brain and ct_abdomen, to be tested on instead")
    parser.add_argument("--patients", type=int, default=27, help="patients, or slices of real anatomy")
    parser.add_argument("--samples", type=int, default=20, help="posterior samples of the bridge (default %(default)s)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--keep", type=Path, help="a folder for what the methods make")
    parser.add_argument("--add", action="store_true", help="add these models to the rows of the record")
    parser.add_argument("--json", type=Path, help="write, or renew, the record here")
    arguments = parser.parse_args(argv)
    record = record_to_renew(parser, "--json", arguments.json)
    models = load_models({name: getattr(arguments, name) for name in ("bridge", "unet", "cyclegan")
                          if getattr(arguments, name)} | dict(arguments.model))
    studies = read_studies(arguments)
    tuning = None if arguments.add else read_patients(arguments.store, "validation", TUNING)
    how = HowMeasured(arguments.samples, arguments.steps, arguments.seed, arguments.keep)
    settings = {"seed": arguments.seed, "steps": arguments.steps, "samples": arguments.samples,
                "split": "real" if arguments.anatomy else arguments.split, "patients": len(studies)}
    part = record.setdefault("anatomy" if arguments.anatomy else "cohort", {"rows": {}})
    other = {name: part[name] for name, value in settings.items() if part.get(name, value) != value}
    if arguments.add and (other or not set(arguments.rows) <= set(part["rows"])):
        parser.error(f"--add needs a record of the same settings with all of these rows; it differed in "
                     f"{', '.join(other) or 'its rows'}")
    if other:
        part["rows"].clear()  # rows of other settings are no part of this record
    digests = {name: digest for name, (_, digest) in models.items()}
    part |= settings | {"date": str(date.today()),
                        "models": part.get("models", {}) | digests if arguments.add else digests,
                        "machine": f"{platform.machine()}, Python {platform.python_version()}"}
    for name in arguments.rows:
        began = time.perf_counter()
        row = measure_row(name, studies, tuning, models, how)
        part["rows"][name] = join_rows(part["rows"][name], row) if arguments.add else row
        print(f"{name} ({time.perf_counter() - began:.0f} s)\n{table(row)}", flush=True)
        write_record(arguments.json, record, indent=None, separators=(",", ":"))
    return record


def read_studies(arguments):
    """Return what is tested on: numbers and studies."""
    if arguments.anatomy is None:
        return read_patients(arguments.store, arguments.split, arguments.patients)
    from allpet_physics.simulation import read_cohort

    cohort, each = read_cohort(arguments.store), arguments.patients // len(REGIONS)
    found = [study for region in REGIONS
             for _, study in real_studies(arguments.anatomy, cohort, region, each, arguments.seed)]
    return list(enumerate(found))


def table(row) -> str:
    """Return a short table for the terminal."""
    lines = [f"{'':24} sinogram: PSNR  SSIM  total   image: PSNR  SSIM  lesion bias"]
    for name in row["images"]["methods"]:
        s, i = (row[d]["methods"][name] for d in ("sinograms", "images"))
        lesions = i["regions"]["lesions"]["bias"]["mean"]
        lines.append(f"{name:24} {s['metrics']['psnr']['mean']:14.2f} {s['metrics']['ssim']['mean']:6.3f} "
                     f"{100 * s['metrics']['total_error']['mean']:6.2f} % {i['metrics']['psnr']['mean']:11.2f} "
                     f"{i['metrics']['ssim']['mean']:6.3f} {100 * lesions if lesions is not None else np.nan:7.1f} %")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
