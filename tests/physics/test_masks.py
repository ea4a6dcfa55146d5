import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from allpet_physics.errors import GeometryError, InputError
from allpet_physics.mask_statistics import mask_statistics, plot_mask_statistics
from allpet_physics.masks import BlockCatalogue, Blocks, DynamicMultiMask, block_catalogue

#: False-alarm rate of each statistical test; seeds are fixed, so a test passes always or never.
RATE = 1e-4
SHAPE = (24, 31)


@st.composite
def block_sets(draw, shape=SHAPE, max_sets=5, max_blocks=5):
    """A batch of sets of any blocks inside the image."""
    sets = []
    for _ in range(draw(st.integers(1, max_sets))):
        rows = []
        for _ in range(draw(st.integers(0, max_blocks))):
            row, col = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
            rows.append((row, col, draw(st.integers(1, shape[0] - row)), draw(st.integers(1, shape[1] - col))))
        sets.append(rows)
    offsets = np.cumsum([0] + [len(rows) for rows in sets])
    return Blocks(shape, np.array([b for rows in sets for b in rows]).reshape(-1, 4), offsets), sets


def pixels_covered(shape, block):
    row, col, height, width = block
    r, c = np.ogrid[:shape[0], :shape[1]]
    return (r >= row) & (r < row + height) & (c >= col) & (c < col + width)


def uniform_p(values, low, high):
    return stats.chisquare(np.bincount(np.asarray(values) - low, minlength=high - low + 1)).pvalue


# Blocks ----------------------------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(block_sets())
def test_a_mask_is_the_union_of_its_blocks_and_disjoint_means_that_no_pixel_counts_twice(drawn):
    blocks, sets = drawn
    depth = np.zeros((len(sets), *SHAPE), int)
    for b, rows in enumerate(sets):
        for block in rows:
            depth[b] += pixels_covered(SHAPE, block)
    np.testing.assert_array_equal(blocks.to_mask(), depth > 0)
    assert blocks.disjoint == (depth.max(initial=0) <= 1)
    if blocks.disjoint:
        blocks.check_disjoint()
        Blocks(SHAPE, blocks.parameters, blocks.offsets, disjoint=True)
    else:
        guilty = int(np.flatnonzero(depth.max(axis=(1, 2)) > 1)[0])
        with pytest.raises(GeometryError, match=rf"block \d+ of set {guilty} .* and block \d+ of set {guilty} "):
            blocks.check_disjoint()
        with pytest.raises(GeometryError, match="do not promise"):
            Blocks(SHAPE, blocks.parameters, blocks.offsets, disjoint=True)


@settings(max_examples=40, deadline=None)
@given(block_sets(), st.data())
def test_indexing_takes_the_sets_that_a_list_would(drawn, data):
    blocks, sets = drawn
    n = len(sets)
    assert len(blocks) == n
    assert blocks.batch_shape == (n,)
    assert [b.parameters.tolist() for b in blocks] == [[list(block) for block in rows] for rows in sets]
    assert all(b.batch_shape == () and len(b) == 1 and b.to_mask().shape == SHAPE for b in blocks)
    start, stop, step = (data.draw(st.integers(-n - 1, n + 1)) for _ in range(3))
    part = slice(start, stop, step or None)
    picks = data.draw(st.lists(st.integers(-n, n - 1), max_size=6))
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    for index, wanted in ((part, sets[part]), (picks, [sets[i] for i in picks]),
                          (keep, [rows for rows, k in zip(sets, keep, strict=True) if k])):
        chosen = blocks[index]
        assert chosen.batched
        assert chosen.parameters.flags.c_contiguous
        assert chosen.offsets[0] == 0
        assert [b.parameters.tolist() for b in chosen] == [[list(block) for block in rows] for rows in wanted]
    assert Blocks.concatenate([blocks[:1], blocks[1:]]) == blocks
    assert Blocks.concatenate(list(blocks)) == blocks
    for item in (blocks, blocks[0]):
        again = Blocks.from_dict(json.loads(json.dumps(item.to_dict())))
        assert again == item
        assert again.disjoint == item.disjoint or item is not blocks


