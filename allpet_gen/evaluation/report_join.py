"""Sections of an earlier report beside new ones: models of one store need not all be measured in one run."""

import base64
import copy
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from allpet_gen.evaluation.report_models import GENERATORS
from allpet_gen.evaluation.translation_table import join_rows
from allpet_physics.errors import InputError

PAGE, RECORD = "report.html", "report.json"
#: Tables of generators, by name below; each generator was measured by itself beside the same real sinograms.
_BY_GENERATOR = ("left out", "prompts", "copies", "consistency", "consistency range")
_REAL, _UNGUIDED = "real, held out", "generator, guidance 1"
#: The order of generators in all tables.
_ORDER = (_REAL, *GENERATORS, _UNGUIDED)
#: Pictures of several models each, of which those of earlier reports follow the new one.
_SHEETS = ("methods", "correction")
_PICTURE = re.compile(r'<figure id="(\w+)"><img alt="[^"]*" src="data:image/png;base64,([^"]*)">')


def read_report(folder) -> tuple[dict, dict[str, bytes]]:
    """Return record and pictures, PNG files by name, of a report.

    Raises
    ------
    InputError
        A folder without a report, or with one that cannot be read or lacks a part.
    """
    try:
        record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
        page = (Path(folder) / PAGE).read_text(encoding="utf-8")
        made, tables = record["made"], record["tables"]
        for part in (made["models"], made["sheets"], tables["tier"]):
            part.keys()
        made["store"], made["date"], made["hardware"], made["command"], record["warnings"], tables["seed"]
        join_tables({"certificates": {}}, tables, ())
        return record, {name: base64.b64decode(data) for name, data in _PICTURE.findall(page)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"join must be the folder of a report of allpet evaluate, {PAGE} and {RECORD}, but "
                         f"{str(folder)!r} is none ({type(error).__name__}).") from None


def check_join(earlier: Mapping, store: str, tier: Mapping, seed: int) -> None:
    """Raise `InputError` unless an earlier report is of the same store, tier and seed."""
    for what, now, then in (("store", store, earlier["made"]["store"]), ("tier", dict(tier), earlier["tables"]["tier"]),
                            ("seed", seed, earlier["tables"]["seed"])):
        if now != then:
            raise InputError(f"join must be a report of the same {what}, {now}, but was of {then}; sections of both "
                             "could not be compared.")


def join_tables(tables: Mapping, earlier: Mapping, measured: Collection[str]) -> dict:
    """Return new tables and what earlier ones have of models that were not measured now.

    Generators and methods of translations join one by one, for each was measured beside the same real sinograms or on
    the same slices.

    Parameters
    ----------
    tables, earlier : mapping
        Of `allpet_gen.evaluation.report.evaluate`.
    measured : collection of str
        Models of the new tables; what earlier ones have under their names is left behind.

    Raises
    ------
    InputError
        Rows of translations of other slices.
    """
    out, earlier = copy.deepcopy(dict(tables)), copy.deepcopy(dict(earlier))

    def kept(found: Mapping) -> dict:
        return {name: value for name, value in found.items() if _model(name) not in measured}

    for part in (part for part in _BY_GENERATOR if part in earlier):
        out[part] = _ordered({**kept(earlier[part]), **out.get(part, {})})
    for key, by_tracer in earlier.get("distances", {}).items():
        now = out.setdefault("distances", {}).setdefault(key, {})
        for tracer, found in by_tracer.items():
            now[tracer] = _ordered({**kept(found), **now.get(tracer, {})})
    if "classes" in earlier:
        out.setdefault("classes", earlier["classes"])
    for name, row in earlier.get("translations", {}).items():
        for domain in ("sinograms", "images"):
            row[domain]["methods"] = kept(row[domain]["methods"])
        row["regions covered"] = kept(row["regions covered"])
        rows = out.setdefault("translations", {})
        rows[name] = join_rows(row, rows[name]) if name in rows else row
    return out | {"certificates": {**kept(earlier["certificates"]), **tables["certificates"]}}


def differing(tables: Mapping, earlier: Mapping) -> list[str]:
    """Return a sentence where real sinograms look otherwise in two reports: on other machines, sums round otherwise."""
    found = [part for part in ("prompts", "consistency") if part in tables and part in earlier
             and tables[part][_REAL] != earlier[part][_REAL]]
    return [f"what the earlier report says of real sinograms differs ({', '.join(found)}): it was made by another "
            "version or machine, and models of both are not compared to the last digit"] if found else []


def sheets(shown: Mapping) -> dict[str, list[str]]:
    """Return which models each of the new pictures of several models shows."""
    found = {"methods": [name for name in shown.get("drawn", ()) if name in GENERATORS],
             "correction": list(shown["correction"][1]) if "correction" in shown else []}
    return {sheet: models for sheet, models in found.items() if models}


def pictures_to_take(shown: Mapping, earlier: Mapping, pictures: Mapping[str, bytes],
                     measured: Collection[str]) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """Return the pictures of an earlier report that show what new ones do not, and the models on those of several.

    Pictures of several models follow the new one: ``methods2`` and so on.

    Parameters
    ----------
    shown : mapping
        Of the new `Evaluation`.
    earlier : mapping
        Which models each earlier picture shows.
    pictures : mapping of str to bytes
        Earlier ones.
    measured : collection of str
        Models of the new report.
    """
    taken, models = {}, {}
    for sheet in _SHEETS:
        number = 1 + (sheet in sheets(shown))
        for name in in_order(pictures, sheet):
            if set(earlier.get(name, ())) - set(measured):
                new = sheet if number == 1 else f"{sheet}{number}"
                taken[new], models[new], number = pictures[name], list(earlier[name]), number + 1
    if "generator" not in measured:
        taken |= {name: pictures[name] for name in ("drawn",) if name in pictures}
    if "pairs" not in shown and not {"generator", "bridge"} & set(measured):
        taken |= {name: pictures[name] for name in ("pairs",) if name in pictures}
    return taken, models


def in_order(pictures: Collection[str], sheet: str) -> list[str]:
    """Return the names of all pictures of a kind, in the order of their numbers."""
    found = [name for name in pictures if re.fullmatch(rf"{sheet}\d*", name)]
    return sorted(found, key=lambda name: int(name.removeprefix(sheet) or 1))


def _model(name: str) -> str:
    """Return the model that a name in a table is of."""
    return name.partition(",")[0]


def _ordered(found: Mapping) -> dict:
    """Return what was found of generators in the order of the tables."""
    return {name: found[name] for name in sorted(found, key=_ORDER.index)}
