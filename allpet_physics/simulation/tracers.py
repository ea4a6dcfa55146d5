r"""Tracers: half-life, uptake by organ with its spread between patients, uptake at any time.

Uptake at 60 min is log-normal. With m and s the mean and the standard deviation of the table,

.. math:: \ln \mathrm{SUV}_i = \ln m_i - \tfrac12 \sigma_i^2 + \sigma_i z_i, \quad \sigma_i^2 = \ln(1 + s_i^2/m_i^2),
    \tag{T1}

.. math:: z_i = \sqrt{\rho}\, z + \sqrt{1 - \rho}\,(\sqrt{h_i}\, z_{f(i)} + \sqrt{1 - h_i}\, z'_i), \tag{T2}

with independent standard normal z (the patient: dose, weight, glucose), z_f (the family of organs) and z'_i (the
organ), and h_i the column ``shared``: the correlation is ρ between families and ρ + (1 - ρ)√(h_i h_j) within one. ρ and
h are assumptions. Uptake at another time follows :class:`~allpet_physics.simulation.kinetics.UptakeCurve`, with the
rate constants of each tissue drawn around the table's (an assumption too), so that a delayed scan is no function of
the first.
"""

from dataclasses import fields, replace

import numpy as np

from allpet_physics.errors import InputError
from allpet_physics.simulation.kinetics import REFERENCE_MIN, UptakeCurve
from allpet_physics.simulation.tracer_names import TRACERS, Tracer, parse_tracer
from allpet_physics.simulation.tracer_tables import LESIONS, TracerTables, read_tracer_tables, uptake_rows

__all__ = ["TRACERS", "Tracer", "TracerTables", "activity", "draw_curves", "draw_lesion", "draw_uptake", "mean_curve",
           "parse_tracer", "read_tracer_tables"]

#: Correlation of the logarithms of uptakes between families of organs (assumption).
PATIENT_CORRELATION = 0.25
#: Coefficient of variation of each rate constant between patients, and between lesions (assumption).
RATE_SPREAD = 0.15


def draw_curves(tracer: str | Tracer, organs, rng: np.random.Generator, *,
                tables: TracerTables | None = None) -> dict[str, UptakeCurve]:
    """Draw one patient: the uptake of organs over time (T1), (T2).

    The numbers taken from `rng` depend on the tables and the tracer alone: a patient's liver is the same whatever other
    organs are asked for.

    Parameters
    ----------
    tracer : str or Tracer
    organs : iterable of str
        Names of :data:`~allpet_physics.simulation.organs.ORGANS`, without lesions (see :func:`draw_lesion`).
    rng : numpy.random.Generator
    tables : TracerTables, optional
        From :func:`~allpet_physics.simulation.tracer_tables.read_tracer_tables`; the packaged ones without it.

    Returns
    -------
    dict of str to UptakeCurve, in the order of `organs`

    Raises
    ------
    InputError
        An unknown tracer or organ, organs that the table lacks, a lesion.
    """
    tracer, tables = parse_tracer(tracer), tables or read_tracer_tables()
    _check_rng(rng)
    organs = _as_organs(organs)
    if lesions := [organ for organ in organs if organ in LESIONS]:
        raise InputError(f"organs must not hold lesions, but held {', '.join(lesions)}; "
                         "draw each lesion with draw_lesion, which takes its host's curve.")
    wanted = uptake_rows(tables, tracer.name, organs)
    rows = {name: row for name, row in tables.uptake[tracer.name].items() if name not in LESIONS} if wanted else {}
    families = list(dict.fromkeys(row.family for row in rows.values()))
    z = rng.standard_normal()
    z_family = dict(zip(families, rng.standard_normal(len(families)), strict=True))
    z_own = dict(zip(rows, rng.standard_normal(len(rows)), strict=True))
    kinetics = {tissue: _vary(row.model, rng) for tissue, row in tables.kinetics.get(tracer.name, {}).items()}
    curves = {}
    for organ in organs:
        if organ not in wanted:
            curves[organ] = UptakeCurve(0.0, None)
            continue
        row = wanted[organ]
        together = np.sqrt(row.shared) * z_family[row.family] + np.sqrt(1 - row.shared) * z_own[organ]
        deviate = np.sqrt(PATIENT_CORRELATION) * z + np.sqrt(1 - PATIENT_CORRELATION) * together
        curves[organ] = UptakeCurve(_lognormal(row.mean, row.sd, deviate), kinetics[row.tissue])
    return curves


def draw_uptake(tracer: str | Tracer, organs, rng: np.random.Generator, time_min: float = REFERENCE_MIN, *,
                tables: TracerTables | None = None) -> dict[str, float]:
    """Draw one patient's SUV by organ at one time; the same `rng` state gives the same patient at any time.

    See :func:`draw_curves`, which keeps the patient for several times or frames.
    """
    return {organ: float(curve.at(time_min))
            for organ, curve in draw_curves(tracer, organs, rng, tables=tables).items()}


