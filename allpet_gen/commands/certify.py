"""``allpet certify``: how large the denoising loss of a trained model can be on patients that it never saw."""

import click

from allpet_gen._torch import require_torch
from allpet_physics import _command_line as line

#: The rows of the table: with masks and views that are drawn, and without.
_KINDS = {"measured": False, "augmented": True}


@line.command("certify", short_help="A PAC-Bayes certificate for a trained generator or bridge.", example="""
allpet certify small cohort.zarr
allpet certify bridge-small cohort.zarr --delta 0.01 --out certificate.json
allpet certify trained/ cohort.zarr --patients 60 --json""")
@click.argument("model", type=line.FilePath(), metavar="MODEL")
@click.argument("store", type=line.FilePath(), metavar="STORE")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True,
              help="Part of the store; patients that the model was trained on are refused.")
@click.option("--patients", type=click.IntRange(1), metavar="N", help="Of all regions together [default: all].")
@click.option("--delta", "deltas", type=click.FloatRange(0, 1, min_open=True, max_open=True), multiple=True,
              default=(0.001, 0.005, 0.01, 0.05), show_default=True, metavar="D",
              help="Chance that a bound fails; repeat.")
@click.option("--draws", type=click.IntRange(1), default=4, show_default=True, metavar="N",
              help="Times and noises of each sinogram.")
@click.option("--maps", type=click.IntRange(1), default=50_000, show_default=True, metavar="N",
              help="Draws from the posterior.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N")
@click.option("--out", type=line.FilePath(), metavar="JSON", help="Write all figures there.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, model, store, split, patients, deltas, draws, maps, seed, out, overwrite, as_json, quiet):
    """Bound the denoising loss of MODEL for a new patient, from the patients of STORE that it was not trained on.

    MODEL is a generator or a bridge: "small", "bridge-small", or a folder that allpet train wrote. The loss is the mean
    squared error of what the network predicts, with the variance of that as its unit: predicting nothing has 1.

    \b
    measured     sinograms as they are, with one block in the middle
    augmented    turned, mirrored and, for a generator, with masks that are drawn (RMAS and DMM)
    Augmentation adds no patients. Beside each certificate stands what it would be if sinograms, or copies of them, were
    counted in place of patients; these are not independent, and that is NOT a certificate. The test-set bound is for
    the network as it is, to which nothing was fitted here; the certificate allows for a posterior.
    """
    require_torch()
    from allpet_gen._pretrained import model_digests
    from allpet_gen.certificate import certificate_table
    from allpet_gen.commands._translation_results import versions_of_all
    from allpet_gen.denoising_moments import denoising_moments, load_certifiable
    from allpet_gen.training_card import store_digest
    from allpet_physics._files import refuse_existing, refuse_unwritable, staged
    from allpet_physics._record import plain
    from allpet_physics.commands._roi2sino_results import write_record
    from allpet_physics.simulation.cohort_reader import read_cohort

    if out is not None:
        refuse_existing(out.parent, [out.name], overwrite)
        refuse_unwritable(out.parent)
    cohort = read_cohort(store)
    progress = line.Progress(quiet)
    progress.stage("loading the model")
    pipe, folder = load_certifiable(model)
    tables = {}
    for kind, augmented in _KINDS.items():
        moments = denoising_moments(
            pipe, folder, cohort, split=split, patients=patients, augmented=augmented, draws=draws, seed=seed,
            progress=lambda items, kind=kind: progress(items, f"predictions, {kind}", unit="patient"))
        progress.stage("drawing from the posteriors")
        tables[kind] = certificate_table(moments, draws, deltas=deltas, n_draws=maps, seed=seed)
    record = plain({"allpet": "certify", "command": line.command_line(ctx), "versions": versions_of_all(),
                    "model": {"name": line.base_name(model), "files": model_digests(folder)},
                    "store": {"sha256": store_digest(cohort), "split": split}, "draws": draws, "maps": maps,
                    "seed": seed, **tables})
    if out is not None:
        with staged(out.parent, [out.name], overwrite=overwrite) as staging:
            write_record(staging / out.name, record)
    line.finish(record | {"result": "done", "exit_code": 0}, _lines(record, out), as_json, quiet)


def _lines(record: dict, out) -> list[str]:
    from allpet_gen.certificate import printed

    lines = []
    for kind in _KINDS:
        table = record[kind]
        lines += [f"{kind}: {table['patients']} patients, loss {table['loss']:.4f} "
                  f"(predicting nothing {table['loss_of_nothing']:.4f})",
                  "    delta  certificate  test-set bound | NOT certificates: counted as "
                  f"{table['items']} sinograms or pairs, as {table['copies']} copies"]
        for row in table["rows"]:
            wrong = row["not_certificates"]
            lines.append(f"    {row['delta']:<6g} {printed(row['bound'])}{' vacuous' if row['vacuous'] else '':9s}"
                         f"{printed(row['test_set_bound'])}          {wrong['items']:.4f}  {wrong['copies']:.4f}")
    lines += [record[kind]["rows"][-1]["claim"] for kind in _KINDS]
    if record["store"]["split"] == "validation":
        lines.append("note: settings that were chosen on validation patients, such as a guidance, make these no "
                     "certificates of a model with them.")
    return lines + ([] if out is None else [f"written  {out}"])
