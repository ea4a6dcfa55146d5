"""The report as one page: HTML with its pictures inside, nothing to load from elsewhere."""

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path

from allpet_gen.certificate import printed
from allpet_gen.evaluation.report_join import in_order
from allpet_gen.prompt_guidance import guidance_words

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;font-size:13px;margin:.8rem 0}th,td{padding:.15rem .6rem;text-align:right}
th{border-bottom:1px solid #888}td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f4f4f4}
img{max-width:100%;height:auto}code{background:#f0f0f0;padding:.1rem .3rem}figure{margin:1rem 0;overflow-x:auto}
.absent{color:#777;font-style:italic}"""

#: What the tables of generators show: distances, each beside its floor, and shares, with those of real ones in words.
_DISTANCES = {"frechet": "Fréchet", "kernel_rbf": "kernel (RBF)", "kernel_polynomial": "kernel (polynomial)"}
_SHARES = ("precision", "recall", "density", "coverage")


def page(record: Mapping, pictures: Mapping[str, Path]) -> str:
    """Return the report.

    Parameters
    ----------
    record : mapping
        ``tables`` of `allpet_gen.evaluation.report.evaluate`, and ``made``: how, of what and by what.
    pictures : mapping of str to path
        PNG files by name.
    """
    tables, made = record["tables"], record["made"]
    parts = [_head(tables, made), _section("Figure 2: drawn sinograms", pictures, "drawn"),
             _section("Figure 3: pairs for five tasks, drawn", pictures, "pairs",
                      "Low doses are thinned, which is a shorter scan; other targets are the bridge's estimates, no "
                      "truth. A mixture is the drawn scan and counts around its conversion, so both are of one body."),
             _section("Figure 4: generators beside one another", pictures, "methods", *_generators(tables)),
             _section("Figure 5: translations", pictures, "translations", *_translations(tables)),
             _section("Figure 6: attenuation correction", pictures, "correction", *_correction(tables)),
             _section("Figure 7: PAC-Bayes bounds", pictures, "bounds", *_bounds(tables))]
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8"><title>allpet, evaluated</title>'
            f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n")


def table(head, rows) -> str:
    """Return a table; cells are texts, escaped here."""
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def with_interval(found: Mapping | None, digits: int = 3) -> str:
    """Return a mean with its interval, as text."""
    if not found or found.get("mean", found.get("value")) is None:
        return "–"
    value = f"{found.get('mean', found.get('value')):.{digits}g}"
    if found.get("low") is None:
        return value
    return f"{value} ({found['low']:.{digits}g} to {found['high']:.{digits}g})"


def _head(tables, made) -> str:
    tier = tables["tier"]
    models = table(["model", "digest", "trained: steps x batch", "starts at", "asked"], [
        (name, m["digest"][:16], ", ".join(f"{part} {t['steps']} x {t['batch']}" for part, t in m["training"].items()),
         m["start"] or "", ", ".join(f"{n} {guidance_words(v)}" for n, v in m["asked"].items()) or "by default")
        for name, m in made["models"].items()])
    starts = {m["start"] for m in made["models"].values() if m["start"]}
    if len(starts) > 1:
        models += ("<p><b>Translations here start at different places (data.start): that, and not the method alone, "
                   "may set them apart.</b></p>")
    return (f"<h1>allpet, evaluated</h1><p>The results of arXiv 2509.09130 redone on simulated patients, by sections "
            f"that follow its figures. Test patients of the store {escape(made['store'][:16])}, whom no model was "
            f"trained on; tier {escape(made['tier'])}: {tier['drawn']} sinograms of each generator, {tier['patients']} "
            f"patients and {tier['samples']} samples for translations, seed {tables['seed']}. Brackets are intervals "
            f"of 95 %: of generators over halvings of the patients, of translations over patients.</p><p>"
            f"{_made(made)}</p>{models}")


def _made(made) -> str:
    joined = f"<br>Joined to: {_made(made['joined'])}" if "joined" in made else ""
    return f"{escape(made['date'])}, {escape(made['hardware'])}: <code>{escape(made['command'])}</code>{joined}"


def _section(title: str, pictures, name: str, *texts: str) -> str:
    body = "".join(text if text.startswith("<") else f"<p>{escape(text)}</p>" for text in texts if text)
    names = [*in_order(pictures, name), *(["distances"] if name == "methods" and "distances" in pictures else [])]
    shown = "".join(_picture(pictures[known], known, title) for known in names)
    if not shown and name == "pairs":
        body = '<p class="absent">Not evaluated: no run had both a generator and a bridge.</p>'
    elif not shown and not body:
        body = '<p class="absent">Not evaluated: no model for it was given.</p>'
    return f"<h2>{escape(title)}</h2>{shown}{body}"


def _picture(path: Path, name: str, title: str) -> str:
    data = base64.b64encode(Path(path).read_bytes()).decode()  # as `report_join.read_report` finds it again
    return f'<figure id="{name}"><img alt="{escape(title)}" src="data:image/png;base64,{data}"></figure>'


def _generators(tables) -> list[str]:
    empty = {name: n for name, n in tables.get("left out", {}).items() if n}
    counts = ", ".join(f"{name} {n}" for name, n in empty.items())
    left = [f"Empty draws that were left out: {counts}."] if empty else []
    if "distances" not in tables:
        return left
    again = ", and again without any (guidance 1)" if "generator, guidance 1" in tables["prompts"] else ""
    asked = ("The generator draws as the table of models says that it was asked to" + again
             + "; the others have no guidance. ") if "generator" in tables["prompts"] else ""
    parts = ["Fréchet and kernel distances to test patients; the floor is that of real against real, for as many "
             f"samples. {asked}None of them is the FID of photographs. Precision and recall say how much of either "
             "side lies within the other."]
    for key, by_tracer in tables["distances"].items():
        rows = [(tracer, name, f"{found['n_features']}",
                 *(with_interval(found[metric][side]) for metric in _DISTANCES for side in ("generated", "floor")),
                 *(f"{with_interval(found[metric]['generated'], 2)}, real {found[metric]['floor']['value']:.2g}"
                   for metric in _SHARES))
                for tracer, methods in by_tracer.items() for name, found in methods.items()]
        parts += [f"<h3>{escape(key)}</h3>", table(["tracer", "generator", "features", *(
            text for metric in _DISTANCES.values() for text in (metric, "floor")), *_SHARES], rows)]
    rows = [(name, f"{100 * f['tracer']:.0f} %", f"{100 * f['region']:.0f} %", with_interval(f["score"]))
            for name, f in tables["prompts"].items()]
    parts += ["<h3>Prompts</h3>", "What a classifier of real training sinograms names, and the exponential of the mean "
              "divergence of its certainty (a score in the manner of Inception, by a classifier of sinograms).",
              table(["", "tracer as asked", "region as asked", "score"], rows)]
    parts += left
    rows = [(name, by, f"{f['n_training']}", *(
        f"{100 * found[key][side]['value']:.1f} %" for key in ("copies", "authenticity")
        for side in ("generated", "held_out"))) for name, f in tables["copies"].items()
        for by, found in (("bins", f), ("features", f.get("in features"))) if found]
    parts += ["<h3>Copies of training patients</h3>",
              "Of patients of this store that a model was trained on; a model of another store has none here. "
              "Neighbours are looked for over rotations and the mirror, by bins and by features of the random network.",
              table(["", "by", "compared with", "copies", "held-out patients", "authentic", "held-out patients"], rows)]
    spread = tables.get("consistency range", {})
    rows = [(name, *(f"{100 * v:.1f} %" + (" ({:.1f} to {:.1f})".format(*(100 * w for w in within)) if within else "")
                     for v, within in zip(values, spread.get(name) or [None] * len(values), strict=True)))
            for name, values in tables["consistency"].items()]
    return [*parts, "<h3>Helgason–Ludwig residuals</h3>", "Mean, and the middle 90 % of sinograms.",
            table(["", "order 0", "1", "2", "3"], rows)]


def _translations(tables) -> list[str]:
    parts = []
    for row, found in tables.get("translations", {}).items():
        parts += [f"<h3>{escape(row)}</h3>", _paired(found), _quantitative(found)]
    return ["Expected counts are the truth; images are OSEM with the true factors of the target. Nothing is masked, "
            "and one range holds for all slices of a row. The second table of each row: the Poisson deviance of a bin, "
            "of counts of the target that the source does not share, beside what it is on average where the estimate "
            "is right; Helgason–Ludwig residuals of the estimate's line integrals, the truth's in the last line; and "
            "the contrast of lesions to their surroundings, as a part of the true one.", *parts] if parts else []


def _correction(tables) -> list[str]:
    found = tables.get("translations", {}).get("attenuation correction")
    return [] if found is None else ["“source” is no correction, brought to the total of other patients; “with CT” has "
                                     "the true factors and is the ceiling. Models with “+sd” saw drawn pairs too.",
                                     _paired(found), _quantitative(found)]


def _paired(found) -> str:
    rows = []
    for name, images in found["images"]["methods"].items():
        counts = found["sinograms"]["methods"][name]["metrics"]
        lesions = images["regions"]["lesions"]["bias"]
        seen = images["metrics"]
        cells = [(counts["psnr"], 3), (counts["ssim"], 2), (counts["rmse"], 3), (counts["total_error"], 2),
                 (seen["psnr"], 3), (seen["ssim"], 2), (seen["rmse"], 3), (lesions, 2)]
        rows.append((name, *(with_interval(value, digits) for value, digits in cells)))
    return table(["", "PSNR, sinograms", "SSIM", "RMSE, counts", "total, relative", "PSNR, images", "SSIM", "RMSE, SUV",
                  "lesions, bias"], rows)


def _quantitative(found) -> str:
    """Return a table of deviance, consistency and contrast; reports of earlier versions have a part of it."""
    def residuals(values):
        return [with_interval(values.get(f"consistency_{order}"), 2) for order in range(4)]

    rows = []
    for name, sinograms in found["sinograms"]["methods"].items():
        counts, lesions = sinograms["metrics"], found["images"]["methods"][name].get("lesions", {})
        rows.append((name, with_interval(counts.get("deviance")), with_interval(counts.get("deviance_expected")),
                     *residuals(counts), with_interval(lesions.get("recovery"), 2)))
    if "truth" in found["sinograms"]:
        rows.append(("truth", "", "", *residuals(found["sinograms"]["truth"]), ""))
    return table(["", "deviance", "if right", "residual, order 0", "1", "2", "3", "lesions, contrast"], rows)


def _bounds(tables) -> list[str]:
    parts = []
    for name, kinds in tables["certificates"].items():
        rows = [(kind, f"{row['delta']:g}", f"{printed(row['bound'])}{' (vacuous)' if row['vacuous'] else ''}",
                 printed(row["test_set_bound"]), f"{row['not_certificates']['copies']:.4f}")
                for kind, t in kinds.items() for row in t["rows"]]
        losses = ", ".join(f"{kind} {t['loss']:.4f} ({t['patients']} patients, {t['copies']} copies)"
                           for kind, t in kinds.items())
        parts += [f"<h3>{escape(name)}</h3>", f"Denoising loss: {losses}; predicting nothing has about 1.",
                  table(["", "δ", "certificate", "test-set bound", "copies counted as patients: NOT a certificate"],
                        rows)]
    return ["“measured” are sinograms as they are, “augmented” turned, mirrored and, for the generator, with masks "
            "that are drawn. Augmentation adds no patients: what the last column seems to gain is counting alone.",
            *parts] if parts else []
