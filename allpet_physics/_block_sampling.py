r"""The compiled draw of random blocks: a counter-based generator and two placements. Inputs are trusted.

Generator
    Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", SC'11, section 3.3), with the seed
    as its key and the counter ``(block of words, 0, low half of the sample's index, high half)``. Sample i reads its
    own words 0, 1, 2, ... and no others, so it depends on (seed, i) alone; all arithmetic is on integers, so it is the
    same on every platform. A whole number below n comes from one word by Lemire's multiplication with rejection (2019,
    ACM TOMACS 29:3), which has no bias.

Order of the words of a sample
    The number of blocks; then the height (and, unless blocks are square, the width) of each; then the places.
"""

import numpy as np

from allpet_physics._compiled import compiled

_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ONE = np.uint64(1)
_RANGE = np.uint64(1 << 32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
#: Slots of a stream's state after its four words: words used, blocks of words made, index (2), seed (2).
_USED, _MADE, _INDEX, _SEED, _STATE = 4, 5, 6, 8, 10

#: Draws of a place that are tried before the free places are listed; both give the same distribution.
_TRIES = 16
#: Blocks that are placed at most, over all fresh starts of one sample, before it is packed systematically.
_PLACEMENTS = 256
#: Places that the search for a packing tries at most (some ms), and rounds of sliding after a packing.
_SEARCH_STEPS, _SWEEPS = 200_000, 8


@compiled(nogil=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Return the four words of a counter of four words and a key of two; all are uint64 below 2**32."""
    for _ in range(10):
        first, second = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (second >> _HALF) ^ c1 ^ k0, second & _WORD, (first >> _HALF) ^ c3 ^ k1, first & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


@compiled(nogil=True)
def _open_stream(state, seed, index):
    state[_USED], state[_MADE] = 4, 0
    state[_INDEX], state[_INDEX + 1] = index & _WORD, index >> _HALF
    state[_SEED], state[_SEED + 1] = seed & _WORD, seed >> _HALF


@compiled(nogil=True)
def below(state, n):
    """Return a uniform whole number in [0, n), for 1 <= n < 2**32."""
    bound = np.uint64(n)
    while True:
        if state[_USED] == 4:
            state[0], state[1], state[2], state[3] = philox(state[_MADE], np.uint64(0), state[_INDEX],
                                                            state[_INDEX + 1], state[_SEED], state[_SEED + 1])
            state[_USED] = 0
            state[_MADE] += _ONE
        product = state[np.int64(state[_USED])] * bound
        state[_USED] += _ONE
        low = product & _WORD
        if low >= bound or low >= (_RANGE - bound) % bound:
            return np.int64(product >> _HALF)


@compiled(nogil=True)
def draw_counts(seed, indices, n_min, n_max):
    """Return the number of blocks of each sample, int64."""
    state, counts = np.empty(_STATE, np.uint64), np.empty(indices.size, np.int64)
    for i in range(indices.size):
        _open_stream(state, seed, indices[i])
        counts[i] = n_min + below(state, n_max - n_min + 1)
    return counts


@compiled(nogil=True)
def draw_blocks(seed, indices, offsets, rows, cols, n_min, n_max, px_min, px_max, square, grid, out):
    """Fill `out` (row, col, height, width) for each sample; return -1, or the position of one that was not packed."""
    state, order, scratch = np.empty(_STATE, np.uint64), np.empty(n_max, np.int64), np.empty((2, n_max), np.int64)
    for i in range(indices.size):
        _open_stream(state, seed, indices[i])
        below(state, n_max - n_min + 1)
        blocks = out[offsets[i]:offsets[i + 1]]
        for b in range(blocks.shape[0]):
            blocks[b, 2] = px_min + below(state, px_max - px_min + 1)
            blocks[b, 3] = blocks[b, 2] if square else px_min + below(state, px_max - px_min + 1)
        if grid:
            _place_in_cells(blocks, rows, cols, rows // px_max, cols // px_max, order, state)
        elif not _place_freely(blocks, rows, cols, order, scratch, state):
            return i
    return -1


@compiled(nogil=True)
def _place_in_cells(blocks, rows, cols, n_down, n_across, chosen, state):
    """Put each block anywhere in a cell of its own; cells without replacement by Floyd's algorithm (CACM 30:754)."""
    n_cells, k = n_down * n_across, blocks.shape[0]
    for b in range(k):
        last = n_cells - k + b
        cell = below(state, last + 1)
        for a in range(b):
            if chosen[a] == cell:
                cell = last
                break
        chosen[b] = cell
        down, across = cell // n_across, cell % n_across
        top, bottom = down * rows // n_down, (down + 1) * rows // n_down
        left, right = across * cols // n_across, (across + 1) * cols // n_across
        blocks[b, 0] = top + below(state, bottom - top - blocks[b, 2] + 1)
        blocks[b, 1] = left + below(state, right - left - blocks[b, 3] + 1)


@compiled(nogil=True)
def _place_freely(blocks, rows, cols, order, scratch, state):
    """Place block after block, the largest first, each uniformly over the places that the former leave free."""
    k, area = blocks.shape[0], 0
    for b in range(k):
        area += np.int64(blocks[b, 2]) * blocks[b, 3]
        n = b
        while n > 0 and _area(blocks, order[n - 1]) < _area(blocks, b):
            order[n] = order[n - 1]
            n -= 1
        order[n] = b
    if area > rows * cols:
        return False
    for _ in range(1 + _PLACEMENTS // k):
        n = 0
        while n < k and _place_one(blocks, order, n, rows, cols, scratch[0], state):
            n += 1
        if n == k:
            return True
    if not (_pack_on_shelves(blocks, rows, cols, order, scratch)
            or _pack_by_search(blocks, rows, cols, scratch[0], scratch[1])):
        return False
    _spread(blocks, (rows, cols), state)
    return True


@compiled(nogil=True)
def _area(blocks, b):
    return np.int64(blocks[b, 2]) * blocks[b, 3]


@compiled(nogil=True)
def _hits(blocks, placed, n, row, col, height, width):
    """Tell whether a block would overlap one of the first n placed ones."""
    for m in range(n):
        o = placed[m]
        if (row < blocks[o, 0] + blocks[o, 2] and blocks[o, 0] < row + height
                and col < blocks[o, 1] + blocks[o, 3] and blocks[o, 1] < col + width):
            return True
    return False


@compiled(nogil=True)
def _place_one(blocks, order, n, rows, cols, by_column, state):
    """Place block `order[n]` beside the n blocks before it, or tell that no place is free."""
    b = order[n]
    height, width = blocks[b, 2], blocks[b, 3]
    n_rows, n_cols = rows - height + 1, cols - width + 1
    for _ in range(_TRIES):
        row, col = below(state, n_rows), below(state, n_cols)
        if not _hits(blocks, order, n, row, col, height, width):
            blocks[b, 0], blocks[b, 1] = row, col
            return True
    for m in range(n):
        o, a = order[m], m
        while a > 0 and blocks[by_column[a - 1], 1] > blocks[o, 1]:
            by_column[a] = by_column[a - 1]
            a -= 1
        by_column[a] = o
    total, row, col = _free_place(blocks, by_column[:n], height, width, n_rows, n_cols, -1)
    if total == 0:
        return False
    total, row, col = _free_place(blocks, by_column[:n], height, width, n_rows, n_cols, below(state, total))
    blocks[b, 0], blocks[b, 1] = row, col
    return True


@compiled(nogil=True)
def _free_place(blocks, by_column, height, width, n_rows, n_cols, wanted):
    """Return the number of free places (up to the wanted one) and the wanted one's row and column.

    A block o forbids the columns (o.col - width, o.col + o.width) on the rows (o.row - height, o.row + o.height).
    """
    total = 0
    for row in range(n_rows):
        col = 0
        for o in by_column:
            if blocks[o, 0] - height < row < blocks[o, 0] + blocks[o, 2]:
                gap = min(blocks[o, 1] - width + 1, n_cols) - col
                if gap > 0:
                    if total <= wanted < total + gap:
                        return total, row, col + wanted - total
                    total += gap
                col = max(col, blocks[o, 1] + blocks[o, 3])
        gap = n_cols - col
        if gap > 0:
            if total <= wanted < total + gap:
                return total, row, col + wanted - total
            total += gap
    return total, -1, -1


@compiled(nogil=True)
def _pack_on_shelves(blocks, rows, cols, order, used):
    """Pack rows of blocks, first fit by decreasing height; return whether it succeeded.

    With a = rows // tallest and b = cols // widest, a shelf with fewer than b blocks always takes another, so up to
    a·b blocks always fit.
    """
    k = blocks.shape[0]
    for b in range(k):
        n = b
        while n > 0 and blocks[order[n - 1], 2] < blocks[b, 2]:
            order[n] = order[n - 1]
            n -= 1
        order[n] = b
    n_shelves, bottom = 0, np.int64(0)
    for n in range(k):
        b, shelf = order[n], 0
        while shelf < n_shelves and used[0, shelf] + blocks[b, 3] > cols:
            shelf += 1
        if shelf == n_shelves:
            used[0, shelf], used[1, shelf] = 0, bottom
            bottom += blocks[b, 2]
            n_shelves += 1
        blocks[b, 0], blocks[b, 1] = used[1, shelf], used[0, shelf]
        used[0, shelf] += blocks[b, 3]
    return bottom <= rows


@compiled(nogil=True)
def _pack_by_search(blocks, rows, cols, placed, choice):
    """Search the packings in which no block can move up or left; return whether one was found.

    Each block of such a packing lies against the image's edge or another block, both above and to its left, so that it
    is reached by adding block after block at a bottom edge and a right edge of those before it. The search is complete
    unless it ends after `_SEARCH_STEPS`.
    """
    k, depth, steps = blocks.shape[0], 0, 0
    free = np.ones(k, np.bool_)
    choice[0] = 0
    while depth < k:
        side = depth + 1
        found = False
        while choice[depth] < k * side * side and not found:
            b, edge = choice[depth] // (side * side), choice[depth] % (side * side)
            choice[depth] += 1
            if not free[b]:
                continue
            steps += 1
            if steps > _SEARCH_STEPS:
                return False
            below_of, right_of = edge // side - 1, edge % side - 1
            row = 0 if below_of < 0 else blocks[placed[below_of], 0] + blocks[placed[below_of], 2]
            col = 0 if right_of < 0 else blocks[placed[right_of], 1] + blocks[placed[right_of], 3]
            found = (row + blocks[b, 2] <= rows and col + blocks[b, 3] <= cols
                     and not _hits(blocks, placed, depth, row, col, blocks[b, 2], blocks[b, 3]))
            if found:
                blocks[b, 0], blocks[b, 1], placed[depth], free[b] = row, col, b, False
        if found:
            depth += 1
            if depth < k:
                choice[depth] = 0
        elif depth == 0:
            return False
        else:
            depth -= 1
            free[placed[depth]] = True
    return True


@compiled(nogil=True)
def _spread(blocks, extents, state):
    """Mirror a packing at random, then slide each block to a uniform place between its neighbours, several times.

    A slide keeps the uniform distribution over all disjoint placements (Gibbs sampling).
    """
    for axis in range(2):
        if below(state, 2) == 1:
            for b in range(blocks.shape[0]):
                blocks[b, axis] = extents[axis] - blocks[b, axis] - blocks[b, axis + 2]
    for turn in range(2 * _SWEEPS):
        axis = turn % 2
        across = 1 - axis
        for b in range(blocks.shape[0]):
            first, last = np.int64(0), np.int64(extents[axis] - blocks[b, axis + 2])
            for o in range(blocks.shape[0]):
                if (o != b and blocks[o, across] < blocks[b, across] + blocks[b, across + 2]
                        and blocks[b, across] < blocks[o, across] + blocks[o, across + 2]):
                    if blocks[o, axis] < blocks[b, axis]:
                        first = max(first, blocks[o, axis] + blocks[o, axis + 2])
                    else:
                        last = min(last, blocks[o, axis] - blocks[b, axis + 2])
            blocks[b, axis] = first + below(state, last - first + 1)
