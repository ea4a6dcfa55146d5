"""Sections of an earlier report beside new ones: models of one store need not all be measured in one run."""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path

from allpet_physics.errors import InputError

PAGE, RECORD = "report.html", "report.json"
#: Tables and pictures of generators, which belong together: their distances share floors, a classifier and a scale.
_GENERATORS = ("left out", "distances", "prompts", "copies", "consistency", "classes"), ("drawn", "methods",
                                                                                        "distances")
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
        record["tables"]["certificates"], record["made"]["store"], record["made"]["models"]
        return record, {name: base64.b64decode(data) for name, data in _PICTURE.findall(page)}
    except (OSError, ValueError, KeyError, TypeError) as error:
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

    Methods of translations join row by row, for each was measured on the same slices; generators are taken as they are
    where there are none now. Of what both have, the new one stays.
    """
    out = dict(tables)
    if "distances" not in tables:
        out |= {name: earlier[name] for name in _GENERATORS[0] if name in earlier}
    for name, row in earlier.get("translations", {}).items():
        now = out.setdefault("translations", {}).setdefault(name, row)
        for domain in ("sinograms", "images"):
            now[domain]["methods"] = {**row[domain]["methods"], **now[domain]["methods"]}
        now["regions covered"] = {**row["regions covered"], **now["regions covered"]}
    return out | {"certificates": {**earlier["certificates"], **tables["certificates"]}}


def pictures_to_take(tables: Mapping, shown: Mapping, earlier: Mapping, pictures: Mapping[str, bytes]) -> dict:
    """Return the pictures of an earlier report that show what new tables lack; to be asked before they are joined."""
    wanted = [] if "distances" in tables else list(_GENERATORS[1])
    if "pairs" not in shown:
        wanted.append("pairs")
    now, before = (set(t["translations"][_CORRECTION]["images"]["methods"]) if _CORRECTION in t.get("translations", {})
                   else set() for t in (tables, earlier))
    if before - now:
        wanted.append("correction")
    return {name: pictures[name] for name in wanted if name in pictures}
