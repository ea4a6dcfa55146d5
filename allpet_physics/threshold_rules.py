"""Where a threshold comes from: given values, Otsu's classes, isocontours per peak, percentiles, local statistics.

`threshold_roi` checks what reaches these rules, except for `value`, which `value_pair` checks.
"""

import numpy as np

from allpet_physics._arrays import as_positive_float
from allpet_physics.body_outline import as_fraction
from allpet_physics.errors import InputError

#: (cold, hot) where `value` is not given.
_DEFAULTS = {"relative": (0.41, 0.41), "percentile": (5.0, 95.0), "local": (2.0, 2.0)}
#: Full width at half maximum of the local method's Gaussian window in mm: several lesions wide (an assumption).
_WINDOW_MM = 40.0
#: Bins of the histogram that Otsu's criterion is evaluated on.
OTSU_BINS = 256


def value_pair(method, value, polarity):
    """Return ``{"cold": number, "hot": number}`` for the polarities asked for (empty for Otsu)."""
    names = ("cold", "hot") if polarity == "both" else (polarity,)
    if method == "otsu":
        if value is not None:
            raise InputError(f"value must be left out for method=\"otsu\", which finds its own, but was {value!r}.")
        return {}
    if value is None:
        if method == "fixed":
            raise InputError('value must be given for method="fixed", in the unit of the image, for example SUV 2.5.')
        cold, hot = _DEFAULTS[method]
        return {name: {"cold": cold, "hot": hot}[name] for name in names}
    numbers = np.atleast_1d(np.asarray(value, dtype=object))
    if numbers.size == 1 and polarity == "both" and method in ("relative", "local"):
        numbers = np.repeat(numbers, 2)
    if numbers.shape != (len(names),):
        wanted = "a pair (cold, hot)" if polarity == "both" else "one number"
        raise InputError(f'value must be {wanted} for method="{method}" and polarity="{polarity}", but was {value!r}.')
    check = {"relative": as_fraction, "local": as_positive_float, "percentile": _percentile, "fixed": _finite}
    pair = {name: check[method]("value", number) for name, number in zip(names, numbers, strict=True)}
    if polarity == "both" and method in ("fixed", "percentile") and pair["cold"] > pair["hot"]:
        raise InputError(f"value must be (cold, hot) with cold not above hot, but was {value!r}.")
    return pair


def _finite(name, value):
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise InputError(f"{name} must be a finite number, but was {value!r}.")
    return number


def _percentile(name, value):
    number = _finite(name, value)
    if not 0 <= number <= 100:
        raise InputError(f"{name} must be a percentile from 0 to 100, but was {value!r}.")
    return number


def otsu_thresholds(values: np.ndarray, n_classes: int = 2) -> tuple[float, ...]:
    r"""Return the threshold(s) that maximise the variance between two or three classes of values.

    .. math:: \max_{T_1 < \dots} \sum_k \omega_k (\mu_k - \mu)^2 \tag{T3}

    over a histogram of 256 bins, :math:`\omega_k` and :math:`\mu_k` the weight and mean of class k. Each threshold is
    half-way between the highest value of one class and the lowest of the next, so that no value lies on the wrong
    side of it. (Otsu 1979, IEEE Trans. Syst. Man Cybern. 9, 62, eq. 12 and 20.)

    Raises
    ------
    InputError
        Fewer distinct values than classes: no threshold exists.
    """
    low, high = float(values.min()), float(values.max())
    counts, edges = (np.histogram(values.astype(np.float64, copy=False), bins=OTSU_BINS) if high > low
                     else (np.array([values.size]), np.array([low, high])))
    if np.count_nonzero(counts) < n_classes:
        raise InputError(f"image must hold at least {n_classes} distinct levels for Otsu's threshold to exist, but the "
                         f"{values.size} voxels of the body range from {low:g} to {high:g} in "
                         f'{np.count_nonzero(counts)}; use method="fixed", or pass a body with some background.')
    weight = np.cumsum(counts) / values.size
    moment = np.cumsum(counts * (edges[:-1] + edges[1:] - edges[0] - edges[-1])) / (2 * values.size)

    def spread(weight, moment):  # ω μ², zero for an empty class
        return np.divide(moment**2, weight, out=np.zeros_like(moment), where=weight > 0)

    if n_classes == 2:
        last = (int(np.argmax(spread(weight, moment) + spread(weight[-1] - weight, moment[-1] - moment))),)
    else:
        middle = spread(np.maximum(weight[None, :] - weight[:, None], 0), moment[None, :] - moment[:, None])
        total = spread(weight, moment)[:, None] + middle + spread(weight[-1] - weight, moment[-1] - moment)[None, :]
        total[np.tril_indices(OTSU_BINS)] = -np.inf
        last = tuple(int(i) for i in np.unravel_index(np.argmax(total), total.shape))
    borders = [edges[i + 1] for i in last]
    return tuple((float(values[values < b].max()) + float(values[values >= b].min())) / 2 for b in borders)


