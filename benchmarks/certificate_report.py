"""Write docs/certificates.md from the records of `allpet certify`.

    allpet certify small others.zarr --split train --out docs/certificate_generator.json
    allpet certify bridge-small others.zarr --split train --out docs/certificate_bridge.json
    python benchmarks/certificate_report.py docs/certificate_generator.json docs/certificate_bridge.json
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import read_record, write_page

from allpet_gen.certificate import printed

ROOT = Path(__file__).resolve().parents[1]

HEAD = """# Certificates of the models that ship

How large the denoising loss of a model can be on average over new simulated patients, by a PAC-Bayes bound from
patients of a store that was made for this alone: no model and no choice has seen them. The loss of a patient is the
mean squared error of what the network predicts, over slices, tracers, times, noise and views, with the variance of
what it should predict as its unit: predicting nothing has about 1. The equations are in `allpet_gen.certificate` and
`allpet_physics.pac_bayes`; [errata](errata.md) says where they leave the paper.

- **certificate**: for a model whose output channels go through a random linear map, drawn from a Gibbs posterior; the
  prior was learned from the training patients alone. Data and draws fail together with a chance of at most δ.
- **test-set bound**: for the network as it is. Nothing was fitted to these patients, so it needs no posterior, and is
  lower. The divergences are almost nothing: the posterior stays at the prior, for the patients ask for no change.
- **measured** are sinograms as they are, **augmented** turned, mirrored and, for the generator, with the masks of
  RMAS and DMM drawn anew. n is the same, and so is the model; a bridge has views alone, as it works on no masks. The
  bounds of models that were trained with composites and without, figure 7's own comparison at a small size, are on
  [the generator's page](generator.md).
- The last columns are **no certificates**: sinograms of one patient, and copies of one sinogram, are not independent.
  All that they seem to gain comes from counting, and a gain of the paper's size can be had from counting alone.

These patients have one slice each, the middle one. Losses of other slices differ, and those of two generators are not
to be compared, for each predicts in latents of its own.

```
allpet simulate --patients 300 --seed 90210 --size 128 --slices 1 --out others.zarr
allpet certify small others.zarr --split train --out docs/certificate_generator.json
allpet certify bridge-small others.zarr --split train --out docs/certificate_bridge.json
python benchmarks/certificate_report.py docs/certificate_generator.json docs/certificate_bridge.json
```"""


def main(argv=None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "certificates.md")
    arguments = parser.parse_args(argv)
    records = [read_record(parser, "records", path) for path in arguments.records]
    write_page(parser, arguments.out, lambda: page(records))


def page(records) -> str:
    """Return the page as Markdown."""
    return "\n\n".join([HEAD, *(section(record) for record in records)]) + "\n"


def section(record) -> str:
    """Return the tables of one model."""
    lines = [f"## `{record['model']['name']}`"]
    for kind in ("measured", "augmented"):
        table = record[kind]
        lines += ["", f"**{kind}**: {table['patients']} patients, {table['items']} sinograms or pairs, "
                  f"{table['copies']} predictions; loss {table['loss']:.4f}, of predicting nothing "
                  f"{table['loss_of_nothing']:.4f}.", "",
                  "| δ | certificate | test-set bound | if sinograms or pairs were counted, no certificate | "
                  "if predictions were |",
                  "|" + "---|" * 5]
        for row in table["rows"]:
            wrong, vacuous = row["not_certificates"], " (vacuous)" if row["vacuous"] else ""
            lines.append(f"| {row['delta']:g} | **{printed(row['bound'])}**{vacuous} | "
                         f"{printed(row['test_set_bound'])} | {wrong['items']:.4f} | {wrong['copies']:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
