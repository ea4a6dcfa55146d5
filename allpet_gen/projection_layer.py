r"""A physics operator as a differentiable torch function, with the exact transpose as its gradient.

For a linear operator A and a loss L of y = A x,

.. math:: \frac{\partial L}{\partial x} = A^\mathsf{T} \frac{\partial L}{\partial y}, \tag{PL1}

so the backward pass of a projection is the back projection and the reverse, to any order.
"""

import numpy as np
import torch
from torch import nn

from allpet_gen._operator_matrix import TOLERANCE, matrix_action
from allpet_physics._arrays import as_positive_int
from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.errors import InputError
from allpet_physics.operators import LinearOperator

BACKENDS = ("auto", "kernels", "torch")


def project(operator: LinearOperator, image: torch.Tensor, *, backend: str = "auto",
            max_matrix_bytes: int | None = None) -> torch.Tensor:
    r"""Apply a linear operator to a tensor; the gradient is the exact transpose, eq. (PL1).

    Parameters
    ----------
    operator : LinearOperator
        `RadonOperator` or a subset of it, `GaussianPSF`, their sums, multiples, compositions and stacks, or any other.
    image : torch.Tensor, shape (..., \*operator.in_shape)
        float32 or float64, on any device, of any layout.
    backend : {"auto", "kernels", "torch"}
        "kernels" calls the operator itself: on the CPU without a copy of contiguous tensors, from another device with
        a copy to the host and back. "torch" multiplies with the operator's matrix on the tensor's own device. "auto"
        takes the kernels on the CPU and the matrix elsewhere, never a copy to the host.
    max_matrix_bytes : int, optional
        The most that the matrix and its transpose may take; by default half of the device's free memory, or of the
        machine's memory on the CPU.

    Returns
    -------
    torch.Tensor, shape (..., \*operator.out_shape)
        On the same device and in the same precision.

    Raises
    ------
    InputError
        No LinearOperator, no tensor of float32 or float64, another shape, an unknown backend.
    GeometryError
        A matrix beyond `max_matrix_bytes`.

    Notes
    -----
    For "torch" the weights are read from the operator once for each device and precision, checked against it, and kept
    as two sparse matrices, A and Aᵀ, so that both directions are plain products. A point-spread function becomes two
    dense matrices, one for each axis. Sums, multiples, compositions and stacks are formed from the matrices of their
    parts. An operator that is none of these is read column by column, which takes as many projections as it has inputs.

    Values are not looked through, as that would wait for the device: NaN in gives NaN out.
    """
    return _applied("image", operator, image, False, backend, max_matrix_bytes)


def back_project(operator: LinearOperator, sinogram: torch.Tensor, *, backend: str = "auto",
                 max_matrix_bytes: int | None = None) -> torch.Tensor:
    r"""Apply the transpose of a linear operator to a tensor; its gradient is the forward projection.

    Parameters
    ----------
    operator : LinearOperator
    sinogram : torch.Tensor, shape (..., \*operator.out_shape)
    backend, max_matrix_bytes
        As in `project`.

    Returns
    -------
    torch.Tensor, shape (..., \*operator.in_shape)

    Raises
    ------
    InputError, GeometryError
        As in `project`.
    """
    return _applied("sinogram", operator, sinogram, True, backend, max_matrix_bytes)


