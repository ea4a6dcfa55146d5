"""Maximum-likelihood reconstruction of emission counts: MLEM and OSEM."""

from collections.abc import Callable, Iterator

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_int
from allpet_physics.acquisition import AcquisitionModel, angle_subsets
from allpet_physics.errors import InputError

#: The uniform start assumes that at least this fraction of the counts is signal, however large the background.
_LEAST_SIGNAL = 0.1


def mlem(model: AcquisitionModel, counts, n_iterations: int, *, initial=None,
         callback: Callable[[int, int, np.ndarray], object] | None = None, progress: bool = False) -> np.ndarray:
    r"""Reconstruct images by maximum-likelihood expectation maximisation.

    .. math:: x \leftarrow \frac{x}{s}\, G^\mathsf{T} A^\mathsf{T}\, m\, \frac{y}{\bar y(x)}, \qquad
       s = G^\mathsf{T} A^\mathsf{T} m. \tag{E1}

    Every update raises the likelihood, or keeps it, and balances the counts exactly:

    .. math:: \sum_j s_j x_j^\mathrm{new} = \sum_i (m A G x^\mathrm{new})_i
       = \sum_i y_i\,\frac{\bar y_i - b_i}{\bar y_i}, \tag{E2}

    which without a background is the number of counts (that some pixel of the image can explain).

    Parameters
    ----------
    model : AcquisitionModel
    counts : array_like, shape (..., \*model.out_shape)
        Counts y, non-negative, *not* corrected for anything the model holds. Leading axes are a batch.
    n_iterations : int
    initial : array_like, shape (..., \*model.in_shape), optional
        Non-negative start. Pixels at 0 stay at 0, so a start can carry a support. By default it is uniform, with the
        level that explains the counts less the background. To resume, pass the image of the last whole iteration.
    callback : callable, optional
        Called as ``callback(iteration, subset, image)`` after every update, both counted from 1.
    progress : bool
        Whether a progress bar is shown on standard error.

    Returns
    -------
    ndarray, shape (..., \*model.in_shape)
        float64 if the counts or the start are, float32 otherwise. Pixels without sensitivity are 0.

    Raises
    ------
    InputError
        Counts or a start that are negative, NaN, infinite or of another shape; n_iterations below 1.

    References
    ----------
    Shepp & Vardi 1982, IEEE TMI 1:113; Lange & Carson 1984, J. Comput. Assist. Tomogr. 8:306.
    """
    return _last(mlem_iterates(model, counts, n_iterations, initial=initial), n_iterations, "MLEM", callback, progress)


def osem(model: AcquisitionModel, counts, n_iterations: int, n_subsets: int, *, initial=None,
         callback: Callable[[int, int, np.ndarray], object] | None = None, progress: bool = False) -> np.ndarray:
    r"""Reconstruct images by expectation maximisation over ordered subsets of the angles.

    Every iteration makes one update (E1) with each subset's own counts, model and sensitivity, in the order of
    `angle_subsets`. It goes about `n_subsets` times as fast as `mlem` at first, and ends in a small cycle instead of
    the maximum unless the data are consistent. One subset gives `mlem`, bit for bit.

    A pixel that a subset does not see keeps its value in that update; a pixel that no subset sees is 0.

    Parameters
    ----------
    n_subsets : int
        From 1 to the number of angles; it need not divide them.
    model, counts, n_iterations, initial, callback, progress
        As in `mlem`; `callback` is called after every subset.

    Returns
    -------
    ndarray, shape (..., \*model.in_shape)

    Raises
    ------
    InputError
        As in `mlem`; more subsets than angles; a projector without angle subsets.

    References
    ----------
    Hudson & Larkin 1994, IEEE TMI 13:601.
    """
    iterates = osem_iterates(model, counts, n_iterations, n_subsets, initial=initial)
    return _last(iterates, n_iterations * n_subsets, "OSEM", callback, progress)


