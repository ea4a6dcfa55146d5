"""Write docs/generator.md from the records of generator_quality.py and generator_ablations.py.

    python benchmarks/generator_report.py docs/generator_small.json docs/generator_ablations.json
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _record import read_record, write_page

from allpet_gen.certificate import printed
from allpet_gen.prompt_guidance import guidance_words

ROOT = Path(__file__).resolve().parents[1]


def main(argv=None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quality", type=Path)
    parser.add_argument("ablations", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "generator.md")
    arguments = parser.parse_args(argv)
    ablations = read_record(parser, "ablations", arguments.ablations) if arguments.ablations else None
    quality = read_record(parser, "quality", arguments.quality)
    write_page(parser, arguments.out, lambda: page(quality, ablations))


def page(record: dict, ablations: dict | None) -> str:
    """Return the page as Markdown."""
    parts = [HEAD.format(**record | {"guidance": guidance_words(record["guidance"])})]
    parts += [section(record[name]) for name, section in SECTIONS.items() if name in record]
    if ablations:
        parts.append(ablation_table(ablations))
    return "\n\n".join(parts) + "\n"


HEAD = """# The generator, measured

Model `{model}`, {date}, on {machine}; {n_test} sinograms of {split} patients, of whom the model has seen none;
{n_generated} drawn sinograms, seed {seed}, {steps} DDIM steps, guidance {guidance} after {guidance_start:.0%} of
the steps with rescaling {rescale:g}, which were chosen on validation patients: with less the prompt is obeyed less,
with more there are counts that no scan has, and from the first step on it makes caricatures of the body's outline.
Every figure stands beside its floor or control. Repeat it with
`python benchmarks/generator_quality.py small cohort.zarr --json docs/generator_small.json`, after
`allpet simulate --patients 720 --seed 2026 --size 128 --out cohort.zarr`, and this page with
`python benchmarks/generator_report.py docs/generator_small.json docs/generator_ablations.json`."""


def autoencoder(found: dict) -> str:
    """Return the section on the autoencoder."""
    total, noise, ideal = (found[k] for k in ("total_count_ratio", "root_error_over_noise",
                                              "root_error_over_noise_of_the_truth"))
    lines = ["## Autoencoder", "",
             f"{found['n']} held-out sinograms, encoded (mean of the posterior) and decoded. A small latent cannot "
             "hold noise, so the measured counts are compared with what noise-free truth would reach: the ceiling.", "",
             "| | decoded | noise-free truth |", "|---|---|---|",
             f"| total counts, ratio (5–95 %; largest error) | {total['mean']:.4f} ({total['p5']:.4f}–"
             f"{total['p95']:.4f}; {100 * found['largest_total_error']:.2f} %) | |",
             f"| RMSE of √counts over Poisson's ½ | {noise['mean']:.3f} | {ideal['mean']:.3f} |",
             f"| Poisson deviance per bin | {found['deviance']['mean']:.3f} | 1 |"]
    for name in ("osem, filtered", "osem", "fbp"):
        row = found[f"psnr, {name}"]
        lines.append(f"| PSNR against the image of the measured counts, {name} | {row['decoded']['mean']:.1f} dB | "
                     f"{row['truth without noise']['mean']:.1f} dB |")
    filtered = found["psnr, osem, filtered"]
    near = filtered["decoded against truth"]["mean"]
    lines += [f"| PSNR against the image of the truth, osem, filtered | {near:.1f} dB | |", "",
              "PSNR of filtered OSEM by class, decoded (truth without noise):", ""]
    lines += [f"- {name}: {pair[0]:.1f} ({pair[1]:.1f}) dB" for name, pair in filtered["by class"].items()]
    return "\n".join(lines)


def distances(found: dict) -> str:
    """Return the section on distances."""
    lines = ["## Distances", "",
             "Generated against held-out real, and real against real: two halves of the held-out patients with the "
             "same number on each side. Mean over random halvings (95 % interval). \"random-cnn\": an untrained "
             "network with fixed weights, 24 whitened axes; \"statistics\": 28 named statistics. None of them is the "
             "FID of photographs."]
    lines += ["", "| domain, features | distance | generated | real against real | ratio |", "|---|---|---|---|---|"]
    for name, result in found.items():
        for metric in ("frechet", "kernel_rbf", "kernel_polynomial", "precision", "recall", "density", "coverage"):
            made, floor = result[metric]["generated"], result[metric]["floor"]
            ratio = f"{made['value'] / floor['value']:.2f}" if metric == "frechet" else ""
            lines.append(f"| {name} | {metric.replace('_', ' ')} | {cell(made)} | {cell(floor)} | {ratio} |")
    return "\n".join(lines)


def cell(values: dict) -> str:
    """Return a value with its interval."""
    return f"{values['value']:.3g} ({values['low']:.3g}–{values['high']:.3g})"


def prompts(found: dict) -> str:
    """Return the section on obedience to prompts."""
    lines = ["## Obedience to the prompt", "",
             "A classifier trained on the real training sinograms names the tracer and the region. Tracers overlap "
             "where a slice holds no organ that tells them apart, so its figure on real held-out sinograms is what can "
             "be hoped for.",
             "", "| | tracer | region | both |", "|---|---|---|---|"]
    lines += [f"| {name} | {100 * r['tracer']:.1f} % | {100 * r['region']:.1f} % | {100 * r['both']:.1f} % |"
              for name, r in found.items()]
    names = list(found)
    lines += ["", "Both right, by class:", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for prompt in found[names[0]]["by class"]:
        lines.append(f"| {prompt} | " + " | ".join(f"{100 * found[n]['by class'][prompt]:.0f} %" for n in names) + " |")
    return "\n".join(lines)


def stronger(found: dict) -> str:
    """Return the section on a stronger guidance."""
    named = found["prompts"]
    lines = ["## A stronger guidance", "",
             f"With guidance {guidance_words(found['guidance'])}, chosen on validation patients, the classifier names "
             f"the tracer of {100 * named['tracer']:.1f} %, the region of {100 * named['region']:.1f} % and both of "
             f"{100 * named['both']:.1f} %. Where that is more than of real ones, it is exaggeration: drawn "
             "sinograms move to where a class is most itself. What it costs, beside the table of distances:", "",
             "| domain, features | Fréchet | real against real | ratio | precision | recall | coverage |",
             "|" + "---|" * 7]
    for name, result in found["distances"].items():
        made, floor = result["frechet"]["generated"], result["frechet"]["floor"]
        lines.append(f"| {name} | {cell(made)} | {cell(floor)} | {made['value'] / floor['value']:.2f} | " + " | ".join(
            f"{result[metric]['generated']['value']:.2f}" for metric in ("precision", "recall", "coverage")) + " |")
    lines += ["", "Both right, by class:", ""]
    lines += [f"- {prompt}: {100 * share:.0f} %" for prompt, share in named["by class"].items()]
    return "\n".join(lines)


def consistency(found: dict) -> str:
    """Return the section on consistency."""
    lines = ["## Data consistency", "",
             "Helgason–Ludwig residuals of orders 0 to 3 of uncorrected counts, in per cent. Attenuation, scatter and "
             "randoms keep those of real sinograms from zero: what a generator should have is what real ones have.", "",
             "| | order 0 | 1 | 2 | 3 |", "|---|---|---|---|---|"]
    for name, rows in found.items():
        lines += [f"| {name}, {group} | " + " | ".join(f"{100 * v:.1f}" for v in values) + " |"
                  for group, values in rows.items() if group == "all"]
    prompts_of = [g for g in next(iter(found.values())) if g != "all"]
    lines += ["", "Order 0 by class:", "", f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    lines += [f"| {p} | " + " | ".join(f"{100 * rows[p][0]:.1f}" for rows in found.values()) + " |" for p in prompts_of]
    return "\n".join(lines)


def copies(found: dict) -> str:
    """Return the section on memorisation."""
    def share(of):
        return f"{100 * of['value']:.1f} % ({100 * of['low']:.1f}–{100 * of['high']:.1f})"

    sides = ("generated", "held_out")
    lines = ["## Copies of training patients", "",
             f"Distance to the nearest of {found['n_training']} training sinograms over all rotations and the mirror, "
             f"with noise taken out. A copy is nearer than {100 * found['quantile']:.0f} % of held-out sinograms are; "
             "an authentic one is further from its nearest than that one is from its own.", "",
             f"| | {found['n_generated']} generated | {found['n_held_out']} held out, {found['n_held_out_patients']} "
             "patients |", "|---|---|---|"]
    lines += [f"| {name} | " + " | ".join(share(found[key][side]) for side in sides) + " |"
              for name, key in (("copies", "copies"), ("authentic", "authenticity"))]
    lines.append("| median distance | " + " | ".join(f"{found['median_distance'][side]:.3f}" for side in sides) + " |")
    return "\n".join(lines)


def seconds(found: dict) -> str:
    """Return the section on time."""
    rows = ", ".join(f"{value:.2f} s for {name}" for name, value in found.items() if name.endswith("steps"))
    return (f"## Time per sinogram\n\n{rows}; {found['threads']} threads, {found['device']}, eight at a time, "
            "with classifier-free guidance.")


def memory(found: dict) -> str:
    """Return the section on memory."""
    lines = ["## Memory of training", "",
             "Counted exactly from the networks (weights, gradients, AdamW's and averaged weights, tensors saved for "
             "the backward pass, workspace), not measured on a GPU.", "",
             "| size and stage | batch | parameters | all | checkpointing of gradients |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {row['batch']} | {row['parameters'] / 1e6:.0f} MB | {row['total'] / 1e9:.2f} GB | "
              f"{'yes' if row['gradient_checkpointing'] else 'no'} |" for name, row in found.items()]
    return "\n".join(lines)


def ablation_table(found: dict) -> str:
    """Return the table of ablations."""
    lines = ["## What the parts are worth", "",
             f"64 × 64, {found['settings']['training.autoencoder.steps']} steps of the autoencoder and "
             f"{found['settings']['training.denoiser.steps']} of the denoiser for every variant, {found['count']} "
             "drawn sinograms, guidance 1.5 at all steps, against held-out patients. Features are those of the random "
             "network, here with the ones that hardly vary, which are left out above. Floors in brackets. One training "
             "of each: a difference between two rows that is smaller than the intervals above says nothing. It may be "
             "that so short a training favours less to learn: in images all parts together are the worst, and the "
             "variant without min-SNR weights and zero terminal SNR has the smallest distances of sinograms.", "",
             "```", "python benchmarks/generator_ablations.py --autoencoder-steps "
             f"{found['settings']['training.autoencoder.steps']} --denoiser-steps "
             f"{found['settings']['training.denoiser.steps']} --json docs/generator_ablations.json", "```", "",
             "| variant | Fréchet, sinograms | Fréchet, images | kernel, sinograms | kernel, images | "
             "precision, recall of sinograms |",
             "|---|---|---|---|---|---|"]
    for name, row in found["variants"].items():
        cells = [f"{row[d][m]['generated']:.3g} ({row[d][m]['floor']:.3g})" for m in ("frechet", "kernel_polynomial")
                 for d in ("sinogram", "image")]
        near = ", ".join(f"{row['sinogram'][m]['generated']:.2f}" for m in ("precision", "recall"))
        lines.append(f"| {name} | " + " | ".join([*cells, near]) + " |")
    if all("certificate" in row for row in found["variants"].values()):
        lines += ["", "Certified denoising loss (PAC-Bayes, δ = 0.05, n in test patients), as a share of what "
                  "predicting nothing has. Each variant predicts in latents of its own: those of composites hold masks "
                  "that nobody can predict, so their loss is higher, and so is its bound.", "",
                  "| variant | patients | loss, as measured | bound | loss, augmented | bound |", "|" + "---|" * 6]
        for name, row in found["variants"].items():
            kinds = [row["certificate"][kind] for kind in ("measured", "augmented")]
            cells = [text for kind in kinds for text in (f"{kind['loss']:.4f}", printed(kind["bound"]))]
            lines.append(f"| {name} | {kinds[0]['patients']} | {' | '.join(cells)} |")
    return "\n".join(lines)


SECTIONS = {"autoencoder": autoencoder, "distances": distances, "prompts": prompts, "stronger": stronger,
            "consistency": consistency, "copies": copies, "seconds": seconds, "memory": memory}


if __name__ == "__main__":
    main()
