r"""The parameter-free gate of targeted mask attention: features grow where the attention map is high."""

import contextlib
from collections.abc import Iterator

import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn import functional

from allpet_physics._arrays import as_positive_float
from allpet_physics.errors import InputError

GATES = ("residual", "multiply")


def gate_features(features: torch.Tensor, attention: torch.Tensor, strength: float,
                  gate: str = "residual") -> torch.Tensor:
    r"""Return features weighted by an attention map, resized to them by area.

    .. math:: O = F\,(1 + \lambda \hat M) \quad\text{(residual)}, \qquad O = \hat M F \quad\text{(multiply)}. \tag{A1}

    "multiply" is the paper's (M12): it deletes all that is outside the region.

    Parameters
    ----------
    features : tensor, shape (batch, channel, height, width)
    attention : tensor, shape (batch, 1, angle, bin)
        M̂ in [0, 1], the normalised projection of a region.
    strength : float
        λ ≥ 0; "multiply" has none.
    gate : {"residual", "multiply"}

    Returns
    -------
    tensor of the shape and dtype of `features`

    References
    ----------
    arXiv 2509.09130, equation 12 of its methods (M12).
    """
    small = functional.adaptive_avg_pool2d(attention.to(features.dtype), features.shape[-2:])
    return features * small if gate == "multiply" else features * (1 + strength * small)


class AttentionGates:
    """The gates of a network: one behind every residual block, all fed by the same map.

    They hold no parameters and touch nothing while no map is set, so a network without a map, or with λ = 0, computes
    the very same bits as one without gates.

    Parameters
    ----------
    network : nn.Module
    block_type : type
        After modules of this type the features are weighted.
    """

    def __init__(self, network: nn.Module, block_type: type):
        self._setting = None
        for module in network.modules():
            if isinstance(module, block_type):
                module.register_forward_hook(self._weigh)

    @contextlib.contextmanager
    def using(self, attention: torch.Tensor | None, strength: float = 0.0, gate: str = "residual") -> Iterator[None]:
        """Weigh features by a map inside a ``with``, whatever happens there; afterwards as before.

        Parameters
        ----------
        attention : tensor, shape (batch, 1, angle, bin) or (1, 1, angle, bin), optional
            None leaves the network alone.
        strength, gate
            See `gate_features`; a residual gate of strength 0 leaves the network alone.

        Raises
        ------
        InputError
            A map of another shape, a strength that is negative or not finite, an unknown gate.
        """
        with self._restored(_checked_setting(attention, strength, gate)):
            yield

    def checkpoint(self, function, *args):
        """Return ``function(*args)`` and compute it again, with the map of now, when gradients ask for it.

        torch computes a checkpointed part anew during ``backward``, which is after the end of `using`: the map must
        go with it, or the gradients would be those of the network without gates.
        """
        setting = self._setting
        return torch.utils.checkpoint.checkpoint(
            function, *args, use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), self._restored(setting)))

    @contextlib.contextmanager
    def _restored(self, setting):
        before, self._setting = self._setting, setting
        try:
            yield
        finally:
            self._setting = before

    def _weigh(self, module, inputs, output):
        return None if self._setting is None else gate_features(output, *self._setting)


def _checked_setting(attention, strength, gate):
    if gate not in GATES:
        raise InputError(f"gate must be one of {', '.join(GATES)}, but was {gate!r}.")
    strength = as_positive_float("gate_strength", strength, allow_zero=True)
    if attention is None or (gate == "residual" and strength == 0):
        return None
    if attention.ndim != 4 or attention.shape[1] != 1:
        raise InputError("attention must have shape (batch, 1, angle, bin), but its shape was "
                         f"{tuple(attention.shape)}; it is one map for all channels.")
    return attention, strength, gate
