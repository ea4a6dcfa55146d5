r"""Does a generator hand out its training patients again: nearest neighbours over rotations, and copies among them.

The distance of two sinograms of counts is that of their shapes in the square-root scale, at the best rotation, mirrored
or not, with the share of counting noise taken out:

.. math:: d(g, t) = \sqrt{2\,(1 - \rho)_+}, \qquad
          \rho = \max_{k,\,m} \frac{\langle g', t'_{k,m}\rangle}
                                 {\sqrt{(\|g'\|^2 - \nu_g)(\|t'\|^2 - \nu_t)}}, \tag{M1}

where g' is √counts less its mean, summed to about 32 bins and kept to 32 harmonics of the angle, :math:`t'_{k,m}` the
exact rotation by k angles of t' or of its mirror image (`allpet_gen.symmetry`), and ν the energy of the noise, 1/4 for
each kept harmonic and occupied bin. Counts of one patient drawn twice have independent noise: without ν their
correlation stays below 1 by an amount that depends on the dose and hides the copy among other patients; with ν it is 1
to first order. ν is 0 for a side that is not whole numbers, taken as expected counts. Rounded expectations are whole
numbers without noise, and must not be given. ρ does not change with the total of counts.

Over the whole turn a rotation is a cyclic shift, so all k come from one FFT:

.. math:: \langle g', t'_k\rangle = \mathcal F^{-1}\Big[\sum_s G(f, s)\, \overline{T(f, s)}\Big]_k . \tag{M2}
"""

from dataclasses import dataclass

import numpy as np

from allpet_gen.evaluation._checks import as_batch, as_groups, as_level, interval, same_shape
from allpet_gen.symmetry import extended, mirror_sinogram
from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import InputError

#: Items of the two sides that are in work at once: some 100 MB at 128 × 128.
_BLOCK = (64, 128)
#: Sinograms are summed to at most so many angles and bins, and kept to so many harmonics of the angle: what is finer is
#: mostly noise. Copies at half the dose were told from other patients as well at 32 bins and harmonics as at 128.
_LARGEST = (128, 32)
_HARMONICS = 32
#: At least this share of the energy is taken for signal, so that an almost flat sinogram resembles nothing.
_LEAST_SIGNAL = 0.1


@dataclass(frozen=True)
class Neighbours:
    """The nearest training sinogram of each query.

    Attributes
    ----------
    distance : ndarray of float64, shape (n,)
        (M1); infinity where none was allowed.
    index : ndarray of int, shape (n,)
        Of the neighbour; -1 where none was allowed.
    steps : ndarray of int, shape (n,)
        Angles by which to turn the neighbour with `allpet_gen.symmetry.rotate_sinogram`, after mirroring it if
        `mirrored`, to lie on the query; in steps of the summed sinogram where there were over 128 angles.
    mirrored : ndarray of bool, shape (n,)
    """

    distance: np.ndarray
    index: np.ndarray
    steps: np.ndarray
    mirrored: np.ndarray


