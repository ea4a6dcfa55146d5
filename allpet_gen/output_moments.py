"""The squared error of a network under any linear map of its outputs, from moments that are kept by patient."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from allpet_physics.errors import InputError

#: Maps whose errors are computed together.
_TOGETHER = 2000


@dataclass(frozen=True, eq=False)
class OutputMoments:
    r"""All that the errors of some patients depend on, when the outputs of a network are mapped linearly.

    A network gives c channels f, which should be v. Behind it stands a map of its channels with an offset,
    :math:`W \in R^{c \times (c + 1)}`, which leaves the network as it is for :math:`W_0 = [I, 0]`. With φ = (f, 1), the
    mean ⟨·⟩ over all elements of all examples of a patient, and the share u of elements that channel i has in them,

    .. math:: e_p(W) = \Big\langle \|v - W\varphi\|^2 \Big\rangle
              = a_p - 2\,\mathrm{tr}(W B_p^\top) + \sum_i W_i\, G_{p, g(i)}\, W_i^\top, \tag{CE1}

    .. math:: a_p = \langle v^2 \rangle, \quad B_{p, i} = u_i \langle v_i \varphi \rangle, \quad
              G_{p, g} = u_g \langle \varphi\varphi^\top \rangle. \tag{CE2}

    Channels that are used together, in the same examples, form a group g with one G.

    Attributes
    ----------
    square : ndarray of float64, shape (n,)
        a, of each patient: the error of predicting 0.
    cross : ndarray of float64, shape (n, c, c + 1)
        B.
    gram : ndarray of float64, shape (n, groups, c + 1, c + 1)
        G.
    group : ndarray of int, shape (c,)
        g of each channel.
    patients : ndarray of int, shape (n,)
    n_examples : int
        Predictions that went into all of it.
    """

    square: np.ndarray
    cross: np.ndarray
    gram: np.ndarray
    group: np.ndarray
    patients: np.ndarray
    n_examples: int

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.patients)

    @property
    def unchanged(self) -> np.ndarray:
        """The map that leaves the network as it is, shape (c, c + 1)."""
        return np.eye(*self.cross.shape[1:])

    def errors(self, maps: np.ndarray) -> np.ndarray:
        """Return eq. (CE1) of some maps (m, c, c + 1), shape (m, n)."""
        n = len(self)
        out = np.empty((len(maps), n))
        for start in range(0, len(maps), _TOGETHER):
            w = maps[start:start + _TOGETHER]
            found = self.square - 2 * w.reshape(len(w), -1) @ self.cross.reshape(n, -1).T
            for g in range(self.gram.shape[1]):
                rows = w[:, self.group == g]
                outer = np.einsum("mri,mrj->mij", rows, rows).reshape(len(w), -1)
                found += outer @ self.gram[:, g].reshape(n, -1).T
            out[start:start + len(w)] = found
        return out

    def mean(self) -> "OutputMoments":
        """Return moments whose errors are the mean over the patients, as if of one."""
        return OutputMoments(self.square.mean(keepdims=True), self.cross.mean(0, keepdims=True),
                             self.gram.mean(0, keepdims=True), self.group, self.patients[:1], self.n_examples)


def gather_moments(batches: Iterable, group) -> OutputMoments:
    """Return the moments of predictions that come in batches.

    Parameters
    ----------
    batches : iterable of (outputs, targets, used, patients)
        Arrays of shape (batch, c, ...) twice, (batch, c) of 0 or 1, and (batch,). Channels that are not used are 0 in
        both. Every example of a patient weighs the same.
    group : array_like of int, shape (c,)
        See `OutputMoments`; within an example, a group is used as a whole or not at all.

    Raises
    ------
    InputError
        No batch at all, or predictions that are not finite.
    """
    group = np.asarray(group)
    first = [int(np.flatnonzero(group == g)[0]) for g in range(group.max() + 1)]
    sums: dict[int, list] = {}
    n_examples = 0
    for outputs, targets, used, patients in batches:
        f, v = (np.asarray(a, np.float64).reshape(*a.shape[:2], -1) for a in (outputs, targets))
        if not (np.isfinite(f).all() and np.isfinite(v).all()):
            raise InputError("model must predict finite values, but did not; train it again.")
        phi = np.concatenate([f, np.ones_like(f[:, :1])], axis=1)
        share = np.asarray(used, np.float64) / (np.asarray(used).sum(1, keepdims=True) * f.shape[2])
        square = (share[:, :, None] * v**2).sum((1, 2))
        cross = share[:, :, None] * (v @ phi.swapaxes(1, 2))
        gram = share[:, first, None, None] * (phi @ phi.swapaxes(1, 2))[:, None]
        for k, patient in enumerate(np.asarray(patients).tolist()):
            had = sums.setdefault(patient, [0, 0.0, 0.0, 0.0])
            for i, value in enumerate((1, square[k], cross[k], gram[k])):
                had[i] = had[i] + value
        n_examples += len(f)
    if not sums:
        raise InputError("batches must hold at least one prediction, but held none.")
    patients = np.array(sorted(sums))
    means = [np.stack([sums[p][i] / sums[p][0] for p in patients.tolist()]) for i in (1, 2, 3)]
    return OutputMoments(*means, group, patients, n_examples)