def test_a_single_set_has_no_batch_axis():
    one = Blocks.single((8, 9), 2, 3, 4, 5)
    assert (one.row.tolist(), one.col.tolist(), one.height.tolist(), one.width.tolist()) == ([2], [3], [4], [5])
    assert one.to_mask().shape == (8, 9)
    assert one.to_mask().sum() == 20
    assert one[0] == one
    assert one[-1] == one
    assert one[:].to_mask().shape == (1, 8, 9)
    assert "row=2, col=3, height=4, width=5" in repr(one)
    several = Blocks.single((8, 9), [0, 4], [0, 4], 2, [2, 3], disjoint=True)
    assert several.parameters.tolist() == [[0, 0, 2, 2], [4, 4, 2, 3]]
    assert "2 blocks" in repr(several)
    assert one != several
    assert one != "blocks"
    assert not Blocks((8, 9), []).to_mask().any()


def test_blocks_keep_a_read_only_copy_in_the_types_of_the_kernels():
    parameters = np.array([[1.0, 2.0, 3.0, 4.0]], order="F")
    blocks = Blocks((8, 9), parameters, [0, 1])
    parameters[0, 0] = 5
    assert blocks.row.tolist() == [1]
    assert (blocks.parameters.dtype, blocks.offsets.dtype) == (np.int32, np.int64)
    for array in (blocks.parameters, blocks.offsets, blocks[0].parameters, blocks[[0]].offsets):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_many_blocks_of_one_set_are_checked_against_each_other():
    row, col = np.divmod(np.arange(2500), 50)
    tiles = np.stack([4 * row, 4 * col, np.full(2500, 4), np.full(2500, 4)], axis=1)
    assert Blocks((200, 200), tiles, disjoint=True).disjoint
    tiles[1234, 3] = 5
    with pytest.raises(GeometryError, match=r"block 1234 \(96, 136, 4, 5\) and block 1235 "):
        Blocks((200, 200), tiles, disjoint=True)


@pytest.mark.parametrize(("parameters", "offsets", "error", "message"), [
    ([[0, 0, 0, 3]], None, InputError, r"block 0 was 0 x 3 px"),
    ([[0, 0, 2, 2], [0, 0, 2, -1]], [0, 1, 2], InputError, r"block 0 of set 1 was 2 x -1 px"),
    ([[0, 0, 2, 2], [5, 0, 4, 2]], None, GeometryError, r"image of 8 x 9 px, but block 1 covers rows 5 to 8 and"),
    ([[0, 8, 2, 2]], None, GeometryError, r"columns 8 to 9; move or crop"),
    ([[-1, 0, 2, 2]], None, GeometryError, r"covers rows -1 to 0"),
    ([[0.5, 0, 2, 2]], None, InputError, r"whole numbers of pixels, but 0.5 stands at index \(0, 0\)"),
    ([[np.nan, 0, 2, 2]], None, InputError, "but nan stands"),
    ([[np.inf, 0, 2, 2]], None, InputError, "but inf stands"),
    ([[2**40, 0, 2, 2]], None, InputError, "at most 2147483647"),
    ([0, 0, 2, 2], None, InputError, r"shape \(blocks, 4\) .* was \(4,\)"),
    ([[0, 0, 2, 2], [0, 0]], None, InputError, "rows of one length"),
    ([["a", "b", "c", "d"]], None, InputError, "its dtype was"),
    ([[0, 0, 2, 2]], [0, 2], InputError, r"rises from 0 to the number of blocks \(1\)"),
    ([[0, 0, 2, 2]], [1], InputError, "rises from 0"),
    ([[0, 0, 2, 2]], [], InputError, "rises from 0"),
    ([[0, 0, 2, 2]] * 2, [0, 2, 1, 2], InputError, "rises from 0"),
])
def test_blocks_refuse_what_no_block_can_be(parameters, offsets, error, message):
    with pytest.raises(error, match=message):
        Blocks((8, 9), parameters, offsets)


