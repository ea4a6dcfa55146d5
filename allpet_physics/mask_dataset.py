"""Mask datasets in a store: the parameters of blocks by default, their normalised sinograms on request.

Arrays of the store, samples first:

``blocks`` int32 ``(n, K, 4)``
    Row, col, height and width of each block in px; K is the largest number of blocks that a sample can have, and rows
    beyond a sample's own number are -1. `stored_blocks` gives them back as `Blocks`.
``n_blocks`` int32 ``(n,)``
    Number of blocks of each sample.
``sinograms`` float32 ``(n, angles, bins)``
    Only on request. In [0, 1] when normalised, otherwise path lengths in mm.
"""

import math
from collections.abc import Mapping

import numpy as np

from allpet_physics._arrays import as_positive_int
from allpet_physics.blocks import Blocks
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.masks import BlockCatalogue, DynamicMultiMask

KIND = "masks"
NORMALISATIONS = ("linear", "clip", "none")

#: Samples of which the size of a store is foretold.
_TRIED = 8


def mask_parameters(sampler: DynamicMultiMask | BlockCatalogue, *, geometry: ParallelGeometry | None = None,
                    kernel: str = "strip", normalisation: str = "linear") -> dict:
    """Return every setting of a mask dataset in plain types; `make_masks` renders samples from it.

    Parameters
    ----------
    sampler : DynamicMultiMask or BlockCatalogue
    geometry : ParallelGeometry, optional
        Of the sinograms; without it only the blocks' parameters are kept.
    kernel, normalisation : str
        Of the sinograms: a kernel of `project_blocks`, and "linear", "clip" or "none".

    Raises
    ------
    InputError
        Another kind of sampler, an unknown kernel or normalisation.
    GeometryError
        A geometry of another image shape than the sampler's.
    """
    from allpet_physics.mask_projection import KERNELS

    kinds = {DynamicMultiMask: "dynamic multi-mask", BlockCatalogue: "catalogue"}
    if type(sampler) not in kinds:
        raise InputError("sampler must be a DynamicMultiMask or a block_catalogue, but was a "
                         f"{type(sampler).__name__}.")
    parameters = {"sampler": kinds[type(sampler)], **sampler.to_dict(), "sinograms": None}
    if geometry is not None:
        for name, value, known in (("kernel", kernel, KERNELS), ("normalisation", normalisation, NORMALISATIONS)):
            if value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, but was {value!r}.")
        if geometry.image_shape != sampler.image_shape:
            raise GeometryError(f"geometry must have the sampler's image_shape {sampler.image_shape}, but had "
                                f"{geometry.image_shape}.")
        parameters["sinograms"] = {"geometry": geometry.to_dict(), "kernel": kernel, "normalisation": normalisation}
    return parameters


def mask_sampler(parameters: Mapping) -> DynamicMultiMask | BlockCatalogue:
    """Return the sampler that `mask_parameters` described."""
    kind = BlockCatalogue if parameters["sampler"] == "catalogue" else DynamicMultiMask
    return kind.from_dict({name: value for name, value in parameters.items() if name not in ("sampler", "sinograms")})


def mask_arrays(parameters: Mapping) -> dict[str, tuple]:
    """Return name, (shape of a sample, dtype) of each array of a mask dataset."""
    sampler = mask_sampler(parameters)
    most = 1 if isinstance(sampler, BlockCatalogue) else sampler.n_blocks[1]
    arrays = {"blocks": ((most, 4), "int32"), "n_blocks": ((), "int32")}
    if parameters["sinograms"]:
        geometry = ParallelGeometry(**parameters["sinograms"]["geometry"])
        arrays["sinograms"] = (geometry.sinogram_shape, "float32")
    return arrays


def make_masks(parameters: Mapping, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of some samples: a function of the settings and the samples' numbers alone."""
    sampler = mask_sampler(parameters)
    blocks = sampler[samples] if isinstance(sampler, BlockCatalogue) else sampler.draw(samples)
    arrays = mask_arrays(parameters)
    padded = np.full((len(samples), *arrays["blocks"][0]), -1, np.int32)
    padded[np.arange(padded.shape[1]) < blocks.counts[:, None]] = blocks.parameters
    made = {"blocks": padded, "n_blocks": blocks.counts.astype(np.int32)}
    if parameters["sinograms"]:
        made["sinograms"] = _sinograms(blocks, **parameters["sinograms"])
    return made


def stored_blocks(blocks, image_shape: tuple[int, int]) -> Blocks:
    """Return rows of the stored array ``blocks`` as a batch of `Blocks`, without their padding.

    Parameters
    ----------
    blocks : array_like of int, shape (n, K, 4)
        Or (K, 4) for one sample, which gives a single set.
    image_shape : (int, int)
        ``group.attrs["allpet"]["parameters"]["image_shape"]``.
    """
    padded = np.asarray(blocks)
    if padded.ndim not in (2, 3) or padded.shape[-1] != 4:
        raise InputError(f"blocks must have shape (n, K, 4) or (K, 4), but its shape was {padded.shape}.")
    used = padded[..., 2] > 0
    if padded.ndim == 2:
        return Blocks(image_shape, padded[used])
    return Blocks(image_shape, padded[used], np.concatenate([[0], np.cumsum(used.sum(axis=1))]))


def expected_bytes(parameters: Mapping, n_samples: int) -> int:
    """Return about how many bytes the shards of a dataset will take, from a few samples spread over it."""
    from allpet_physics.io.store import encoded_bytes

    n = as_positive_int("n_samples", n_samples)
    # The blocks are so few bytes that only many of them show how well they compress.
    small = np.unique(np.linspace(0, n - 1, min(n, 256), dtype=np.int64))
    size = encoded_bytes(make_masks({**parameters, "sinograms": None}, small)) / len(small)
    if parameters["sinograms"]:
        few = np.unique(np.linspace(0, n - 1, min(n, _TRIED), dtype=np.int64))
        size += encoded_bytes({"sinograms": make_masks(parameters, few)["sinograms"]}) / len(few)
    return math.ceil(size * n)


def _sinograms(blocks: Blocks, geometry: Mapping, kernel: str, normalisation: str) -> np.ndarray:
    from allpet_physics.mask_projection import normalise_mask, project_blocks

    projected = project_blocks(blocks, ParallelGeometry(**geometry), kernel=kernel)
    return projected if normalisation == "none" else normalise_mask(projected, normalisation)