def peak_isocontours(image: np.ndarray, fraction: float, floor: float, region: np.ndarray,
                     structure: np.ndarray) -> np.ndarray:
    r"""Return the union of the isocontours at a fraction of each peak's own maximum.

    For a voxel p above the floor let

    .. math:: C_p = \text{the component of } \{X > \max(f X_p, \mathrm{floor})\} \text{ that contains } p. \tag{T4}

    p is a peak if no voxel of :math:`C_p` is higher; the union of the :math:`C_p` of all peaks is the result. Two
    lesions are told apart when the valley between them falls below f times the lower one's maximum, whatever their
    ratio; the slope of a hot lesion, or the warm background around it, is never a lesion of its own, because its
    :math:`C_p` contains the hot one. The :math:`C_p` of two peaks neither overlap nor touch (if they did, the lower
    one's would hold the higher peak), so they are the components of the result.
    """
    from scipy import ndimage

    labels, n = ndimage.label((image > floor) & region, structure)
    if n == 0:
        return np.zeros(image.shape, bool)
    index = np.arange(1, n + 1)
    # Most candidates of a noisy image are specks that lie above their own level as a whole: take them at once.
    flat = ndimage.minimum(image, labels, index) > fraction * ndimage.maximum(image, labels, index)
    mask = np.concatenate([[False], flat])[labels]
    boxes = ndimage.find_objects(labels)
    for i in np.flatnonzero(~flat):
        inside = labels[boxes[i]] == i + 1
        mask[boxes[i]] |= _isocontours_in(np.where(inside, image[boxes[i]], -np.inf), fraction, structure)
    return mask


def _isocontours_in(values, fraction, structure):
    """Treat one component of the voxels above the floor; `values` is -inf outside it."""
    from scipy import ndimage

    mask = np.zeros(values.shape, bool)
    undecided = values > -np.inf
    while undecided.any():
        # All of C_p is settled with p: a lower voxel's own component contains C_p and with it p.
        peak = int(np.argmax(np.where(undecided, values, -np.inf)))
        height = values.flat[peak]
        labels, _ = ndimage.label(values > fraction * height, structure)
        component = labels == labels.flat[peak]
        if values[component].max() <= height:
            mask |= component
        undecided &= ~component
    return mask


def local_mean_and_std(image: np.ndarray, body: np.ndarray, sigma: tuple[float, ...]):
    """Return Gaussian-weighted mean and standard deviation over the body's voxels only (sigma in voxels).

    Weights outside the body are zero, so that air does not pull the mean down at the rim.
    """
    from scipy import ndimage

    def blur(a):
        return ndimage.gaussian_filter(a, sigma, mode="constant")

    inside = np.where(body, image, 0).astype(np.float64)
    shift = inside[body].mean()  # values near zero keep the variance's digits
    inside[body] -= shift
    weight = np.where(body, blur(body.astype(np.float64)), 1)
    mean = blur(inside) / weight
    variance = blur(inside**2) / weight - mean**2
    return mean + shift, np.sqrt(np.maximum(variance, 0))


def global_thresholds(image, method, values, polarity, body, regions) -> dict[str, float]:
    """Return one threshold per polarity for the methods that have one (relative: the cold one)."""
    if method == "fixed":
        return dict(values)
    if method == "otsu":
        found = otsu_thresholds(image[regions.get("cold", body)], 3 if polarity == "both" else 2)
        return {name: found[0] if name == "cold" else found[-1] for name in regions}
    if method == "percentile":
        return {name: float(np.percentile(image[body if name == "hot" else regions[name]], values[name]))
                for name in regions}
    return {"cold": values["cold"] * float(np.median(image[regions["cold"]]))} if "cold" in regions else {}


def local_thresholds(image, body, values, sides, window_mm, offset) -> dict[str, np.ndarray]:
    """Return a map of the threshold for each polarity: local mean ± (k·std + offset)."""
    sigma = as_positive_float("window_mm", _WINDOW_MM if window_mm is None else window_mm) / np.sqrt(8 * np.log(2))
    offset = 0.0 if offset is None else as_positive_float("offset", offset, allow_zero=True)
    mean, std = local_mean_and_std(image, body, tuple(sigma / side for side in sides))
    offset += 1e-6 * float(np.abs(image[body]).max())  # rounding must not make regions in a uniform background
    sign = {"hot": 1, "cold": -1}
    return {name: mean + sign[name] * (k * std + offset) for name, k in values.items()}