def draw_lesion(tracer: str | Tracer, kind: str, host: UptakeCurve, rng: np.random.Generator, *,
                tables: TracerTables | None = None) -> UptakeCurve:
    """Draw the uptake of one lesion in its host tissue.

    A hot lesion has the host's SUV at 60 min plus a log-normal excess, and kinetics of its own: it replaces the tissue.
    A cold lesion has a beta-distributed fraction of the host's SUV and the host's kinetics.

    Parameters
    ----------
    tracer : str or Tracer
    kind : {"lesion_hot", "lesion_cold"}
    host : UptakeCurve
        Of the organ around it, from :func:`draw_curves`.
    rng : numpy.random.Generator
    tables : TracerTables, optional

    Returns
    -------
    UptakeCurve

    Raises
    ------
    InputError
        An unknown tracer or kind, or a table without lesions.
    """
    tracer, tables = parse_tracer(tracer), tables or read_tracer_tables()
    _check_rng(rng)
    if kind not in LESIONS:
        raise InputError(f"kind must be {' or '.join(LESIONS)}, but was {kind!r}.")
    if not isinstance(host, UptakeCurve):
        raise InputError(f"host must be an UptakeCurve from draw_curves, but was {type(host).__name__}.")
    row = uptake_rows(tables, tracer.name, [kind])[kind]
    if kind == "lesion_hot":
        excess = _lognormal(row.mean, row.sd, rng.standard_normal())
        return UptakeCurve(host.suv + excess, _vary(tables.kinetics[tracer.name][row.tissue].model, rng))
    if row.sd == 0:
        return replace(host, suv=row.mean * host.suv)
    concentration = row.mean * (1 - row.mean) / row.sd**2 - 1
    return replace(host, suv=rng.beta(row.mean * concentration, (1 - row.mean) * concentration) * host.suv)


def mean_curve(tracer: str | Tracer, organ: str, *, tables: TracerTables | None = None) -> UptakeCurve:
    """Return the curve of the table's mean patient; for ``lesion_hot``, of the excess alone.

    Raises
    ------
    InputError
        An unknown tracer or organ, an organ that the table lacks, or ``lesion_cold``, which has no curve of its own.
    """
    tracer, tables = parse_tracer(tracer), tables or read_tracer_tables()
    if organ == "lesion_cold":
        raise InputError("organ must have a curve of its own, but was 'lesion_cold', which follows its host.")
    rows = uptake_rows(tables, tracer.name, [organ])
    if organ not in rows:
        return UptakeCurve(0.0, None)
    return UptakeCurve(rows[organ].mean, tables.kinetics[tracer.name][rows[organ].tissue].model)


def activity(tracer: str | Tracer, organ: str, frames, *, decayed: bool = False,
             tables: TracerTables | None = None) -> np.ndarray:
    """Return the mean patient's uptake of an organ over frames, in SUV.

    Parameters
    ----------
    tracer : str or Tracer
    organ : str
    frames : array_like, shape (n_frames, 2) or (2,)
        Start and end in minutes after injection.
    decayed : bool
        Whether to leave decay in: then counts of a frame are proportional to the result times its length.
    tables : TracerTables, optional

    Returns
    -------
    ndarray, float64, shape (n_frames,), or a scalar for one pair

    Raises
    ------
    InputError
        As :func:`mean_curve`; frames that do not end after they start.
    """
    tracer = parse_tracer(tracer)
    return mean_curve(tracer, organ, tables=tables).frame_mean(frames, tracer.half_life_s if decayed else None)


def _lognormal(mean: float, sd: float, deviate: float) -> float:
    variance = np.log1p((sd / mean) ** 2)
    return float(mean * np.exp(np.sqrt(variance) * deviate - variance / 2))


def _vary(model, rng: np.random.Generator):
    """Multiply each rate constant by a log-normal factor of mean 1; a blood volume stays."""
    names = [field.name for field in fields(model) if field.name != "Vb"]
    factors = [_lognormal(1.0, RATE_SPREAD, deviate) for deviate in rng.standard_normal(len(names))]
    return replace(model, **{name: getattr(model, name) * factor for name, factor in zip(names, factors, strict=True)})


def _as_organs(organs) -> list[str]:
    if isinstance(organs, str):
        raise InputError(f"organs must be names in a list, but was the string {organs!r}; write [{organs!r}].")
    return list(dict.fromkeys(organs))


def _check_rng(rng) -> None:
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng must be a numpy.random.Generator, as np.random.default_rng(seed) makes, "
                         f"but was {type(rng).__name__}.")
