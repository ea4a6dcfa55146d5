"""Sets of rectangular blocks of pixels, held as parameters: what masks are before they are rendered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from allpet_physics._block_checks import (
    as_indices,
    as_offsets,
    as_whole_numbers,
    check_image_shape,
    overlapping_pairs,
)
from allpet_physics.errors import GeometryError, InputError


@dataclass(frozen=True, eq=False)
class Blocks:
    """One set of blocks, or a batch of sets, as four whole numbers per block.

    A block covers the pixels ``row <= r < row + height`` and ``col <= c < col + width``; the mask of a set is the union
    of its blocks. Sets of a batch may differ in their number of blocks, so the blocks of all sets stand one after the
    other in `parameters`, and set b owns the blocks ``offsets[b]:offsets[b + 1]``.

    A single set (``offsets=None``) has no batch axis: its mask has shape ``(rows, columns)``, the mask of a batch of B
    sets ``(B, rows, columns)``. ``len`` counts sets and is 1 for a single set. ``blocks[i]`` is set i as a single set;
    a slice, or an array of indices or booleans, selects a batch.

    Parameters
    ----------
    image_shape : (int, int)
        Rows and columns of the image.
    parameters : array_like
        ``(blocks, 4)``: row and column of the top-left pixel, height and width, in px, whole numbers.
    offsets : array_like, optional
        ``(B + 1,)``: where each set starts, from 0 to the number of blocks; None for a single set.
    disjoint : bool
        Pass True to promise that no two blocks of one set overlap; the promise is checked. Afterwards the attribute
        tells whether it is so, promised or not.
    batched : bool, optional
        Whether there is a batch axis; by default, whether `offsets` were given.

    Attributes
    ----------
    parameters : ndarray of int32, ``(blocks, 4)``, C-contiguous, read-only
    offsets : ndarray of int64, ``(B + 1,)``, read-only; ``[0, blocks]`` for a single set

    Raises
    ------
    InputError
        Parameters that are no whole numbers or not four per block; offsets that do not rise from 0 to the number of
        blocks; blocks without height or width.
    GeometryError
        A block that leaves the image; an overlap where disjoint blocks were promised.
    """

    image_shape: tuple[int, int]
    parameters: np.ndarray
    offsets: np.ndarray | None = None
    disjoint: bool = False
    batched: bool | None = None

    def __post_init__(self):
        shape = check_image_shape(self.image_shape)
        parameters = as_whole_numbers("parameters", self.parameters)
        if parameters.size == 0:
            parameters = parameters.reshape(-1, 4)
        if parameters.ndim != 2 or parameters.shape[1] != 4:
            raise InputError("parameters must have shape (blocks, 4) for row, col, height and width, but its shape was "
                             f"{parameters.shape}.")
        batched = self.offsets is not None if self.batched is None else bool(self.batched)
        offsets = as_offsets(self.offsets, len(parameters))
        if not batched and len(offsets) != 2:
            raise InputError(f"batched must be True for a batch of sets, but was False with {len(offsets) - 1} sets.")
        promised = bool(self.disjoint)
        _fill(self, shape, parameters, offsets, False, batched)
        self._check_inside()
        parameters = np.array(parameters, np.int32, order="C")  # a copy, so that the caller's array stays writable
        _fill(self, shape, parameters, offsets, not len(overlapping_pairs(parameters, offsets)), batched)
        if promised:
            self.check_disjoint()

    @classmethod
    def _trusted(cls, image_shape, parameters, offsets, disjoint, batched) -> "Blocks":
        """Return blocks whose fields are known to be right: int32 and int64 arrays that nobody else writes to."""
        blocks = object.__new__(cls)
        _fill(blocks, image_shape, parameters, offsets, disjoint, batched)
        return blocks

    @classmethod
    def single(cls, image_shape, row, col, height, width, *, disjoint: bool = False) -> "Blocks":
        """Return one set from the rows, columns, heights and widths of its blocks (numbers, or arrays that broadcast).

        ``Blocks.single((512, 512), 224, 224, 64, 64)`` is one block in the middle of the image.
        """
        columns = [as_whole_numbers(name, value) for name, value in
                   (("row", row), ("col", col), ("height", height), ("width", width))]
        try:
            columns = np.broadcast_arrays(*columns)
        except ValueError:
            raise InputError("row, col, height and width must have one length, but their shapes were "
                             f"{', '.join(str(c.shape) for c in columns)}.") from None
        return cls(image_shape, np.stack([c.ravel() for c in columns], axis=1), disjoint=disjoint)

    @classmethod
    def concatenate(cls, items: Sequence["Blocks"]) -> "Blocks":
        """Return the batch of all sets of several `Blocks` of one image shape, in order."""
        items = list(items)
        if not items:
            raise InputError("items must hold at least one Blocks, but was empty.")
        shape = items[0].image_shape
        for n, item in enumerate(items):
            if item.image_shape != shape:
                raise GeometryError(f"all items must have one image_shape, but item {n} has {item.image_shape} and "
                                    f"item 0 has {shape}.")
        counts = np.concatenate([item.counts for item in items])
        return cls._trusted(shape, np.concatenate([item.parameters for item in items]), _offsets_of(counts),
                            all(item.disjoint for item in items), True)

    @property
    def row(self) -> np.ndarray:
        """Row of each block's top-left pixel, shape (blocks,), over all sets."""
        return self.parameters[:, 0]

    @property
    def col(self) -> np.ndarray:
        """Column of each block's top-left pixel, shape (blocks,), over all sets."""
        return self.parameters[:, 1]

    @property
    def height(self) -> np.ndarray:
        """Rows of each block, shape (blocks,), over all sets."""
        return self.parameters[:, 2]

    @property
    def width(self) -> np.ndarray:
        """Columns of each block, shape (blocks,), over all sets."""
        return self.parameters[:, 3]

    @property
    def counts(self) -> np.ndarray:
        """Number of blocks of each set, int64, shape (B,); (1,) for a single set."""
        return np.diff(self.offsets)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes of the masks: () for a single set, (B,) for a batch."""
        return (len(self),) if self.batched else ()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index) -> "Blocks":
        n = len(self)
        if isinstance(index, slice) and index.indices(n)[2] == 1:
            start, stop, _ = index.indices(n)
            offsets = self.offsets[start:max(start, stop) + 1]
            return self._trusted(self.image_shape, self.parameters[offsets[0]:offsets[-1]], offsets - offsets[0],
                                 self.disjoint, True)
        chosen = as_indices(index, n, "set")
        if chosen.ndim == 0:
            start, stop = self.offsets[chosen], self.offsets[chosen + 1]
            return self._trusted(self.image_shape, self.parameters[start:stop], np.array([0, stop - start]),
                                 self.disjoint, False)
        counts = self.counts[chosen]
        offsets = _offsets_of(counts)
        where = np.repeat(self.offsets[chosen] - offsets[:-1], counts) + np.arange(offsets[-1])
        return self._trusted(self.image_shape, self.parameters[where], offsets, self.disjoint, True)

    def __iter__(self) -> Iterator["Blocks"]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other) -> bool:
        if not isinstance(other, Blocks):
            return NotImplemented
        return (self.image_shape == other.image_shape and self.batched == other.batched
                and np.array_equal(self.offsets, other.offsets) and np.array_equal(self.parameters, other.parameters))

    __hash__ = None

    def __repr__(self) -> str:
        if len(self.parameters) == 1 and not self.batched:
            row, col, height, width = self.parameters[0]
            return f"Blocks({self.image_shape}, row={row}, col={col}, height={height}, width={width})"
        sets = f"{len(self)} sets, " if self.batched else ""
        return f"Blocks({self.image_shape}, {sets}{len(self.parameters)} blocks)"

    def to_mask(self) -> np.ndarray:
        """Return the masks as booleans, shape ``(*batch_shape, rows, columns)``: True inside the union of the blocks.

        A mask takes rows x columns bytes; project the blocks themselves rather than many masks.
        """
        mask = np.zeros((len(self), *self.image_shape), bool)
        owner = np.repeat(np.arange(len(self)), self.counts)
        for b, (row, col, height, width) in zip(owner.tolist(), self.parameters.tolist(), strict=True):
            mask[b, row:row + height, col:col + width] = True
        return mask.reshape(*self.batch_shape, *self.image_shape)

    def check_disjoint(self) -> None:
        """Raise `GeometryError` unless no two blocks of one set overlap."""
        if self.disjoint:
            return
        pairs = overlapping_pairs(self.parameters, self.offsets)
        first, second = pairs[np.argmin(pairs[:, 0])]
        raise GeometryError(f"blocks of one set must not overlap, but {self._name(first)} "
                            f"{tuple(self.parameters[first].tolist())} and {self._name(second)} "
                            f"{tuple(self.parameters[second].tolist())} (row, col, height, width) do; move one, or do "
                            "not promise disjoint=True.")

    def to_dict(self) -> dict:
        """Return the fields as plain Python types, ready for JSON."""
        return {"image_shape": list(self.image_shape), "parameters": self.parameters.tolist(),
                "offsets": self.offsets.tolist() if self.batched else None, "disjoint": bool(self.disjoint)}

    @classmethod
    def from_dict(cls, fields: dict) -> "Blocks":
        """Return the blocks that `to_dict` described, validated again."""
        missing = {"image_shape", "parameters"} - set(fields)
        if missing:
            raise InputError(f"fields must hold image_shape and parameters, but {' and '.join(sorted(missing))} "
                             "was missing.")
        return cls(fields["image_shape"], fields["parameters"], fields.get("offsets"), fields.get("disjoint", False))

    def _name(self, block: int) -> str:
        owner = int(np.searchsorted(self.offsets, block, side="right")) - 1
        return f"block {block - int(self.offsets[owner])}" + (f" of set {owner}" if self.batched else "")

    def _check_inside(self) -> None:
        row, col, height, width = self.parameters.T
        rows, cols = self.image_shape
        empty = (height < 1) | (width < 1)
        if empty.any():
            n = int(np.argmax(empty))
            raise InputError(f"every block must be at least 1 x 1 px, but {self._name(n)} was {height[n]} x "
                             f"{width[n]} px (height x width).")
        outside = (row < 0) | (col < 0) | (row > rows - height) | (col > cols - width)
        if outside.any():
            n = int(np.argmax(outside))
            raise GeometryError(f"every block must lie inside the image of {rows} x {cols} px, but {self._name(n)} "
                                f"covers rows {row[n]} to {row[n] + height[n] - 1} and columns {col[n]} to "
                                f"{col[n] + width[n] - 1}; move or crop it.")


def _fill(blocks, image_shape, parameters, offsets, disjoint, batched):
    for array in (parameters, offsets):
        array.flags.writeable = False
    for name, value in (("image_shape", image_shape), ("parameters", parameters), ("offsets", offsets),
                        ("disjoint", disjoint), ("batched", batched)):
        object.__setattr__(blocks, name, value)


def _offsets_of(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