def test_other_misuse_of_blocks_is_named():
    one = Blocks.single((8, 9), 2, 3, 4, 5)
    for call, error, message in (
            (lambda: Blocks(8, []), GeometryError, "image_shape must be"),
            (lambda: Blocks((8, 2**31), []), GeometryError, "at most 2147483647"),
            (lambda: Blocks((8, 0), []), InputError, "image_shape must be an integer of at least 1"),
            (lambda: Blocks((8, 9), [], [0, 0, 0], batched=False), InputError, "2 sets"),
            (lambda: Blocks.single((8, 9), [0, 1], [0, 1, 2], 1, 1), InputError, "one length"),
            (lambda: Blocks.concatenate([]), InputError, "at least one"),
            (lambda: Blocks.concatenate([one, Blocks.single((8, 8), 0, 0, 1, 1)]), GeometryError, "item 1 has"),
            (lambda: Blocks.from_dict({"parameters": []}), InputError, "image_shape was missing"),
            (lambda: one[1], IndexError, "index 1 is out of range for 1 sets"),
            (lambda: one[[0, -2]], IndexError, "index -2"),
            (lambda: one[0.5], IndexError, "must be an integer"),
            (lambda: one[[True, False]], IndexError, "boolean index"),
            (lambda: Blocks.single((8, 9), [0, 1], 0, 3, 3, disjoint=True), GeometryError,
             r"block 0 \(0, 0, 3, 3\) and block 1 \(1, 0, 3, 3\)")):
        with pytest.raises(error, match=message):
            call()


# Catalogue -------------------------------------------------------------------------------------------------------
def test_the_catalogue_holds_every_placement_of_the_paper_once():
    catalogue = block_catalogue((512, 512), 64)
    assert len(catalogue) == 201_601
    every = catalogue[:]
    assert every.batch_shape == (201_601,)
    assert every.disjoint
    assert len(np.unique(every.parameters, axis=0)) == 201_601
    assert (every.row.min(), every.row.max(), every.col.min(), every.col.max()) == (0, 448, 0, 448)
    assert set(every.height) == set(every.width) == {64}
    block = catalogue[100_000]
    assert block.parameters.tolist() == [[222, 322, 64, 64]]
    assert block.batch_shape == ()


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.tuples(st.integers(1, 30), st.integers(1, 30)),
       st.tuples(st.integers(1, 9), st.integers(1, 9)), st.data())
def test_catalogues_list_the_shifts_that_fit(shape, block, stride, data):
    assume(block[0] <= shape[0] and block[1] <= shape[1])
    catalogue = block_catalogue(shape, block, stride)
    wanted = [[r, c, *block] for r in range(0, shape[0] - block[0] + 1, stride[0])
              for c in range(0, shape[1] - block[1] + 1, stride[1])]
    n = len(wanted)
    assert len(catalogue) == n
    assert catalogue[:].parameters.tolist() == wanted
    assert Blocks(shape, catalogue[:].parameters, catalogue[:].offsets, disjoint=True) == catalogue[:]
    i = data.draw(st.integers(-n, n - 1))
    assert catalogue[i].parameters.tolist() == [wanted[i]]
    assert catalogue.index_of(*wanted[i][:2]) == i % n
    picks = data.draw(st.lists(st.integers(-n, n - 1), max_size=5))
    assert catalogue[picks].parameters.tolist() == [wanted[i] for i in picks]
    assert catalogue[::-2].parameters.tolist() == wanted[::-2]
    np.testing.assert_array_equal(catalogue.index_of(catalogue[:].row, catalogue[:].col), np.arange(n))
    assert BlockCatalogue.from_dict(json.loads(json.dumps(catalogue.to_dict()))) == catalogue
    assert sum(1 for _ in catalogue) == n