def nearest_neighbours(queries, training, *, arc: float = np.pi, query_groups=None,
                       training_groups=None) -> Neighbours:
    """Return the nearest training sinogram of each query over all rotations and the mirror (M1).

    Memory is that of the inputs and of one block of pairs; time goes with queries × training × angles.

    Parameters
    ----------
    queries, training : array_like, shape (n, angles, bins) and (m, angles, bins)
        Counts, or expected counts.
    arc : float
        π or 2π.
    query_groups, training_groups : array_like, shape (n,) and (m,), optional
        Patients; with both given, pairs of one patient are left out.

    Raises
    ------
    InputError
        Shapes that do not fit, NaN, Inf, negative values, empty or constant sinograms; one of the groups without the
        other.
    """
    queries, training = as_batch("queries", queries), as_batch("training", training)
    same_shape("queries", queries, "training", training)
    if (query_groups is None) != (training_groups is None):
        raise InputError("query_groups and training_groups must be given both or neither.")
    n = len(queries)
    groups = None if query_groups is None else _common_groups(query_groups, training_groups, n, len(training))
    best, index, steps = np.full(n, -np.inf), np.full(n, -1), np.zeros(n, int)
    mirrored = np.zeros(n, bool)
    noisy = [_is_whole(a) for a in (queries, training)]
    for first in range(0, len(training), _BLOCK[1]):
        rows = slice(first, first + _BLOCK[1])
        plain, noise = _whole_turn(training[rows], arc)
        spectra = [_spectrum(t, noise * noisy[1], arc) for t in (plain, mirror_sinogram(plain, 2 * np.pi))]
        for start in range(0, n, _BLOCK[0]):
            columns = slice(start, start + _BLOCK[0])
            whole, noise = _whole_turn(queries[columns], arc)
            query = _spectrum(whole, noise * noisy[0], arc)
            for flipped, spectrum in enumerate(spectra):
                rho, k = _best_rotation(query, spectrum, plain.shape[1])
                if groups is not None:
                    rho[groups[0][columns][:, None] == groups[1][rows][None]] = -np.inf
                at = rho.argmax(1)
                value, turn = (a[np.arange(len(at)), at] for a in (rho, k))
                better = np.flatnonzero(value > best[columns])
                where = start + better
                best[where], index[where], steps[where] = value[better], first + at[better], turn[better]
                mirrored[where] = bool(flipped)
    return Neighbours(np.where(index >= 0, np.sqrt(np.clip(2 * (1 - best), 0, None)), np.inf), index, steps, mirrored)