def mlem_iterates(model: AcquisitionModel, counts, n_iterations: int, *,
                  initial=None) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (iteration, 1, image) after each update of `mlem`, so that the caller decides when to stop."""
    return osem_iterates(model, counts, n_iterations, 1, initial=initial)


def osem_iterates(model: AcquisitionModel, counts, n_iterations: int, n_subsets: int, *,
                  initial=None) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (iteration, subset, image) after each update of `osem`, both counted from 1.

    Every image is an array of its own that later updates leave alone. Input is checked at the call, not at the first
    step.
    """
    if not isinstance(model, AcquisitionModel):
        raise InputError(f"model must be an AcquisitionModel, for example AcquisitionModel(RadonOperator(geometry)), "
                         f"but was {type(model).__name__}.")
    n_iterations = as_positive_int("n_iterations", n_iterations)
    counts = model.checked_counts(counts)
    angles = angle_subsets(model.out_shape[0], n_subsets)
    parts = [model] if len(angles) == 1 else model.subsets(n_subsets)
    if initial is not None:
        initial = as_float_array("initial", initial, model.in_shape, nonnegative=True)
        counts = counts.astype(np.result_type(counts, initial), copy=False)
    sensitivities = [part.sensitivity(counts.dtype) for part in parts]
    image = _start(model, counts, sum(sensitivities), initial)
    bins = (slice(None),) * (len(model.out_shape) - 1)
    subsets = [(part, counts[(..., chosen, *bins)], sensitivity)
               for part, chosen, sensitivity in zip(parts, angles, sensitivities, strict=True)]
    return _updates(subsets, image, n_iterations)


def _updates(subsets, image, n_iterations):
    for iteration in range(1, n_iterations + 1):
        for number, (model, counts, sensitivity) in enumerate(subsets, start=1):
            image = _update(model, counts, sensitivity, image)
            yield iteration, number, image


def _update(model: AcquisitionModel, counts: np.ndarray, sensitivity: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the next image, eq. (E1); the array of the back projection becomes the image."""
    new = model.back_projected_quotient(image, counts)
    seen = sensitivity > 0
    np.divide(new, sensitivity, out=new, where=seen)
    np.copyto(new, 1, where=~seen)
    new *= image
    return new


def _start(model: AcquisitionModel, counts: np.ndarray, sensitivity: np.ndarray, initial) -> np.ndarray:
    """Return the given start, or the uniform image that explains the signal, on the pixels that are seen."""
    n_bin_axes, n_pixel_axes = len(model.out_shape), len(model.in_shape)
    batches = [counts.shape[:counts.ndim - n_bin_axes], model.batch_shape]
    if initial is not None:
        batches.append(initial.shape[:initial.ndim - n_pixel_axes])
    try:
        batch = np.broadcast_shapes(*batches)
    except ValueError:
        raise InputError("the batch axes of counts, of the model's factors and of initial must broadcast, "
                         f"but were {', '.join(map(str, batches))}.") from None
    if initial is None:
        bins, pixels = tuple(range(-n_bin_axes, 0)), tuple(range(-n_pixel_axes, 0))
        total = counts.sum(axis=bins, dtype=np.float64)
        signal = total if model.additive is None else np.maximum(
            total - model.additive.sum(axis=bins, dtype=np.float64), _LEAST_SIGNAL * total)
        seen = np.asarray(sensitivity.sum(axis=pixels, dtype=np.float64))
        level = np.divide(signal, seen, out=np.zeros(np.broadcast_shapes(signal.shape, seen.shape)), where=seen > 0)
        initial = level.reshape(level.shape + (1,) * n_pixel_axes)
    image = np.empty(batch + tuple(model.in_shape), counts.dtype)
    np.multiply(initial, sensitivity > 0, out=image, casting="same_kind")
    return image


def _last(iterates, n_updates, stage, callback, progress):
    """Run the iterates to their end and return the last image."""
    from tqdm import tqdm

    for iteration, subset, image in tqdm(iterates, desc=stage, total=n_updates, unit="update", disable=not progress):
        if callback is not None:
            callback(iteration, subset, image)
    return image