def test_a_catalogue_costs_nothing_until_it_is_indexed():
    catalogue = block_catalogue((2_000_000, 2_000_000), 64)
    assert len(catalogue) == 1_999_937**2
    assert catalogue[-1].parameters.tolist() == [[1_999_936, 1_999_936, 64, 64]]


def test_misuse_of_a_catalogue_is_named():
    catalogue = block_catalogue((512, 512), 64, 4)
    for call, error, message in (
            (lambda: block_catalogue((512, 512), 513), GeometryError, "block_px must fit into the image of 512 x 512"),
            (lambda: block_catalogue((512, 512), (64, 64, 64)), InputError, "block_px must be an integer or"),
            (lambda: block_catalogue((512, 512), 0), InputError, "block_px must be an integer of at least 1"),
            (lambda: block_catalogue((512, 512), 64, 0), InputError, "stride must be an integer of at least 1"),
            (lambda: catalogue[len(catalogue)], IndexError, "index 12769 is out of range for 12769 placements"),
            (lambda: catalogue[-len(catalogue) - 1], IndexError, "out of range"),
            (lambda: catalogue[[0, 99_999]], IndexError, "index 99999"),
            (lambda: catalogue["a"], IndexError, "must be an integer"),
            (lambda: catalogue.index_of(2, 0), InputError, "row must be a multiple of 4 from 0 to 448, but was 2"),
            (lambda: catalogue.index_of(0, 452), InputError, "col must be a multiple of 4 from 0 to 448, but was 452"),
            (lambda: catalogue.index_of(-4, 0), InputError, "row must be"),
            (lambda: catalogue.index_of(0.0, 0), InputError, "row must be an integer"),
            (lambda: catalogue.index_of([0, 4], [0, 4, 8]), InputError, "one shape"),
            (lambda: BlockCatalogue.from_dict({"image_shape": [8, 8]}), InputError, "fields must be")):
        with pytest.raises(error, match=message):
            call()


# Dynamic multi-mask ----------------------------------------------------------------------------------------------
def test_the_generator_gives_the_published_known_answers():
    """Known answers of Random123 (Salmon et al. 2011) for philox4x32 with 10 rounds."""
    from allpet_physics._block_sampling import philox

    for inputs, answer in (
            ("00000000 00000000 00000000 00000000 00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
            ("ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
            ("243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1")):
        words = philox(*(np.uint64(int(word, 16)) for word in inputs.split()))
        assert " ".join(f"{int(word):08x}" for word in words) == answer
    # Sample 0 of seed 0 spends these very words: one on the number of blocks, then one on each side.
    words = [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]
    sample = DynamicMultiMask((512, 512), n_blocks=(1, 6), block_px=(16, 64), seed=0).draw(0)
    assert sample.counts.tolist() == [1 + (words[0] * 6 >> 32)]
    assert sample.height.tolist() == [16 + (word * 49 >> 32) for word in words[1:]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=8),
       st.sampled_from(["free", "grid"]), st.booleans(), st.randoms(use_true_random=False))
def test_a_sample_depends_on_seed_and_index_alone(seed, indices, placement, square, random):
    settings_ = {"n_blocks": (1, 8), "block_px": (3, 12), "seed": seed, "placement": placement, "square": square}
    sampler = DynamicMultiMask((40, 56), **settings_)
    batch = sampler.draw(indices)
    assert batch.batch_shape == (len(indices),)
    shuffled = list(range(len(indices)))
    random.shuffle(shuffled)
    assert sampler.draw([indices[s] for s in shuffled]) == batch[shuffled]
    again = DynamicMultiMask.from_dict(json.loads(json.dumps(sampler.to_dict())))
    assert again == sampler
    for i, sample in zip(indices, batch, strict=True):
        assert again.draw(i) == sample
        assert again.draw(np.array([i])) == Blocks.concatenate([sample])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["free", "grid"]), st.booleans(), st.integers(0, 2**32))