class ProjectionLayer(nn.Module):
    r"""A projection as a layer of a network.

    With an operator it is `project`; with an `AcquisitionModel` it gives expected counts,

    .. math:: \bar y = m \cdot A\,G\,x + b, \tag{PL2}

    whose linear part m·AG has the exact transpose as its gradient. It has no parameters; m and b are buffers that
    follow ``.to(device)`` and are not part of the state.

    Parameters
    ----------
    operator : LinearOperator or AcquisitionModel
    backend, max_matrix_bytes
        As in `project`.

    Raises
    ------
    InputError
        Neither an operator nor a model; an unknown backend.
    """

    def __init__(self, operator: LinearOperator | AcquisitionModel, *, backend: str = "auto",
                 max_matrix_bytes: int | None = None):
        super().__init__()
        multiplicative = additive = None
        if isinstance(operator, AcquisitionModel):
            multiplicative, additive = operator.multiplicative, operator.additive
            operator = operator.operator if operator.image_operator is None else (
                operator.operator @ operator.image_operator)
        _check_arguments(operator, backend, max_matrix_bytes)
        self.operator, self.backend, self.max_matrix_bytes = operator, backend, max_matrix_bytes
        for name, value in (("multiplicative", multiplicative), ("additive", additive)):
            self.register_buffer(name, None if value is None else torch.tensor(value), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        r"""Return the projection, or the expected counts, of images ``(..., \*in_shape)``."""
        out = project(self.operator, image, backend=self.backend, max_matrix_bytes=self.max_matrix_bytes)
        if self.multiplicative is not None:
            out = out * self.multiplicative.to(out)
        return out if self.additive is None else out + self.additive.to(out)

    def extra_repr(self) -> str:
        """Show the operator."""
        return f"{self.operator!r}, backend={self.backend!r}"


class _LinearMap(torch.autograd.Function):
    """``action(x, transposed)`` for a linear action that knows its transpose."""

    @staticmethod
    def forward(x, action, transposed):
        return action(x, transposed)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.action, ctx.transposed = inputs

    @staticmethod
    def backward(ctx, gradient):
        return _LinearMap.apply(gradient, ctx.action, not ctx.transposed), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _LinearMap.apply(tangent, ctx.action, ctx.transposed)

    @staticmethod
    def vmap(info, in_dims, x, action, transposed):
        return _LinearMap.apply(x.movedim(in_dims[0], 0), action, transposed), 0


def _check_arguments(operator, backend, max_matrix_bytes):
    if not isinstance(operator, LinearOperator):
        raise InputError(f"operator must be a LinearOperator, for example RadonOperator(geometry), but was "
                         f"{type(operator).__name__}.")
    if backend not in BACKENDS:
        raise InputError(f"backend must be one of {', '.join(BACKENDS)}, but was {backend!r}.")
    if max_matrix_bytes is not None:
        as_positive_int("max_matrix_bytes", max_matrix_bytes)


def _applied(name, operator, x, transposed, backend, max_matrix_bytes):
    _check_arguments(operator, backend, max_matrix_bytes)
    if not isinstance(x, torch.Tensor):
        raise InputError(f"{name} must be a torch tensor, but was {type(x).__name__}; apply the operator itself to "
                         "NumPy arrays, or convert them with torch.from_numpy.")
    if x.dtype not in TOLERANCE:
        raise InputError(f"{name} must be float32 or float64, but was {x.dtype}; convert it with .float().")
    shape = operator.out_shape if transposed else operator.in_shape
    if tuple(x.shape[x.ndim - len(shape):]) != tuple(shape) or x.ndim < len(shape):
        raise InputError(f"{name} must have shape (..., {', '.join(map(str, shape))}), but its shape was "
                         f"{tuple(x.shape)}; use an operator made for it, or resample it.")
    if backend == "kernels" or (backend == "auto" and x.device.type == "cpu"):
        one = _kernels(operator)
    else:
        one = matrix_action(operator, x.device, x.dtype, max_matrix_bytes)

    def action(x, transposed):
        shape, result = (operator.in_shape, operator.out_shape)[::-1 if transposed else 1]
        batch = x.shape[:x.ndim - len(shape)]
        return one(x.reshape(-1, *shape), transposed).reshape(*batch, *result)

    return _LinearMap.apply(x, action, transposed)


def _kernels(operator):
    def action(x, transposed):
        array = np.ascontiguousarray(x.detach().cpu().numpy())
        out = (operator._adjoint if transposed else operator._apply)(array)
        if np.may_share_memory(out, array):  # a result is never a view of the input
            out = out.copy()
        return torch.from_numpy(np.ascontiguousarray(out)).to(x)

    return action
