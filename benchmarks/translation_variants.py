"""Compare models of one task, each with another that differs in one thing: drawn pairs in the training, or more tasks.

    python benchmarks/translation_variants.py cohort.zarr --pair "bridge, drawn pairs" few/bridge drawn/bridge \\
        --pair "one task" run/bridge single/bridge --json docs/translation_variants.json

Test patients, as in translation_quality.py. Of each pair the second model is set beside the first: differences are
paired, with intervals over patients. How the models of docs/translation_variants.json were trained stands in
docs/translation.md.
"""

import argparse
import json
import platform
import sys
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import write_record

from allpet_gen.evaluation.translation_table import (
    ROWS,
    TUNING,
    HowMeasured,
    load_models,
    measure_row,
    read_patients,
)

#: What is kept of a method, by domain.
_METRICS = ("psnr", "ssim", "nrmse", "total_error")


def main(argv=None) -> dict:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="the cohort that the models were trained on, with its test patients")
    parser.add_argument("--pair", nargs=3, action="append", required=True, metavar=("WHAT", "DIR", "DIR"))
    parser.add_argument("--row", choices=list(ROWS), default="attenuation correction")
    parser.add_argument("--patients", type=int, default=27)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for what the methods make")
    parser.add_argument("--json", type=Path, help="write the record here")
    arguments = parser.parse_args(argv)
    studies, tuning = (read_patients(arguments.store, split, n) for split, n in (("test", arguments.patients),
                                                                                ("validation", TUNING)))
    how = HowMeasured(arguments.samples, arguments.steps, arguments.seed, arguments.keep)
    record = {"date": str(date.today()), "machine": f"{platform.machine()}, Python {platform.python_version()}",
              "row": arguments.row, "patients": len(studies), "samples": how.samples, "steps": how.steps,
              "seed": how.seed, "pairs": {}}
    for what, *folders in arguments.pair:
        models = load_models(dict(zip(("without", "with"), folders, strict=True)))
        found = measure_row(arguments.row, studies, tuning, models, how, reference="without")
        record["pairs"][what] = {domain: {name: _kept(found[domain]["methods"][name]) for name in models}
                                 for domain in ("sinograms", "images")}
        print(f"{what}\n{json.dumps(record['pairs'][what], indent=1)}", flush=True)
    write_record(arguments.json, record)
    return record


def _kept(method: dict) -> dict:
    """Return means with their intervals, and how far they are from the other model's."""
    out = {name: {end: method["metrics"][name][end] for end in ("mean", "low", "high")} for name in _METRICS}
    if "difference" in method:
        off = method["difference"]["metrics"]["psnr"]
        out["psnr more"] = {end: off[end] for end in ("mean", "low", "high")}
    return out


if __name__ == "__main__":
    main()