def test_samples_keep_every_promise_up_to_the_tightest_packing(data, placement, square, seed):
    shape = (data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40)))
    largest = data.draw(st.integers(1, min(shape)))
    most = (shape[0] // largest) * (shape[1] // largest)
    high = data.draw(st.integers(1, most) | st.just(most))
    numbers, sizes = (data.draw(st.integers(1, high)), high), (data.draw(st.integers(1, largest)), largest)
    sampler = DynamicMultiMask(shape, numbers, sizes, seed=seed, placement=placement, square=square)
    assert sampler.always_packs
    batch = sampler.draw(range(20))
    assert Blocks(shape, batch.parameters, batch.offsets, disjoint=True) == batch
    assert numbers[0] <= batch.counts.min() <= batch.counts.max() <= numbers[1]
    sides = np.concatenate([batch.height, batch.width])
    assert sizes[0] <= sides.min() <= sides.max() <= sizes[1]
    assert not square or (batch.height == batch.width).all()
    if placement == "grid":
        n_down, n_across = shape[0] // largest, shape[1] // largest
        for sample in batch:
            cells = set()
            for row, col, height, width in sample.parameters.tolist():
                edges = [[n * shape[axis] // cells_ for n in range(cells_ + 1)]
                         for axis, cells_ in ((0, n_down), (1, n_across))]
                first = np.searchsorted(edges[0], row, "right") - 1, np.searchsorted(edges[1], col, "right") - 1
                assert row + height <= edges[0][first[0] + 1]
                assert col + width <= edges[1][first[1] + 1]
                cells.add(tuple(int(f) for f in first))
            assert len(cells) == len(sample.parameters)


def test_tight_packings_that_chance_never_finds_are_found():
    for shape, n, side in (((128, 128), 4, 64), ((64, 64), 64, 8), ((50, 70), 15, (1, 14)), ((512, 512), 64, 64)):
        sampler = DynamicMultiMask(shape, n, side)
        batch = sampler.draw(range(50))
        assert Blocks(shape, batch.parameters, batch.offsets, disjoint=True).counts.tolist() == [n] * 50
    # 16 blocks in 65 x 65 px have one spare row and column, which open up on every side alike and in the middle.
    free = ~DynamicMultiMask((65, 65), 16, 16).draw(range(400)).to_mask()
    sides = [np.count_nonzero(side.any(axis=1)) for side in (free[:, 0], free[:, -1], free[:, :, 0], free[:, :, -1])]
    assert min(sides) > 0.8 * max(sides) > 40
    assert free[:, 32, 16:48].any()


def packable(sizes, shape):
    """Try every place of every block."""
    taken = np.zeros(shape, bool)

    def fits(rest):
        if not rest:
            return True
        (height, width), *rest = rest
        for row, col in product(range(shape[0] - height + 1), range(shape[1] - width + 1)):
            place = taken[row:row + height, col:col + width]
            if not place.any():
                place[:] = True
                if fits(rest):
                    return True
                place[:] = False
        return False

    return sum(h * w for h, w in sizes) <= taken.size and fits(sorted(sizes, key=np.prod, reverse=True))


@pytest.mark.parametrize("square", [True, False])
def test_a_sample_that_does_not_fit_raises_and_names_itself(square):
    """Every sample that raises is one that an exhaustive search cannot pack either."""
    sampler = DynamicMultiMask((9, 9), (3, 5), (2, 5), seed=5, square=square)
    assert not sampler.always_packs
    packed, refused = [], []
    for i in range(300):
        try:
            assert sampler.draw(i).counts[0] >= 3
            packed.append(i)
        except GeometryError as error:
            refused.append(i)
            sizes = str(error).split("; ")[1].split(" px)")[0].split(", ")
            assert not packable([tuple(int(n) for n in size.split(" x ")) for size in sizes], (9, 9))
    assert len(packed) > 100
    assert len(refused) > 10
    with pytest.raises(GeometryError, match=rf"of sample {refused[0]} \(seed 5; .* not be packed; lower n_blocks"):
        sampler.draw([*packed, *refused])


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("placement", ["free", "grid"])
def test_number_and_size_are_uniform_and_neighbouring_samples_independent(placement, square):
    batch = DynamicMultiMask((96, 96), (1, 6), (5, 14), seed=11, placement=placement, square=square).draw(range(20_000))
    assert uniform_p(batch.counts, 1, 6) > RATE
    assert uniform_p(batch.height, 5, 14) > RATE
    assert uniform_p(batch.width, 5, 14) > RATE
    sizes = np.histogram2d(batch.height, batch.width, bins=10)[0]
    assert (np.count_nonzero(sizes) == 10) if square else (stats.chi2_contingency(sizes).pvalue > RATE)
    pairs = np.histogram2d(batch.counts[:-1], batch.counts[1:], bins=6)[0]
    assert stats.chi2_contingency(pairs).pvalue > RATE
    other = DynamicMultiMask((96, 96), (1, 6), (5, 14), seed=12, placement=placement, square=square).draw(range(20_000))
    assert stats.chi2_contingency(np.histogram2d(batch.counts, other.counts, bins=6)[0]).pvalue > RATE
    last = np.repeat(batch.counts, batch.counts)
    assert stats.chi2_contingency(np.histogram2d(last, batch.height, bins=(6, 10))[0]).pvalue > RATE


def test_the_place_of_one_block_is_uniform():
    free = DynamicMultiMask((20, 30), 1, 8, seed=3).draw(range(30_000))
    assert uniform_p(free.row * 23 + free.col, 0, 13 * 23 - 1) > RATE
    # Cells of 10 x 10 px: 3 x 3 places in each of the six.
    grid = DynamicMultiMask((20, 30), 1, 8, seed=3, placement="grid").draw(range(30_000))
    place = (grid.row // 10 * 3 + grid.col // 10) * 9 + grid.row % 10 * 3 + grid.col % 10
    assert uniform_p(place, 0, 53) > RATE


def test_cells_are_drawn_without_preference():
    """All 220 choices of 3 of 12 cells are equally likely."""
    batch = DynamicMultiMask((12, 16), 3, 4, seed=8, placement="grid").draw(range(40_000))
    cells = np.sort((batch.row // 4 * 4 + batch.col // 4).reshape(-1, 3), axis=1)
    _, seen = np.unique(cells, axis=0, return_counts=True)
    assert len(seen) == 220
    assert stats.chisquare(seen).pvalue > RATE


def test_free_places_follow_their_distribution():
    """Two blocks of 2 x 2 in 5 x 6 px: the first anywhere, the second anywhere that the first leaves free."""
    places = list(product(range(4), range(5)))

    def apart(a, b):
        return abs(a[0] - b[0]) >= 2 or abs(a[1] - b[1]) >= 2

    chance = {(a, b): 1 / len(places) / sum(apart(a, c) for c in places)
              for a, b in product(places, places) if apart(a, b)}
    n = 60_000
    batch = DynamicMultiMask((5, 6), 2, 2, seed=21).draw(range(n))
    corners = np.stack([batch.row, batch.col], axis=1).reshape(n, 2, 2).tolist()
    seen = dict.fromkeys(chance, 0)
    for a, b in corners:
        seen[tuple(a), tuple(b)] += 1
    assert stats.chisquare(list(seen.values()), [n * p for p in chance.values()]).pvalue > RATE


def test_crowded_places_are_uniform_too():
    """15 pixels of 16: the one left over is anywhere, though most draws of the last places miss and are listed."""
    batch = DynamicMultiMask((4, 4), 15, 1, seed=2).draw(range(20_000))
    left = np.argmin(batch.to_mask().reshape(-1, 16), axis=1)
    assert uniform_p(left, 0, 15) > RATE
    # The last block placed: one of two pixels is free, each as likely.
    last = (batch.row * 4 + batch.col).reshape(-1, 15)[:, -1]
    assert uniform_p(last, 0, 15) > RATE


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9))
def test_the_list_of_free_places_is_complete(seed, height, width):
    from allpet_physics._block_sampling import _free_place

    placed = DynamicMultiMask((14, 17), (1, 7), (1, 5), seed=seed, square=False).draw(0)
    mask = placed.to_mask()
    free = [(r, c) for r, c in product(range(15 - height), range(18 - width))
            if not mask[r:r + height, c:c + width].any()]
    by_column = np.argsort(placed.col, kind="stable")
    n = (15 - height, 18 - width)
    assert _free_place(placed.parameters, by_column, height, width, *n, -1)[0] == len(free)
    assert [_free_place(placed.parameters, by_column, height, width, *n, i)[1:] for i in range(len(free))] == free


def test_every_bit_of_seed_and_index_counts():
    def drawn(seed, index):
        return DynamicMultiMask((512, 512), 6, seed=seed).draw(index).parameters.tobytes()

    assert len({drawn(0, 0)} | {drawn(1 << bit, 0) for bit in range(64)} | {drawn(0, 1 << bit) for bit in range(63)}
               ) == 128


def test_threads_draw_the_same_samples():
    sampler = DynamicMultiMask((128, 128), (1, 20), (4, 20), seed=1)
    whole = sampler.draw(range(4000))
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: sampler.draw(range(start, start + 100)), range(0, 4000, 100)))
    assert Blocks.concatenate(parts) == whole


def test_indices_come_in_any_form():
    sampler = DynamicMultiMask((64, 64), (1, 3), (4, 9))
    wanted = sampler.draw([3, 4, 5])
    for index in (range(3, 6), np.arange(3, 6), np.arange(3, 6, dtype=np.uint8), (3, 4, 5), np.arange(0, 12)[3:6]):
        assert sampler.draw(index) == wanted
    assert sampler.draw(np.int32(4)) == wanted[1]
    assert sampler.draw([]).to_mask().shape == (0, 64, 64)
    assert DynamicMultiMask((64, 64)).seed == 0


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"block_px": (16, 129)}, GeometryError, "block_px must fit into the image of 128 x 128 px, .* was 129"),
    ({"n_blocks": 5, "block_px": 64}, GeometryError, "at most 4, all that an image of 128 x 128 px holds .* was 5"),
    ({"n_blocks": 2, "block_px": 65}, GeometryError, "at most 1, all that"),
    ({"n_blocks": (1, 65), "block_px": (16, 64)}, GeometryError, "at most 64"),
    ({"n_blocks": (1, 6), "block_px": (16, 64), "placement": "grid"}, GeometryError,
     "grid of cells of 64 px, but was 6"),
    ({"n_blocks": (6, 1)}, InputError, r"n_blocks must be \(smallest, largest\), but was \(6, 1\)"),
    ({"n_blocks": 0}, InputError, "n_blocks must be an integer of at least 1"),
    ({"n_blocks": 2.5}, InputError, "n_blocks must be an integer"),
    ({"n_blocks": (1, 2, 3)}, InputError, "n_blocks must be an integer or"),
    ({"block_px": (0, 4)}, InputError, "block_px must be an integer of at least 1"),
    ({"seed": -1}, InputError, "seed must be an integer of at least 0"),
    ({"seed": 2**64}, InputError, "seed must be below"),
    ({"seed": None}, InputError, "seed must be"),
    ({"placement": "random"}, InputError, "placement must be 'free' or 'grid', but was 'random'"),
    ({"square": 1}, InputError, "square must be True or False"),
    ({"image_shape": (2**16, 2**16)}, GeometryError, "fewer than"),
    ({"image_shape": 128}, GeometryError, "image_shape must be"),
])
def test_settings_that_can_never_work_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        DynamicMultiMask(**{"image_shape": (128, 128), **changes})


