"""Reading the two editable tables of tracers: uptake by organ and time-activity curves by tissue.

Both are CSV files with a header row; lines that start with ``#`` and blank lines are skipped. The packaged ones,
``uptake.csv`` and ``kinetics.csv``, stand beside this module and explain their columns; a user's copy is passed by its
path. Every row names its source or says "assumption".
"""

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from allpet_physics.errors import InputError
from allpet_physics.simulation.kinetics import BiExponential, TwoTissue
from allpet_physics.simulation.organs import ORGAN_NAME, group_numbers, organ_number
from allpet_physics.simulation.tracer_names import parse_tracer

UPTAKE_COLUMNS = ("tracer", "organ", "statistic", "suv", "sd", "mean_per_suv", "family", "shared", "tissue", "source")
KINETICS_COLUMNS = ("tracer", "tissue", "model", "K1", "k2", "k3", "k4", "Vb", "uptake", "washout", "source")
#: Columns of rate constants by model.
MODELS = {"two-tissue": (TwoTissue, ("K1", "k2", "k3", "k4", "Vb")),
          "bi-exponential": (BiExponential, ("uptake", "washout"))}
#: What holds no tracer: its uptake is 0 and no table may say otherwise.
EMPTY_ORGANS = ("air", "airway", "bowel_gas", "table")
LESIONS = ("lesion_hot", "lesion_cold")
#: The tissue of a cold lesion: it follows its host's curve.
HOST = "host"


@dataclass(frozen=True)
class UptakeRow:
    """Uptake of one organ at 60 min: a row of the table.

    Parameters
    ----------
    organ : str
    mean, sd : float
        Mean over patients and standard deviation between them of the organ's mean SUV (of the ratio to the host for
        ``lesion_cold``; of the SUV above the host for ``lesion_hot``).
    family : str
        Organs of one family vary together.
    shared : float
        How much, in [0, 1].
    tissue : str
        Whose time-activity curve the organ follows.
    statistic : str
        ``"SUVmean"``, ``"SUVmax"`` (already multiplied by the row's factor) or ``"ratio"``.
    source : str
    """

    organ: str
    mean: float
    sd: float
    family: str
    shared: float
    tissue: str
    statistic: str
    source: str


@dataclass(frozen=True)
class KineticsRow:
    """Time-activity curve of one tissue: a row of the table."""

    tissue: str
    model: TwoTissue | BiExponential
    source: str


@dataclass(frozen=True)
class TracerTables:
    """Both tables, by the tracer's name, then by organ or tissue, and the names of the files for messages."""

    uptake: dict[str, dict[str, UptakeRow]]
    kinetics: dict[str, dict[str, KineticsRow]]
    uptake_file: str
    kinetics_file: str


def read_tracer_tables(uptake: str | Path | None = None, kinetics: str | Path | None = None) -> TracerTables:
    """Read the uptake table and the kinetics table.

    Parameters
    ----------
    uptake, kinetics : path, optional
        A user's CSV files; the packaged tables without them.

    Returns
    -------
    TracerTables

    Raises
    ------
    InputError
        A file that cannot be read, or a line that is wrong: the message names file and line.
    """
    return _packaged() if uptake is None and kinetics is None else _read(uptake, kinetics)


@functools.cache
def _packaged() -> TracerTables:
    return _read(None, None)


def _read(uptake, kinetics) -> TracerTables:
    kinetics_file, kinetics_lines = _rows("kinetics", kinetics, KINETICS_COLUMNS)
    uptake_file, uptake_lines = _rows("uptake", uptake, UPTAKE_COLUMNS)
    curves = _collect(kinetics_lines, _kinetics_row)
    rows = _collect(uptake_lines, functools.partial(_uptake_row, curves=curves, kinetics_file=kinetics_file))
    return TracerTables(rows, curves, uptake_file, kinetics_file)


def _rows(argument: str, path, columns: tuple[str, ...]):
    """Return a file's name and its rows as (where, dict), checked for columns and empty fields."""
    source = files("allpet_physics.simulation") / f"{argument}.csv" if path is None else Path(path)
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(f"{argument} must be a readable CSV file, but {source} could not be read: {reason}.") from None
    header, rows = None, []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{source.name}, line {number}"
        values = [value.strip() for value in next(csv.reader([line]))]
        if header is None:
            header = _check_header(where, values, columns)
        elif len(values) != len(header):
            raise InputError(f"{where}: a row must have {len(header)} fields, but had {len(values)}; "
                             "quote a field that holds a comma.")
        else:
            rows.append((where, dict(zip(header, values, strict=True))))
    if not rows:
        raise InputError(f"{argument} must hold a header and at least one row, but {source.name} held none.")
    return source.name, rows


def _check_header(where: str, header: list[str], columns: tuple[str, ...]) -> list[str]:
    missing = [name for name in columns if name not in header]
    unknown = sorted(set(header) - set(columns))
    if missing or unknown or len(header) != len(columns):
        parts = [f"lacked {', '.join(missing)}"] if missing else []
        parts += [f"had the unknown {', '.join(unknown)}"] if unknown else []
        raise InputError(f"{where}: the header must be {','.join(columns)}, but it "
                         f"{' and '.join(parts) or 'repeated a column'}.")
    return header