def memorisation(generated, training, held_out, *, training_patients, held_out_patients, arc: float = np.pi,
                 quantile: float = 0.01, n_bootstrap: int = 500, level: float = 0.95, seed: int = 0) -> dict:
    r"""Return the share of copies among generated sinograms, beside that among real ones that cannot be copies.

    A sinogram counts as a copy when its distance to the training set is below the threshold: the given quantile of the
    distances of held-out patients, whom the generator has never seen. The control share of held-out patients is
    cross-fitted, so that no patient is judged by a threshold that was set with his own sinograms: patients are halved,
    and each half is judged by the quantile of the other. A generator that has learned the distribution has the share
    of the control; one that copies has more.

    Authenticity (after Alaa et al. 2022): with t the nearest training sinogram of g, and t' the nearest to t of another
    patient,

    .. math:: \mathrm{authenticity} = \tfrac1n \sum_g [\,d(g, t) > d(t, t')\,]. \tag{M3}

    Give held-out patients and generated sinograms the same mix of tracers and regions: the share of the control is
    theirs.

    Parameters
    ----------
    generated, training, held_out : array_like, shape (n, angles, bins)
        Counts, or expected counts, side by side as they are; see (M1).
    training_patients, held_out_patients : array_like
        Patient of each sinogram; nobody may be in both.
    arc : float
        π or 2π.
    quantile : float
        The share of copies that is allowed by definition, in (0, 0.5].
    n_bootstrap, level, seed
        Of the intervals: held-out patients and generated sinograms are drawn with replacement, and the threshold is
        set anew each time.

    Returns
    -------
    dict
        ``threshold``; ``copies`` and ``authenticity``, each with ``generated``, ``held_out`` and ``excess`` (generated
        − held_out), each with ``value``, ``low``, ``high``; ``median_distance`` of both; ``flagged``, indices of the
        generated sinograms below the threshold, nearest first, with ``flagged_neighbours``, ``flagged_distances``;
        ``n_generated``, ``n_training``, ``n_held_out``, ``n_held_out_patients``, ``quantile``, ``level``, ``seed``.

    Raises
    ------
    InputError
        What `nearest_neighbours` refuses; a patient on both sides; fewer than four
        held-out or two training patients; a quantile or level out of range.

    References
    ----------
    Alaa et al. 2022, arXiv 2102.08921, section 3.4; Meehan et al. 2020, arXiv 2004.05675 (copying is judged by test
    data's distances to the training data).
    """
    if isinstance(quantile, bool) or not isinstance(quantile, (int, float)) or not 0 < quantile <= 0.5:
        raise InputError(f"quantile must be greater than 0 and at most 0.5, but was {quantile!r}.")
    level, n_bootstrap = as_level(level), as_positive_int("n_bootstrap", n_bootstrap)
    patients, training_groups = _common_groups(held_out_patients, training_patients, len(held_out), len(training),
                                               names=("held_out_patients", "training_patients"))
    both = np.intersect1d(patients, training_groups)
    if both.size:
        raise InputError(f"held_out_patients must be none of the training patients, but {both.size} were in both.")
    patients = np.unique(patients, return_inverse=True)[1].reshape(-1)
    n_patients = int(patients.max()) + 1
    if n_patients < 4 or len(np.unique(training_groups)) < 2:
        raise InputError("held_out_patients must name at least 4 patients and training_patients at least 2, but named "
                         f"{n_patients} and {len(np.unique(training_groups))}.")
    near = nearest_neighbours(generated, training, arc=arc)
    control = nearest_neighbours(held_out, training, arc=arc)
    # Only training sinograms that are somebody's neighbour need their own.
    asked, place = np.unique(np.concatenate([near.index, control.index]), return_inverse=True)
    own = nearest_neighbours(np.asarray(training)[asked], training, arc=arc, query_groups=training_groups[asked],
                             training_groups=training_groups).distance[place]
    novel, control_novel = near.distance > own[:len(near.index)], control.distance > own[len(near.index):]
    rng = np.random.default_rng(seed)
    rows = []
    by_patient = [np.flatnonzero(patients == i) for i in range(n_patients)]
    for b in range(n_bootstrap + 1):
        # The first is the estimate itself: everybody once.
        drawn = np.arange(n_patients) if b == 0 else rng.integers(n_patients, size=n_patients)
        picked = np.arange(len(near.index)) if b == 0 else rng.integers(len(near.index), size=len(near.index))
        held = np.concatenate([by_patient[i] for i in drawn])
        copied = (near.distance[picked] < np.quantile(control.distance[held], quantile)).mean()
        expected = np.mean([_cross_fitted(control.distance, by_patient, drawn, quantile, rng)
                            for _ in range(20 if b == 0 else 1)])
        rows.append((copied, expected, novel[picked].mean(), control_novel[held].mean()))
    copied, expected, authentic, control_authentic = np.array(rows).T
    threshold = float(np.quantile(control.distance, quantile))
    flagged = np.flatnonzero(near.distance < threshold)
    flagged = flagged[np.argsort(near.distance[flagged])]
    return {"threshold": threshold,
            "copies": _beside(copied, expected, level), "authenticity": _beside(authentic, control_authentic, level),
            "median_distance": {"generated": float(np.median(near.distance)),
                                "held_out": float(np.median(control.distance))},
            "flagged": flagged.tolist(), "flagged_neighbours": near.index[flagged].tolist(),
            "flagged_distances": near.distance[flagged].tolist(), "n_generated": len(near.index),
            "n_training": len(training), "n_held_out": len(held_out), "n_held_out_patients": n_patients,
            "quantile": float(quantile), "level": level, "seed": int(seed)}


