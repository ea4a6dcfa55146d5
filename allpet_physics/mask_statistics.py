"""What a batch of blocks looks like: coverage, number, size and where, as numbers and as a plot."""

from dataclasses import dataclass

import numpy as np

from allpet_physics._block_checks import overlapping_pairs
from allpet_physics.blocks import Blocks
from allpet_physics.errors import InputError

#: Cumulative fractions at which the quantiles stand.
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

_COLOURS = ("#1f5fa8", "#e07b00")


@dataclass(frozen=True, eq=False)
class Distribution:
    """Mean, standard deviation, quantiles and histogram of one quantity.

    Attributes
    ----------
    mean, standard_deviation : float
        The latter over all values (divided by their number).
    quantiles : dict of float to float
        At the cumulative fractions `QUANTILES`.
    values, counts : ndarray
        How often each whole number between the extremes occurs; for fractions, the centres and counts of 50 equal
        intervals between the extremes.
    """

    mean: float
    standard_deviation: float
    quantiles: dict[float, float]
    values: np.ndarray
    counts: np.ndarray

    def to_dict(self) -> dict:
        """Return the fields as plain Python types, ready for JSON."""
        return {"mean": self.mean, "standard_deviation": self.standard_deviation,
                "quantiles": {f"{q:g}": value for q, value in self.quantiles.items()},
                "values": self.values.tolist(), "counts": self.counts.tolist()}


@dataclass(frozen=True, eq=False)
class MaskStatistics:
    """Statistics of the masks of a batch of block sets.

    Attributes
    ----------
    image_shape : (int, int)
    n_sets, n_blocks : int
        Sets, and blocks of all sets.
    blocks_per_set : Distribution
        Number of blocks of a set.
    height, width : Distribution
        Of a block in px, over all blocks.
    coverage : Distribution
        Fraction of the image's pixels inside the union of a set's blocks, over the sets.
    coverage_map : ndarray of float64, ``[row, col]``
        Fraction of the sets whose mask covers each pixel; its mean is ``coverage.mean``.
    """

    image_shape: tuple[int, int]
    n_sets: int
    n_blocks: int
    blocks_per_set: Distribution
    height: Distribution
    width: Distribution
    coverage: Distribution
    coverage_map: np.ndarray

    def to_dict(self) -> dict:
        """Return everything but the map as plain Python types, ready for JSON."""
        return {"image_shape": list(self.image_shape), "n_sets": self.n_sets, "n_blocks": self.n_blocks,
                **{name: getattr(self, name).to_dict() for name in ("blocks_per_set", "height", "width", "coverage")}}


def mask_statistics(blocks: Blocks) -> MaskStatistics:
    """Return the statistics of a batch of block sets.

    Cost goes with the number of blocks, not with their area, except for sets whose blocks overlap: these are rendered,
    so that each pixel counts once.

    Parameters
    ----------
    blocks : Blocks
        For instance ``DynamicMultiMask((512, 512)).draw(range(10_000))`` or ``block_catalogue((512, 512), 64)[:]``.

    Raises
    ------
    InputError
        No `Blocks`, or no block in any set.
    """
    if not isinstance(blocks, Blocks):
        raise InputError(f"blocks must be Blocks, but was {type(blocks).__name__}; draw or index some first.")
    if not len(blocks.parameters):
        raise InputError("blocks must hold at least one block, but held none.")
    owner = np.repeat(np.arange(len(blocks)), blocks.counts)
    area = blocks.height.astype(np.int64) * blocks.width
    covered = np.bincount(owner, weights=area, minlength=len(blocks)).astype(np.int64)
    alone = np.ones(len(blocks), bool)
    if not blocks.disjoint:
        alone[owner[overlapping_pairs(blocks.parameters, blocks.offsets)[:, 0]]] = False
    total = _covering_counts(blocks.parameters[alone[owner]], blocks.image_shape)
    for i in np.flatnonzero(~alone):
        mask = blocks[int(i)].to_mask()
        covered[i] = np.count_nonzero(mask)
        total += mask
    return MaskStatistics(
        image_shape=blocks.image_shape, n_sets=len(blocks), n_blocks=len(blocks.parameters),
        blocks_per_set=_describe_whole(blocks.counts), height=_describe_whole(blocks.height),
        width=_describe_whole(blocks.width), coverage=_describe_fractions(covered / total.size),
        coverage_map=total / len(blocks))