def _collect(lines, parse) -> dict[str, dict]:
    """Parse rows into {tracer: {key: row}}; a row of a group fills the organs without one of their own."""
    table: dict[str, dict] = {}
    named: dict[tuple[str, str], str] = {}
    groups = []
    for where, values in lines:
        try:
            tracer = parse_tracer(values["tracer"]).name
            rows = parse(values, tracer)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        name = values["organ" if "organ" in values else "tissue"]
        if (tracer, name) in named:
            raise InputError(f"{where}: {name} must have one row for {tracer}, but {named[tracer, name]} is another.")
        named[tracer, name] = where
        if set(rows) == {name}:
            table.setdefault(tracer, {}).update(rows)
        else:
            groups.append((where, tracer, rows))
    filled: dict[tuple[str, str], str] = {}
    for where, tracer, rows in groups:
        for organ, row in rows.items():
            if (tracer, organ) in named:
                continue
            if (tracer, organ) in filled:
                raise InputError(f"{where}: {organ} must be in one group for {tracer}, but "
                                 f"{filled[tracer, organ]} has it too; give it a row of its own.")
            filled[tracer, organ] = where
            table.setdefault(tracer, {})[organ] = row
    return table


def _uptake_row(fields: dict[str, str], tracer: str, *, curves, kinetics_file: str):
    name, statistic = fields["organ"], fields["statistic"]
    organs = tuple(ORGAN_NAME[number] for number in group_numbers(name))
    if held := [organ for organ in organs if organ in EMPTY_ORGANS]:
        raise InputError(f"organ must be able to hold tracer, but was {', '.join(held)}; its uptake is always 0.")
    allowed = ("ratio",) if name == "lesion_cold" else ("SUVmean", "SUVmax")
    if statistic not in allowed:
        raise InputError(f"statistic of {name} must be {' or '.join(allowed)}, but was {statistic!r}.")
    suv, sd, factor, shared = (_number(fields, column) for column in ("suv", "sd", "mean_per_suv", "shared"))
    if not (suv > 0 and 0 < factor <= 1 and shared <= 1):
        raise InputError("suv must be above 0, mean_per_suv above 0 and at most 1, and shared from 0 to 1, "
                         f"but they were {suv:g}, {factor:g} and {shared:g}.")
    if statistic != "SUVmax" and factor != 1:
        raise InputError(f"mean_per_suv must be 1 where statistic is {statistic}, but was {factor:g}.")
    if statistic == "ratio" and not sd**2 < suv * (1 - suv):
        raise InputError(f"suv and sd of {name} must be a mean in (0, 1) and a deviation below √(mean (1 - mean)), "
                         f"but were {suv:g} and {sd:g}.")
    tissue = fields["tissue"]
    known = [HOST] if name == "lesion_cold" else sorted(curves.get(tracer, {}))
    if tissue not in known:
        raise InputError(f"tissue of {name} must be one that {kinetics_file} has for {tracer} "
                         f"({', '.join(known) or 'none'}), but was {tissue!r}.")
    for column in ("family", "source"):
        if not fields[column]:
            raise InputError(f"{column} must be given, but was empty"
                             f"{'; write where the numbers come from, or assumption' if column == 'source' else ''}.")
    return {organ: UptakeRow(organ, suv * factor, sd * factor, fields["family"], shared, tissue, statistic,
                             fields["source"]) for organ in organs}


def _kinetics_row(fields: dict[str, str], tracer: str):
    tissue, name = fields["tissue"], fields["model"]
    if not tissue or tissue == HOST:
        raise InputError(f"tissue must be a name other than {HOST!r}, but was {tissue!r}.")
    if name not in MODELS:
        raise InputError(f"model must be {' or '.join(MODELS)}, but was {name!r}.")
    if not fields["source"]:
        raise InputError("source must be given, but was empty; write where the numbers come from, or assumption.")
    model, columns = MODELS[name]
    for _, others in MODELS.values():
        if filled := [column for column in others if column not in columns and fields[column]]:
            raise InputError(f"{', '.join(filled)} must be empty for the model {name}, but was "
                             f"{', '.join(repr(fields[column]) for column in filled)}.")
    curve = model(*(_number(fields, column) for column in columns))
    if name == "two-tissue" and curve.K1 == curve.Vb == 0:
        raise InputError("K1 or Vb must be above 0, but both were 0: the tissue would never hold tracer.")
    return {tissue: KineticsRow(tissue, curve, fields["source"])}


def _number(fields: dict[str, str], column: str) -> float:
    try:
        value = float(fields[column])
    except ValueError:
        value = np.nan
    if not (np.isfinite(value) and value >= 0):
        raise InputError(f"{column} must be a finite number of at least 0, but was {fields[column]!r}.")
    return value


def uptake_rows(tables: TracerTables, tracer: str, organs) -> dict[str, UptakeRow]:
    """Return the rows of the given organs; what holds no tracer is left out.

    Raises
    ------
    InputError
        An unknown organ, or organs without a row: there is no default uptake.
    """
    wanted = list(dict.fromkeys(organs))
    for organ in wanted:
        organ_number(organ)
    rows = tables.uptake.get(tracer, {})
    if missing := [organ for organ in wanted if organ not in rows and organ not in EMPTY_ORGANS]:
        raise InputError(f"organs must have an uptake of {tracer}, but {tables.uptake_file} has none for "
                         f"{', '.join(missing)}; no default applies, so add a row for each.")
    return {organ: rows[organ] for organ in wanted if organ in rows}
