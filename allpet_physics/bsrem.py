"""Penalised-likelihood reconstruction with the relative difference prior, by convergent ordered subsets."""

from collections.abc import Callable, Iterator

import numpy as np

from allpet_physics._arrays import as_float_array, as_positive_float, as_positive_int
from allpet_physics.acquisition import AcquisitionModel, angle_subsets
from allpet_physics.emission import osem_iterates
from allpet_physics.errors import InputError
from allpet_physics.relative_difference import relative_difference_penalty, relative_difference_slopes

#: ε of the prior and the floor of the preconditioner, relative to the uniform image that explains the counts.
_RELATIVE_EPSILON, _RELATIVE_FLOOR = 1e-2, 1e-2
#: A fall of the objective below this many roundings of its terms is no fall.
_ROUNDINGS = 16


def bsrem(model: AcquisitionModel, counts, beta: float, n_iterations: int, n_subsets: int, *, gamma: float = 2.0,
          epsilon=None, initial=None, callback: Callable[[int, int, np.ndarray], object] | None = None,
          progress: bool = False) -> np.ndarray:
    r"""Maximise the penalised likelihood with the relative difference prior.

    .. math:: \hat x = \arg\max_{x \ge 0}\; \Phi(x), \qquad \Phi(x) = L(x; y) - \beta R(x), \tag{BR1}

    with L of eq. (A2) and R of eq. (RD1). From an anchor :math:`\tilde x`, one iteration makes an update with each of M
    subsets of the angles,

    .. math::

        g &= \nabla L(\tilde x) + M\,[\nabla L_m(x) - \nabla L_m(\tilde x)] - \beta \nabla R(x), \tag{BR2} \\
        x &\leftarrow \max(x + \alpha\, D(\tilde x)\, g,\, 0), \qquad
        D = \frac{\tilde x + \delta}{s + 2 \beta\,(\tilde x + \delta)\, \mathrm{diag} \nabla^2 R(\tilde x)}. \tag{BR3}

    These are the updates of modified BSREM (block-sequential regularised EM: scaled by the image over the sensitivity,
    with a floor δ so that a pixel at zero can return) with two changes. The gradient of a subset is corrected by the
    anchor's (stochastic variance-reduced gradient), which goes to the true gradient as the iterates settle: so the
    step need not go to zero, and there is no cycle among the subsets at the end. And D holds the curvature of the
    prior, so that a strong one needs no smaller step. The step α starts at 1; whenever an iteration lowers Φ, it is
    undone and α halved. So Φ never falls from one iteration to the next, and since Φ is concave, every number of
    subsets and every start lead to the same image.

    An iteration costs about two of `osem`: one pass over the subsets at the anchor, one for the updates.

    Parameters
    ----------
    model : AcquisitionModel
        Its images must have two axes.
    counts : array_like, shape (..., \*model.out_shape)
        Counts y, non-negative, not corrected for anything the model holds. Leading axes are a batch.
    beta : float
        β ≥ 0, in the unit of the sensitivity (counts per unit of the image): at ``0.003 * model.sensitivity().max()``
        the prior is felt, at 0.1 of it, it is strong. At a fraction of the dose the same β smooths more. 0 is maximum
        likelihood.
    n_iterations : int
    n_subsets : int
        From 1 to the number of angles.
    gamma, epsilon : float
        Of the prior. By default ε is 1 % of the uniform image that explains the counts.
    initial : array_like, shape (..., \*model.in_shape), optional
        Non-negative start; by default one iteration of `osem`.
    callback, progress
        As in `mlem`; `callback` is called after every update. The last image of an iteration is the accepted one.

    Returns
    -------
    ndarray, shape (..., \*model.in_shape)
        float64 if the counts or the start are, float32 otherwise. Pixels without sensitivity are 0.

    Raises
    ------
    InputError
        As in `osem`; β, γ or ε out of range; images without two axes.

    References
    ----------
    De Pierro & Yamagishi 2001, IEEE TMI 20:280 (BSREM); Ahn & Fessler 2003, IEEE TMI 22:613 (modified BSREM);
    Johnson & Zhang 2013, NeurIPS 26:315 (SVRG); Twyman et al. 2023, IEEE TMI 42:29 (with this prior, for PET);
    Ehrhardt et al. 2025, Front. Nucl. Med. 5:1641215 (the prior in the preconditioner); Nuyts et al. 2002, IEEE Trans
    Nucl Sci 49:56 (the prior).
    """
    from tqdm import tqdm

    iterates = bsrem_iterates(model, counts, beta, n_iterations, n_subsets, gamma=gamma, epsilon=epsilon,
                              initial=initial)
    total = n_iterations * n_subsets
    for iteration, subset, image in tqdm(iterates, desc="BSREM", total=total, unit="update", disable=not progress):
        if callback is not None:
            callback(iteration, subset, image)
    return image