@pytest.mark.parametrize("index", [-1, [0, -1], 2**63, [[0, 1]], 0.5, [0.5], True, "a", None, [True]])
def test_indices_that_name_no_sample_are_refused(index):
    with pytest.raises(InputError, match="index must be"):
        DynamicMultiMask((128, 128)).draw(index)


def test_a_card_of_another_generator_is_refused():
    card = DynamicMultiMask((128, 128)).to_dict()
    with pytest.raises(InputError, match="generator must be"):
        DynamicMultiMask.from_dict({**card, "generator": "other"})
    with pytest.raises(InputError, match="fields must be"):
        DynamicMultiMask.from_dict({"image_shape": [128, 128]})


# Statistics ------------------------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(block_sets())
def test_statistics_count_what_the_masks_show(drawn):
    blocks, sets = drawn
    if not any(sets):
        with pytest.raises(InputError, match="at least one block"):
            mask_statistics(blocks)
        return
    masks = blocks.to_mask()
    found = mask_statistics(blocks)
    np.testing.assert_allclose(found.coverage_map, masks.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.coverage.mean, masks.mean(), atol=1e-12)
    np.testing.assert_allclose(found.coverage.quantiles[0.5], np.median(masks.mean(axis=(1, 2))), atol=1e-12)
    assert found.coverage.counts.sum() == found.blocks_per_set.counts.sum() == len(sets)
    for size, values in ((found.height, blocks.height), (found.width, blocks.width),
                         (found.blocks_per_set, blocks.counts)):
        assert (size.mean, size.standard_deviation) == (values.mean(), values.std())
        assert (size.quantiles[0.0], size.quantiles[1.0]) == (values.min(), values.max())
        np.testing.assert_array_equal(np.repeat(size.values, size.counts), np.sort(values))
    json.dumps(found.to_dict())


