"""Masks drawn as parameters: every placement of one block (RMAS), and random sets of blocks (DMM).

Neither stores a mask: a block is four numbers, and what is projected, logged and written are those numbers.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from allpet_physics._arrays import as_positive_int
from allpet_physics._block_checks import as_indices, as_pair, as_range, as_sample_indices, check_image_shape
from allpet_physics.blocks import Blocks
from allpet_physics.errors import GeometryError, InputError

__all__ = ["BlockCatalogue", "Blocks", "DynamicMultiMask", "block_catalogue"]


@dataclass(frozen=True)
class BlockCatalogue:
    r"""All placements of one block in an image, by index, row by row, without materialising them.

    With a block of h x w px, an image of n x m px and a stride of s x t px, placement i is

    .. math:: \mathrm{row} = s\,\lfloor i / N \rfloor, \qquad \mathrm{col} = t\,(i \bmod N), \qquad
       N = \lfloor (m - w)/t \rfloor + 1. \tag{B1}

    A block of 64 x 64 px has 449 x 449 = 201,601 placements in 512 x 512 px: the radon mask augmentation strategy
    (RMAS) of the ALL-PET paper (arXiv 2509.09130). They are shifts of one block, neighbours nearly the same mask: as
    many masks, but by no means as many independent samples.

    ``catalogue[i]`` is a single set of one block, also for negative i; a slice or an array of indices or booleans gives
    a batch, of which every set is one block. An index out of range raises ``IndexError``.

    Parameters
    ----------
    image_shape : (int, int)
        Rows and columns of the image.
    block_px : int or (int, int)
        Side of a square block, or height and width, in px.
    stride : int or (int, int)
        Shift between neighbours along rows and columns in px.

    Raises
    ------
    InputError
        A size or stride below one.
    GeometryError
        A block larger than the image.
    """

    image_shape: tuple[int, int]
    block_px: tuple[int, int]
    stride: tuple[int, int] = (1, 1)

    def __post_init__(self):
        shape = check_image_shape(self.image_shape)
        block = as_pair("block_px", self.block_px, "(height, width)")
        if block[0] > shape[0] or block[1] > shape[1]:
            raise GeometryError(f"block_px must fit into the image of {shape[0]} x {shape[1]} px, but was {block[0]} x "
                                f"{block[1]} px.")
        for name, value in (("image_shape", shape), ("block_px", block),
                            ("stride", as_pair("stride", self.stride, "(down, across)"))):
            object.__setattr__(self, name, value)

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Number of placements down and across."""
        return tuple((n - b) // s + 1 for n, b, s in zip(self.image_shape, self.block_px, self.stride, strict=True))

    def __len__(self) -> int:
        down, across = self.grid_shape
        return down * across

    def __getitem__(self, index) -> Blocks:
        chosen = as_indices(index, len(self), "placement")
        down, across = np.divmod(np.atleast_1d(chosen), self.grid_shape[1])
        parameters = np.empty((down.size, 4), np.int32)
        parameters[:, 0], parameters[:, 1] = down * self.stride[0], across * self.stride[1]
        parameters[:, 2:] = self.block_px
        offsets = np.arange(down.size + 1, dtype=np.int64)
        return Blocks._trusted(self.image_shape, parameters, offsets, True, chosen.ndim == 1)

    def index_of(self, row, col) -> int | np.ndarray:
        """Return the index of the placement whose top-left pixel is (row, col); arrays give an array.

        Raises
        ------
        InputError
            A row or column that is no placement of this catalogue.
        """
        steps = []
        for name, value, stride, n in zip(("row", "col"), (row, col), self.stride, self.grid_shape, strict=True):
            a = np.asarray(value)
            if a.dtype.kind not in "iu":
                raise InputError(f"{name} must be an integer or an array of integers, but was {value!r}.")
            bad = (a < 0) | (a % stride != 0) | (a // stride >= n)
            if bad.any():
                raise InputError(f"{name} must be a multiple of {stride} from 0 to {(n - 1) * stride}, but was "
                                 f"{int(a[bad].flat[0])}.")
            steps.append(a.astype(np.int64) // stride)
        try:
            index = steps[0] * self.grid_shape[1] + steps[1]
        except ValueError:
            raise InputError(f"row and col must have one shape, but had {steps[0].shape} and "
                             f"{steps[1].shape}.") from None
        return int(index) if index.ndim == 0 else index

    def to_dict(self) -> dict:
        """Return the settings as plain Python types, ready for JSON."""
        return {name: list(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict) -> "BlockCatalogue":
        """Return the catalogue that `to_dict` described, validated again."""
        return cls(**_known_fields(cls, fields))


def block_catalogue(image_shape: tuple[int, int], block_px: int | tuple[int, int],
                    stride: int | tuple[int, int] = 1) -> BlockCatalogue:
    """Return all placements of a block in an image, by index; see `BlockCatalogue`.

    ``block_catalogue((512, 512), 64)[100_000]`` is the block at row 222, column 322. Placements are shifts of one
    block, not independent samples.
    """
    return BlockCatalogue(image_shape, block_px, stride)


@dataclass(frozen=True)
class DynamicMultiMask:
    r"""Random sets of non-overlapping blocks, varying in number, size and place: the DMM of the ALL-PET paper.

    Sample i depends on (seed, i) alone, whatever else is drawn, in whatever order, on whatever platform: its random
    words are those of Philox4x32-10 (Salmon et al. 2011) with the seed as key and i in the counter.

    The number K of blocks is uniform over ``n_blocks``, both ends included, and each size over ``block_px``. Then the
    blocks are placed:

    ``"free"``
        One after the other, the largest first, each uniformly over all places that the former leave free. When some
        block finds none, all are placed afresh, with the same sizes. When fresh starts do not help, the blocks are
        packed systematically, on shelves or else by a search that is complete for few blocks, and slid apart at
        random. A sample that cannot be packed even so raises: never fewer blocks, never other sizes. `always_packs`
        tells when this cannot happen:

        .. math:: K_{\max} \le \lfloor n/b \rfloor \lfloor m/b \rfloor \tag{B2}

        for an image of n x m px and blocks of at most b px.
    ``"grid"``
        The image is divided evenly into ⌊n/b⌋ x ⌊m/b⌋ cells; K cells are drawn without replacement, and each block lies
        anywhere inside its cell, uniformly. It always succeeds. No block crosses an edge between cells.

    Parameters
    ----------
    image_shape : (int, int)
        Rows and columns n x m of the image.
    n_blocks : int or (int, int)
        Number of blocks, or its smallest and largest value.
    block_px : int or (int, int)
        Side of a block in px, or its smallest and largest value.
    seed : int
        From 0 to 2**64 - 1.
    placement : {"free", "grid"}
    square : bool
        Whether a block is as wide as it is high; otherwise height and width are drawn independently.

    Raises
    ------
    InputError
        A number below one, a range whose ends are in the wrong order, an unknown placement, a seed out of range.
    GeometryError
        A block larger than the image; more blocks than the image or its grid can ever hold.
    """

    image_shape: tuple[int, int]
    n_blocks: tuple[int, int] = (1, 6)
    block_px: tuple[int, int] = (16, 64)
    seed: int = 0
    placement: str = "free"
    square: bool = True

    def __post_init__(self):
        shape = check_image_shape(self.image_shape)
        numbers = as_range("n_blocks", self.n_blocks)
        sizes = as_range("block_px", self.block_px)
        seed = as_positive_int("seed", self.seed, minimum=0)
        if seed >= 2**64:
            raise InputError(f"seed must be below 2**64, but was {seed}.")
        if self.placement not in ("free", "grid"):
            raise InputError(f"placement must be 'free' or 'grid', but was {self.placement!r}.")
        if not isinstance(self.square, (bool, np.bool_)):
            raise InputError(f"square must be True or False, but was {self.square!r}.")
        for name, value in (("image_shape", shape), ("n_blocks", numbers), ("block_px", sizes), ("seed", seed),
                            ("square", bool(self.square))):
            object.__setattr__(self, name, value)
        if shape[0] * shape[1] >= 2**32:
            raise GeometryError(f"image_shape must hold fewer than 2**32 pixels, but was {shape}.")
        if sizes[1] > min(shape):
            raise GeometryError(f"block_px must fit into the image of {shape[0]} x {shape[1]} px, but its largest "
                                f"value was {sizes[1]}.")
        # In the free placement every block covers a pixel of the lattice of its smallest size, so no more can fit.
        side = sizes[1] if self.placement == "grid" else sizes[0]
        if numbers[1] > _cells(shape, side):
            what = f"a grid of cells of {side} px" if self.placement == "grid" else f"blocks of {side} px or more"
            raise GeometryError(f"n_blocks must be at most {_cells(shape, side)}, all that an image of {shape[0]} x "
                                f"{shape[1]} px holds with {what}, but was {numbers[1]}; lower n_blocks or block_px.")

    @property
    def always_packs(self) -> bool:
        """Whether no draw can fail: every number of blocks fits at the largest size, eq. (B2)."""
        return self.n_blocks[1] <= _cells(self.image_shape, self.block_px[1])

    def draw(self, index) -> Blocks:
        """Draw one sample, or a batch of samples.

        Parameters
        ----------
        index : int or sequence of int
            Which sample, from 0 on: an int gives a single set; a range, list or array gives a batch in its order.

        Returns
        -------
        Blocks
            Disjoint; the blocks of a sample stand in the order of their sizes' draw.

        Raises
        ------
        InputError
            An index that is negative or no integer.
        GeometryError
            A sample whose blocks could not be packed; possible only when `always_packs` is False.
        """
        from allpet_physics import _block_sampling as sampling

        chosen, batched = as_sample_indices(index)
        seed = np.uint64(self.seed)
        counts = sampling.draw_counts(seed, chosen, *self.n_blocks)
        offsets = np.zeros(counts.size + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        parameters = np.empty((offsets[-1], 4), np.int32)
        failed = sampling.draw_blocks(seed, chosen, offsets, *self.image_shape, *self.n_blocks, *self.block_px,
                                      self.square, self.placement == "grid", parameters)
        if failed >= 0:
            sizes = parameters[offsets[failed]:offsets[failed + 1], 2:].tolist()
            shown = ", ".join(f"{h} x {w}" for h, w in sizes[:8]) + (", ..." if len(sizes) > 8 else "")
            raise GeometryError(f"the blocks of every sample must fit into the image of {self.image_shape[0]} x "
                                f"{self.image_shape[1]} px, but the {len(sizes)} of sample {int(chosen[failed])} (seed "
                                f"{self.seed}; {shown} px) could not be packed; lower n_blocks or block_px until "
                                "always_packs is True.")
        return Blocks._trusted(self.image_shape, parameters, offsets, True, batched)

    def to_dict(self) -> dict:
        """Return the settings as plain Python types, ready for JSON, with the generator's name."""
        fields = {name: list(value) if isinstance(value, tuple) else value
                  for name, value in dataclasses.asdict(self).items()}
        return {**fields, "generator": _GENERATOR}

    @classmethod
    def from_dict(cls, fields: dict) -> "DynamicMultiMask":
        """Return the sampler that `to_dict` described, validated again."""
        fields = dict(fields)
        generator = fields.pop("generator", _GENERATOR)
        if generator != _GENERATOR:
            raise InputError(f"generator must be {_GENERATOR!r}, but was {generator!r}; draw with the version that "
                             "wrote it.")
        return cls(**_known_fields(cls, fields))


#: Names the generator and the order in which its words are used; it changes when the same (seed, i) would draw anew.
_GENERATOR = "philox4x32-10/1"


def _cells(shape: tuple[int, int], side: int) -> int:
    return (shape[0] // side) * (shape[1] // side)


def _known_fields(cls, fields: dict) -> dict:
    known = {f.name for f in dataclasses.fields(cls)}
    if set(fields) != known:
        raise InputError(f"fields must be {', '.join(sorted(known))}, but were {', '.join(sorted(fields))}.")
    return fields
