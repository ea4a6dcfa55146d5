"""What count sinograms of a class are like in numbers, for generated ones and, in a model's card, for measured ones.

A card is the dictionary in ``allpet.json`` of a model's folder. Its part ``"measured"`` says of each class of sinograms
that the model was not trained on what `describe_sinograms` says of them. So wherever generated sinograms go, what real
ones have stands beside them.
"""

from collections.abc import Mapping

import numpy as np

from allpet_gen.prompts import Prompt
from allpet_physics.consistency import helgason_ludwig
from allpet_physics.geometry import ParallelGeometry

#: Of the Helgason-Ludwig moments that are tested.
ORDERS = (0, 1, 2, 3)
#: Quantiles that stand for "as usual".
LOW, HIGH = 0.05, 0.95


def describe_sinograms(sinograms, geometry: ParallelGeometry) -> dict:
    """Return the totals and the consistency of some count sinograms in plain numbers.

    The residuals ρ of the moments (HL3) are those of the counts as they are. They are not zero for measured ones:
    attenuation, scatter and randoms are no line integrals, and a generator that learned counts must have them too. So
    they are compared with those of measured sinograms of the same class, never with zero.

    Parameters
    ----------
    sinograms : array_like, shape (n, angle, bin)
        Counts.
    geometry : ParallelGeometry

    Returns
    -------
    dict
        ``n``; ``counts`` and ``moments``, the latter with one value for each of ``orders``: ``median``, ``low`` and
        ``high``, the 5 % and 95 % quantiles.
    """
    data = np.asarray(sinograms)
    totals = data.sum(axis=(-2, -1), dtype=np.float64)
    residual = helgason_ludwig(data, geometry, orders=ORDERS).residual
    return {"n": len(data), "counts": _quantiles(totals), "moments": {"orders": list(ORDERS), **_quantiles(residual)}}


def measured_classes(sinograms_of: Mapping, geometry: ParallelGeometry) -> dict:
    """Return the part ``"measured"`` of a card.

    Parameters
    ----------
    sinograms_of : mapping of str to ndarray
        Measured sinograms, (n, angle, bin), by prompt, such as "brain with 18F-FDG".
    geometry : ParallelGeometry
    """
    return {str(Prompt.parse(prompt)): describe_sinograms(sinograms, geometry)
            for prompt, sinograms in sinograms_of.items()}


def measured_like(card: Mapping, prompt) -> dict | None:
    """Return what a card says of measured sinograms of a prompt; None where it says nothing.

    A prompt that names a tracer or a region alone means several classes: the extremes of their quantiles are returned,
    and the mean of their medians.
    """
    wanted = Prompt.parse(prompt)
    found = []
    for name, described in card.get("measured", {}).items():
        known = Prompt.parse(name)
        if wanted.tracer in (None, known.tracer) and wanted.region in (None, known.region):
            found.append(described)
    if not found:
        return None

    def joined(kind):
        return {name: join([d[kind][name] for d in found], axis=0).tolist()
                for name, join in (("median", np.mean), ("low", np.min), ("high", np.max))}

    return {"n": sum(d["n"] for d in found), "counts": joined("counts"),
            "moments": {"orders": found[0]["moments"]["orders"], **joined("moments")}}


def consistency_lines(described: Mapping, measured: Mapping | None = None) -> list[str]:
    """Return a line on counts, one on the residuals of the moments of orders 0 to 3, and one on those of measured ones.

    Parameters
    ----------
    described : mapping
        Of `describe_sinograms`; medians are written.
    measured : mapping, optional
        Of `measured_like`; its 5 % to 95 % are written.
    """
    counts, moments = described["counts"], described["moments"]
    lines = [f"{counts['median'] / 1e6:.2f} million counts",
             "Helgason-Ludwig 0-3: " + ", ".join(f"{100 * r:.1f}" for r in moments["median"]) + " %"]
    if measured:
        low, high = measured["counts"]["low"] / 1e6, measured["counts"]["high"] / 1e6
        lines[0] += f" (held out: {low:.2f} to {high:.2f})"
        spans = zip(measured["moments"]["low"], measured["moments"]["high"], strict=True)
        lines.append("held out: " + ", ".join(f"{100 * a:.1f}-{100 * b:.1f}" for a, b in spans) + " %")
    return lines


def _quantiles(values: np.ndarray) -> dict:
    quantiles = {"median": 0.5, "low": LOW, "high": HIGH}
    return {name: np.quantile(values, q, axis=0).tolist() for name, q in quantiles.items()}
