"""Sections of an earlier report beside new ones: models of one store need not all be measured in one run."""

import base64
import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path

from allpet_physics.errors import InputError

PAGE, RECORD = "report.html", "report.json"
#: Tables of generators, by name below; each generator was measured by itself beside the same real sinograms.
_BY_GENERATOR = ("left out", "prompts", "copies", "consistency")
#: The order of generators in all tables.
_ORDER = ("real, held out", "generator", "vae", "gan", "sgm", "generator, guidance 1")
_CORRECTION = "attenuation correction"
_PICTURE = re.compile(r'<figure id="(\w+)"><img alt="[^"]*" src="data:image/png;base64,([^"]*)">')


def read_report(folder) -> tuple[dict, dict[str, bytes]]:
    """Return record and pictures, PNG files by name, of a report.

    Raises
    ------
    InputError
        A folder without a report, or with one that cannot be read.
    """
    try:
        record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
        page = (Path(folder) / PAGE).read_text(encoding="utf-8")
        for part in (record["tables"]["tier"], record["tables"]["certificates"], record["made"]["models"]):
            part.keys()
        record["tables"]["seed"], record["made"]["store"]
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


def join_tables(tables: Mapping, earlier: Mapping) -> dict:
    """Return new tables and what earlier ones have beyond them.

    Generators and methods of translations join one by one, for each was measured beside the same real sinograms or on
    the same slices. Of what both have, the new one stays.
    """
    out, earlier = copy.deepcopy(dict(tables)), copy.deepcopy(dict(earlier))
    for name in (part for part in _BY_GENERATOR if part in earlier):
        out[name] = _ordered({**earlier[name], **out.get(name, {})})
    for key, by_tracer in earlier.get("distances", {}).items():
        now = out.setdefault("distances", {}).setdefault(key, {})
        for tracer, found in by_tracer.items():
            now[tracer] = _ordered({**found, **now.get(tracer, {})})
    if "classes" in earlier:
        out["classes"] = earlier["classes"]
    for name, row in earlier.get("translations", {}).items():
        now = out.setdefault("translations", {}).setdefault(name, row)
        for domain in ("sinograms", "images"):
            now[domain]["methods"] = {**row[domain]["methods"], **now[domain]["methods"]}
        now["regions covered"] = {**row["regions covered"], **now["regions covered"]}
    return out | {"certificates": {**earlier["certificates"], **tables["certificates"]}}


def pictures_to_take(tables: Mapping, shown: Mapping, earlier: Mapping, pictures: Mapping[str, bytes]) -> dict:
    """Return the pictures of an earlier report that show what new tables lack; to be asked before they are joined.

    Sheets of generators that are not drawn now follow the new one: ``methods2`` and so on.
    """
    wanted = {}
    now, before = (set(t.get("prompts", ())) for t in (tables, earlier))
    if before - now:
        sheets = [name for name in sorted(pictures) if name.startswith("methods")]
        wanted = {name: f"methods{k}" if k > 1 else "methods" for k, name in enumerate(sheets, 2 if now else 1)}
    if "generator" not in now:
        wanted["drawn"] = "drawn"
    if "pairs" not in shown:
        wanted["pairs"] = "pairs"
    now, before = (set(t["translations"][_CORRECTION]["images"]["methods"]) if _CORRECTION in t.get("translations", {})
                   else set() for t in (tables, earlier))
    if before - now:
        wanted["correction"] = "correction"
    return {new: pictures[name] for name, new in wanted.items() if name in pictures}


def _ordered(found: Mapping) -> dict:
    """Return what was found of generators in the order of the tables."""
    return {name: found[name] for name in sorted(found, key=_ORDER.index)}
