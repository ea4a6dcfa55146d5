"""Draw a figure for each task: source, estimate of the bridge, its spread and the truth, for some test patients.

    python benchmarks/translation_figures.py cohort.zarr --bridge small

Images are OSEM with the true factors of the target, in SUV; that of the spread is the spread of the samples'
images. The slices are the first test patients of the three regions: none was chosen by its looks.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allpet_gen.evaluation.classical import scaled
from allpet_gen.evaluation.translation_items import draw_items, images
from allpet_gen.evaluation.translation_table import TUNING, read_patients, translate

ROOT = Path(__file__).resolve().parents[1]
TASKS = {"low-dose": 20, "attenuation-correction": None, "delayed-frame": None, "tracer-separation": None,
         "tracer-conversion": None}
_PATIENTS = 3


def main(argv=None) -> None:
    """Draw all figures."""
    from allpet_gen.translation_models import load_translation

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--bridge", default="small")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args(argv)
    bridge, _ = load_translation(arguments.bridge)
    studies, tuning = (read_patients(arguments.store, split, n) for split, n in (("test", _PATIENTS),
                                                                                ("validation", TUNING)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for task, factor in TASKS.items():
        items = draw_items(studies, task, dose_factor=factor)
        sources = scaled(items, draw_items(tuning, task, dose_factor=factor))
        draw(arguments.out / f"translation-{task}.png", bridge, items, sources, arguments)


def draw(path, bridge, items, sources, arguments) -> None:
    """Draw the figure of one task: a row for each slice, two for each slice of a separation."""
    from allpet_gen.translation_picture import Column, translation_picture

    made = translate(bridge, items, arguments)
    samples = made["samples"]
    # A low dose has its own factors; what other sources mean as images is made with those of their targets.
    low = items.task == "low-dose"
    drawn = np.stack([images(samples[:, k], items) for k in range(samples.shape[1])], axis=1)
    columns = [("source", sources, images(items.sources if low else sources, items, of_source=low)),
               ("bridge, estimate", made["mean"], images(made["mean"], items)),
               ("bridge, spread", samples.std(axis=1, ddof=1), drawn.std(axis=1, ddof=1)),
               ("truth", items.truth, images(items.truth, items))]
    sheet = [Column(title, sinograms[:, None], pictures[:, None], "spread" if "spread" in title else "counts",
                    totals="spread" not in title) for title, sinograms, pictures in columns]
    names = [", ".join(word for word in (region, tracer, other) if word) + (f" ({1 + slot})" if other else "")
             for (tracer, region, other), slot in zip(items.said, items.slots, strict=True)]
    translation_picture(path, sheet, items.geometry, names, [""], title=items.task.replace("-", " ")
                        + "".join(f", 1/{factor}" for factor in items.options.values()),
                        subtitle=f"{arguments.samples} samples of {arguments.steps} steps; images: OSEM with the "
                                 "true factors, 5 mm Gaussian", image_unit="SUV")


if __name__ == "__main__":
    main()