def plot_mask_statistics(statistics: MaskStatistics):
    """Return a matplotlib ``Figure`` with the coverage map and the histograms of coverage, number and size.

    Save it with ``figure.savefig("masks.png")``; it belongs to no window and no pyplot state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{statistics.n_sets:,} masks of {statistics.image_shape[0]} × {statistics.image_shape[1]} px, "
                    f"{statistics.n_blocks:,} blocks", fontsize=13, fontweight="bold")
    (map_axes, coverage_axes), (number_axes, size_axes) = figure.subplots(2, 2)

    shown = map_axes.imshow(100 * statistics.coverage_map, vmin=0, cmap="viridis", interpolation="nearest")
    map_axes.set(title="how often each pixel is covered", xlabel="column (px)", ylabel="row (px)")
    figure.colorbar(shown, ax=map_axes, label="masks covering the pixel (%)")

    coverage = statistics.coverage
    step = coverage.values[1] - coverage.values[0] if len(coverage.values) > 1 else coverage.mean / 25
    coverage_axes.bar(100 * coverage.values, 100 * coverage.counts / statistics.n_sets, 100 * step, color=_COLOURS[0])
    coverage_axes.axvline(100 * coverage.mean, color="0.2", linestyle="--", label=f"mean {100 * coverage.mean:.2f} %")
    coverage_axes.set(title="coverage", xlabel="pixels inside the mask (%)", ylabel="masks (%)",
                      xlim=(0, 100 * min(1.0, 1.1 * float(coverage.values[-1]) + step)))
    coverage_axes.legend(framealpha=0.95)

    number = statistics.blocks_per_set
    number_axes.bar(number.values, 100 * number.counts / statistics.n_sets, 0.8, color=_COLOURS[0])
    number_axes.set(title=f"number of blocks, mean {number.mean:.2f}", xlabel="blocks in a mask", ylabel="masks (%)",
                    xlim=(number.values[0] - 1.5, number.values[-1] + 1.5))
    number_axes.xaxis.get_major_locator().set_params(integer=True)

    for size, name, colour, filled in ((statistics.height, "height", _COLOURS[0], True),
                                       (statistics.width, "width", _COLOURS[1], False)):
        edges = np.append(size.values - 0.5, size.values[-1] + 0.5)
        size_axes.stairs(100 * size.counts / statistics.n_blocks, edges, color=colour, fill=filled,
                         alpha=0.45 if filled else None, linewidth=1.5, label=f"{name}, mean {size.mean:.1f} px")
    low = min(statistics.height.values[0], statistics.width.values[0])
    high = max(statistics.height.values[-1], statistics.width.values[-1])
    size_axes.set(title="size of blocks", xlabel="px", ylabel="blocks (%)", xlim=(low - 2.5, high + 2.5))
    size_axes.set_ylim(bottom=0)
    size_axes.xaxis.get_major_locator().set_params(integer=True)
    size_axes.legend(loc="lower right", framealpha=0.95)
    return figure


def _covering_counts(parameters: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return how many blocks cover each pixel: the running sums of ±1 at the blocks' four corners."""
    top, left, height, width = parameters.T.astype(np.int64)
    padded = (shape[0] + 1, shape[1] + 1)
    corners = np.zeros(padded[0] * padded[1], np.int64)
    for row, col, sign in ((top, left, 1), (top + height, left, -1), (top, left + width, -1),
                           (top + height, left + width, 1)):
        corners += sign * np.bincount(row * padded[1] + col, minlength=corners.size)
    return corners.reshape(padded).cumsum(axis=0).cumsum(axis=1)[:-1, :-1]


def _describe_whole(numbers: np.ndarray) -> Distribution:
    low = int(numbers.min())
    counts = np.bincount(numbers.astype(np.int64) - low)
    return _describe(numbers, np.arange(low, low + len(counts)), counts)


def _describe_fractions(fractions: np.ndarray) -> Distribution:
    low, high = float(fractions.min()), float(fractions.max())
    if high - low <= 1e-12:
        return _describe(fractions, np.array([low]), np.array([fractions.size]))
    counts, edges = np.histogram(fractions, bins=50, range=(low, high))
    return _describe(fractions, (edges[1:] + edges[:-1]) / 2, counts)


def _describe(numbers, values, counts) -> Distribution:
    quantiles = np.quantile(numbers, QUANTILES)
    return Distribution(float(numbers.mean()), float(numbers.std()),
                        dict(zip(QUANTILES, quantiles.tolist(), strict=True)), values, counts)