def test_a_catalogue_covers_the_middle_evenly():
    """Pixel r is covered by min(r + 1, h, n - r, n - h + 1) shifts along each axis."""
    found = mask_statistics(block_catalogue((512, 512), 64)[:])
    r = np.arange(512)
    along = np.minimum(np.minimum(r + 1, 512 - r), 64)
    np.testing.assert_allclose(found.coverage_map, np.outer(along, along) / 449**2, rtol=1e-12)
    assert found.coverage.mean == pytest.approx((64 / 512)**2, rel=1e-12)
    assert found.coverage.standard_deviation == 0


def test_mean_coverage_is_that_of_the_settings():
    """E[coverage] = E[K] E[b²] / n², as the blocks never overlap; within five standard errors."""
    found = mask_statistics(DynamicMultiMask((512, 512), seed=4).draw(range(20_000)))
    side = np.arange(16, 65)
    error = found.coverage.standard_deviation / np.sqrt(20_000)
    assert abs(found.coverage.mean - 3.5 * (side**2).mean() / 512**2) < 5 * error


def test_the_plot_shows_the_four_distributions(tmp_path):
    for blocks in (DynamicMultiMask((64, 96), block_px=(4, 12)).draw(range(500)), Blocks.single((64, 96), 1, 2, 3, 4)):
        found = mask_statistics(blocks)
        figure = plot_mask_statistics(found)
        axes = {a.get_title().split(",")[0]: a for a in figure.axes}
        image = axes["how often each pixel is covered"].images[0]
        np.testing.assert_allclose(image.get_array(), 100 * found.coverage_map)
        for name in ("coverage", "number of blocks"):
            assert sum(bar.get_height() for bar in axes[name].patches) == pytest.approx(100)
        assert "size of blocks" in axes
        figure.savefig(tmp_path / "masks.png", dpi=40)
        assert (tmp_path / "masks.png").stat().st_size > 5000


def test_statistics_want_blocks():
    with pytest.raises(InputError, match="blocks must be Blocks, but was ndarray"):
        mask_statistics(np.zeros((4, 4)))


def test_importing_masks_stays_light():
    code = ("import sys, allpet_physics.masks, allpet_physics.mask_statistics; "
            "print(sorted({'numba', 'scipy', 'matplotlib', 'pydicom'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