def bsrem_iterates(model: AcquisitionModel, counts, beta: float, n_iterations: int, n_subsets: int, *,
                   gamma: float = 2.0, epsilon=None, initial=None) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (iteration, subset, image) after each update of `bsrem`, both counted from 1.

    Every image is an array of its own. Input is checked at the call.
    """
    if not isinstance(model, AcquisitionModel):
        raise InputError(f"model must be an AcquisitionModel, for example AcquisitionModel(RadonOperator(geometry)), "
                         f"but was {type(model).__name__}.")
    if len(model.in_shape) != 2:
        raise InputError(f"model must have images of two axes for this prior, but they have {len(model.in_shape)}.")
    n_iterations = as_positive_int("n_iterations", n_iterations)
    beta = as_positive_float("beta", beta, allow_zero=True)
    gamma = as_positive_float("gamma", gamma, allow_zero=True)
    counts = model.checked_counts(counts)
    if initial is not None:
        initial = as_float_array("initial", initial, model.in_shape, nonnegative=True)
        counts = counts.astype(np.result_type(counts, initial), copy=False)
    # The start of the likelihood algorithms checks the batch axes and gives the level of the image.
    first = osem_iterates(model, counts, 1, n_subsets, initial=initial)
    image = np.zeros(())
    if initial is None:
        for _, _, latest in first:
            image = latest
    else:
        batch = np.broadcast_shapes(counts.shape[:counts.ndim - len(model.out_shape)], model.batch_shape,
                                    initial.shape[:-2])
        image = np.where(model.sensitivity(counts.dtype) > 0, initial, 0).astype(counts.dtype)
        image = np.broadcast_to(image, batch + image.shape[-2:]).copy()
    level = _uniform_level(model, counts, image.shape[:-2])
    if epsilon is None:
        epsilon = _RELATIVE_EPSILON * level
    problem = _Objective(model, counts, n_subsets, beta, gamma, epsilon)
    problem.penalty(image)  # refuses an epsilon that is out of range
    return _updates(problem, image, (_RELATIVE_FLOOR * level)[..., np.newaxis, np.newaxis], n_iterations)


class _Objective:
    """Φ of eq. (BR1) with its data split into subsets."""

    def __init__(self, model, counts, n_subsets, beta, gamma, epsilon):
        angles = angle_subsets(model.out_shape[0], n_subsets)
        parts = [model] if len(angles) == 1 else model.subsets(n_subsets)
        bins = (slice(None),) * (len(model.out_shape) - 1)
        self.subsets = [(part, counts[(..., chosen, *bins)]) for part, chosen in zip(parts, angles, strict=True)]
        self.sensitivity = model.sensitivity(counts.dtype)
        self.beta, self.prior = beta, {"gamma": gamma, "epsilon": epsilon}
        self.rounding = _ROUNDINGS * np.finfo(counts.dtype).eps

    def penalty(self, image):
        return relative_difference_penalty(image, **self.prior)

    def slopes(self, image):
        return relative_difference_slopes(image, **self.prior)

    def at_anchor(self, image):
        """Return Φ, what rounding may change in it, and the gradient of each subset's likelihood."""
        values, gradients = zip(*(part.value_and_gradient(image, counts) for part, counts in self.subsets),
                                strict=True)
        penalty = self.beta * self.penalty(image)
        value = sum(values) - penalty
        size = sum(np.abs(v) for v in values) + penalty
        return value, self.rounding * np.where(np.isfinite(size), size, 0), list(gradients)


def _updates(problem, anchor, floor, n_iterations):
    n_subsets = len(problem.subsets)
    seen = problem.sensitivity > 0
    step = np.ones((*anchor.shape[:-2], 1, 1), anchor.dtype)
    value, slack, gradients = problem.at_anchor(anchor)
    for iteration in range(1, n_iterations + 1):
        image, total = anchor, sum(gradients)
        prior_gradient, curvature = problem.slopes(anchor)
        raised = anchor + floor.astype(anchor.dtype)
        below = problem.sensitivity + anchor.dtype.type(2 * problem.beta) * raised * curvature
        scale = step * np.divide(raised, below, out=np.zeros_like(raised), where=np.broadcast_to(seen, raised.shape))
        for number, ((part, counts), at_anchor) in enumerate(zip(problem.subsets, gradients, strict=True), start=1):
            slope = total
            if number > 1:  # at the first the image still is the anchor
                slope = total + n_subsets * (part.gradient(image, counts) - at_anchor)
                prior_gradient, _ = problem.slopes(image)
            slope = slope - anchor.dtype.type(problem.beta) * prior_gradient
            image = np.maximum(image + scale * slope, 0)
            if number < n_subsets:
                yield iteration, number, image
        new_value, new_slack, new_gradients = problem.at_anchor(image)
        kept = np.asarray(new_value >= value - np.maximum(slack, new_slack))[..., np.newaxis, np.newaxis]
        step = np.where(kept, step, step / 2).astype(anchor.dtype, copy=False)
        anchor = np.where(kept, image, anchor)
        gradients = [np.where(kept, new, old) for new, old in zip(new_gradients, gradients, strict=True)]
        value, slack = (np.where(kept[..., 0, 0], new, old) for new, old in ((new_value, value), (new_slack, slack)))
        yield iteration, n_subsets, anchor


def _uniform_level(model: AcquisitionModel, counts: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
    """Return the value of the uniform image that explains the counts, each background at most nine tenths of them."""
    bins = tuple(range(-len(model.out_shape), 0))
    total = counts.sum(axis=bins, dtype=np.float64)
    if model.additive is not None:
        total = np.maximum(total - model.additive.sum(axis=bins, dtype=np.float64), 0.1 * total)
    seen = np.asarray(model.sensitivity(counts.dtype).sum(axis=(-2, -1), dtype=np.float64))
    level = np.divide(total, seen, out=np.zeros(np.broadcast_shapes(total.shape, seen.shape)), where=seen > 0)
    # Without counts any positive number serves: the image is zero.
    return np.broadcast_to(np.where(level > 0, level, 1.0), batch)