def _cross_fitted(distance: np.ndarray, by_patient: list, drawn: np.ndarray, quantile: float, rng) -> float:
    """Return the share below the quantile of the other half of the patients; copies of a patient stay together."""
    different = rng.permutation(np.unique(drawn))
    if len(different) < 2:
        return quantile
    first = np.isin(drawn, different[:len(different) // 2])
    sides = [distance[np.concatenate([by_patient[i] for i in drawn[side]])] for side in (first, ~first)]
    below = [(a < np.quantile(b, quantile)).sum() for a, b in (sides, sides[::-1])]
    return float(sum(below) / sum(map(len, sides)))


def _beside(generated: np.ndarray, held_out: np.ndarray, level: float) -> dict:
    """Return value and interval of both and of their difference; the first of each is the value."""
    out = {}
    for name, values in (("generated", generated), ("held_out", held_out), ("excess", generated - held_out)):
        low, high = interval(values[1:], level)
        out[name] = {"value": float(values[0]), "low": low, "high": high}
    return out


def _common_groups(first, second, n: int, m: int, names=("query_groups", "training_groups")) -> list[np.ndarray]:
    """Return the groups of two sides as numbers of one list."""
    as_groups(names[0], first, n), as_groups(names[1], second, m)
    return np.split(np.unique(np.concatenate([first, second]), return_inverse=True)[1].reshape(-1), [n])


def _is_whole(array) -> bool:
    array = np.asarray(array)
    return array.dtype.kind in "iub" or bool((array == np.floor(array)).all())


def _whole_turn(batch: np.ndarray, arc: float) -> tuple[np.ndarray, np.ndarray]:
    """Return √counts less the mean over all angles of [0, 2π), (n, turn, bins), and the noise of a bin, (n,)."""
    n, angles, bins = batch.shape
    by_angle, by_bin = (_divisor(size, largest) for size, largest in zip((angles, bins), _LARGEST, strict=True))
    counts = batch.reshape(n, angles // by_angle, by_angle, bins // by_bin, by_bin).sum((2, 4))
    whole = extended(np.sqrt(counts), arc)
    # The variance of the root of a Poisson count is 1/4, and less where counts are mostly zero.
    return whole - whole.mean((1, 2), keepdims=True), 0.25 * (counts > 0).mean((1, 2))


def _divisor(size: int, largest: int) -> int:
    """Return the least number of neighbours to sum so that at most `largest` remain, or 1 if none divides the size."""
    return next((k for k in range(-(-size // largest), size // (largest // 2) + 1) if size % k == 0), 1)


def _spectrum(whole: np.ndarray, noise: np.ndarray, arc: float) -> np.ndarray:
    """Return the FFT over the turn, (frequency, n, bin), scaled such that products summed over bins give ρ (M1)."""
    from scipy import fft

    _, turn, bins = whole.shape
    modes = min(_HARMONICS, turn // 2)
    twice = np.full(modes + 1, 2.0)
    twice[[0] + [-1] * (2 * modes == turn)] = 1
    weight = np.ones(bins, np.float32)
    if arc < 4:
        # p(−s, θ + π) = p(s, θ): even frequencies are even in s, odd ones odd, so that half of the bins tell it all.
        weight = np.full((bins + 1) // 2, np.sqrt(2), np.float32)
        weight[-1] = 1 if bins % 2 else weight[-1]
    spectrum = fft.rfft(whole[:, :, :len(weight)] * weight, axis=1)[:, :modes + 1]
    energy = np.einsum("nfs,f->n", np.abs(spectrum).astype(np.float64) ** 2, twice) / turn
    signal = np.maximum(energy - noise * twice.sum() * bins, _LEAST_SIGNAL * energy)
    scale = np.where(signal > 0, 1 / np.sqrt(np.maximum(signal, 1e-30)), 0).astype(np.float32)
    return np.ascontiguousarray(spectrum.transpose(1, 0, 2)) * scale[:, None]


def _best_rotation(query: np.ndarray, training: np.ndarray, turn: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest correlation over rotations of each pair and its number of steps, shape (queries, training)."""
    from scipy import fft

    cross = np.matmul(query, training.conj().transpose(0, 2, 1))
    rho = fft.irfft(cross.transpose(1, 2, 0), n=turn, axis=2)
    k = rho.argmax(2)
    return np.take_along_axis(rho, k[..., None], 2)[..., 0].astype(np.float64), k
