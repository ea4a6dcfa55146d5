r"""From CT to attenuation at 511 keV, and what else a CT tells: whether it is calibrated, where the body is."""

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float
from allpet_physics.errors import InputError, MetadataError

#: Below this CT number a voxel is a mixture of air and water for any tube voltage.
_BREAK_HU = 50.0
#: μ = a + b·HU in 1/cm below the break.
_BELOW = (0.096, 9.6e-5)
#: Tube voltage in kV: (a, b) above the break; STIR `src/config/ct_slopes.json`, rows of GE.
_ABOVE = {80.0: (0.0989, 3.84e-5), 100.0: (0.0985, 4.56e-5), 120.0: (0.0982, 5.11e-5), 140.0: (0.0980, 5.60e-5)}


def hu_to_mu(hu, kvp: float) -> np.ndarray:
    r"""Return the linear attenuation coefficient at 511 keV in 1/mm from CT numbers.

    .. math:: 10\,\mu = \begin{cases} 0.096 + 9.6\cdot10^{-5}\,\mathrm{HU} & \mathrm{HU} \le 50 \\
       a(\mathrm{kVp}) + b(\mathrm{kVp})\,\mathrm{HU} & \mathrm{HU} > 50 \end{cases} \tag{C1}

    with the slopes of STIR's ``ct_slopes.json`` for 80, 100, 120 and 140 kV, interpolated linearly between them (an
    assumption). Negative values become 0.

    Parameters
    ----------
    hu : array_like
        CT numbers in HU.
    kvp : float
        Tube voltage in kV, from 80 to 140.

    Returns
    -------
    ndarray, float32 or float64

    Raises
    ------
    InputError
        A voltage out of range, values that are not finite.
    """
    hu = as_float_array("hu", hu)
    kvp = as_positive_float("kvp", kvp)
    known = sorted(_ABOVE)
    if not known[0] <= kvp <= known[-1]:
        raise InputError(f"kvp must be between {known[0]:g} and {known[-1]:g} kV, but was {kvp:g}; the slopes of other "
                         "tube voltages are not known here.")
    a, b = (np.interp(kvp, known, [_ABOVE[k][i] for k in known]) for i in (0, 1))
    mu = np.where(hu <= _BREAK_HU, _BELOW[0] + _BELOW[1] * hu, a + b * hu) / 10
    return np.maximum(mu, 0).astype(hu.dtype)


def check_calibrated(hu: np.ndarray) -> None:
    """Raise unless values look like HU: air or fat well below 0, soft tissue near 0, nothing beyond a scanner's range.

    Raises
    ------
    MetadataError
        Values that no calibrated CT of a patient has.
    """
    hu = np.asarray(hu)
    if not np.isfinite(hu).all():
        raise MetadataError("ct must be finite, but holds NaN or Inf; replace what lies outside the scan by -1024.")
    low, high = float(hu.min(initial=0)), float(hu.max(initial=0))
    soft = float(np.mean((hu > -200) & (hu < 200))) if hu.size else 0.0
    dense = float(np.mean(hu > 700)) if hu.size else 0.0
    if low > -200 or low < -10000 or high < 20 or soft < 0.02 or dense > 0.5:
        raise MetadataError(f"ct must be in HU (air -1000, water 0), but its values ranged from {low:g} to {high:g} "
                            f"with {100 * soft:.0f} % between -200 and 200; apply the file's rescale slope and "
                            "intercept first.")


def body_of_ct(hu: np.ndarray) -> np.ndarray:
    """Return the patient in a calibrated CT ``[slice, row, col]``: the largest piece, with its gas, without the couch.

    Parameters
    ----------
    hu : ndarray, shape (slices, rows, cols)

    Returns
    -------
    ndarray of bool
    """
    from scipy import ndimage

    dense = hu > -350
    cross = ndimage.generate_binary_structure(2, 1)[None]
    pieces, n = ndimage.label(ndimage.binary_opening(dense, cross, iterations=2))
    if not n:
        return np.zeros(hu.shape, bool)
    largest = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    body = ndimage.binary_dilation(largest, cross, iterations=2) & dense
    closed = ndimage.binary_closing(np.pad(body, ((0, 0), (4, 4), (4, 4))), cross, iterations=3)[:, 4:-4, 4:-4]
    return np.stack([ndimage.binary_fill_holes(plane) for plane in closed | body])
