"""The network of translations: nothing is lost on the way in and out, slots stay apart, all that is said is seen."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_gen.tasks import TASKS, task_tokens
from allpet_gen.translator import SLOTS, SinogramTranslator, refuse_unknown_tasks, slots_used
from allpet_physics.errors import GeometryError, InputError

from .translation_helpers import GEOMETRY, batch_of, pair_dataset, random_pairs, tiny_translator

PAIRS = random_pairs()
NETWORK = tiny_translator(PAIRS).eval()


@pytest.fixture(scope="module")
def network():
    return NETWORK


@pytest.fixture(scope="module")
def batch(network):
    return batch_of(pair_dataset(PAIRS, network), range(0, 30, 6))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Counts in and out

@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(1e-3, 1e6), st.sampled_from(list(TASKS)))
def test_decoding_gives_back_every_count(seed, mean, task):
    network = NETWORK
    counts = torch.from_numpy(np.random.default_rng(seed).gamma(0.3, mean, (2, SLOTS, 16, 16)).astype(np.float32))
    used, scales = torch.tensor([slots_used(task)] * 2), torch.full((2,), network.target_scale(task))
    counts[..., :3] = 0
    counts = counts * used[..., None, None]
    z = network.encode_target(counts, scales, used)
    assert z.shape == (2, *network.latent_shape)
    back = network.decode(z, scales) * used[..., None, None]
    # Where there is little, what is left of the rounding of x near -1.
    torch.testing.assert_close(back, counts, rtol=1e-5, atol=1e-6 * float(counts.max() + scales[0]))


def test_a_source_is_encoded_as_a_target_of_its_scale(network, batch):
    """So what goes in undisturbed comes out as it was, in every slot that is used."""
    z = network.encode_source(batch["source"], batch["gain"])
    start = network.start(z, batch["used"], batch["tokens"], batch["numbers"])
    scale = torch.full((len(z),), network.config.count_scale)
    counts = network.decode(start, scale)
    wanted = (batch["source"] * batch["gain"][:, None, None])[:, None].expand_as(counts)
    used = batch["used"].bool()
    torch.testing.assert_close(counts[used], wanted[used], rtol=1e-5, atol=1e-3)
    assert not start[~used.repeat_interleave(4, dim=1)].any()


def test_one_gain_is_for_all(network, batch):
    one = network.encode_source(batch["source"], 4.0)
    each = network.encode_source(batch["source"], torch.full((len(batch["source"]),), 4.0))
    assert torch.equal(one, each)
    torch.testing.assert_close(network.encode_source(4 * batch["source"], 1.0), one)


def test_counts_are_never_negative(network):
    z = 20 * normal(3, *network.latent_shape)
    counts = network.decode(z, torch.full((3,), 100.0))
    assert counts.min() == 0
    assert (counts == 0).float().mean() > 0.2
    assert (counts > 0).float().mean() > 0.2


def test_a_bin_is_one_number_of_one_slot(network):
    used, scales = torch.ones(1, SLOTS), torch.ones(1)
    plain = torch.ones(1, SLOTS, 16, 16)
    places = set()
    for slot in range(SLOTS):
        for angle, k in ((0, 0), (7, 3), (15, 15)):
            other = plain.clone()
            other[0, slot, angle, k] = 2
            moved = (network.encode_target(other, scales, used) != network.encode_target(plain, scales, used))[0]
            (place,) = moved.nonzero().tolist()
            assert place[0] // 4 == slot
            assert place[1:] == [angle // 2, k // 2]
            places.add(tuple(place))
    assert len(places) == 6


# Slots

def test_slots_that_are_not_used_stay_zero(network, batch):
    z = network.encode_target(batch["targets"], batch["scale"], batch["used"])
    for values, task in zip(z, TASKS.values(), strict=True):
        assert values[:4].any()
        assert bool(values[4:].any()) == (task.n_targets == 2)
    noisy = normal(*z.shape)
    masked = network.masked(noisy, batch["used"])
    kept = batch["used"].bool().repeat_interleave(4, dim=1)
    assert torch.equal(masked[kept], noisy[kept])
    assert not masked[~kept].any()
    assert torch.equal(network.masked(masked, batch["used"]), masked)


def test_slots_are_as_many_as_targets():
    assert [sum(slots_used(task)) for task in TASKS] == [task.n_targets for task in TASKS.values()]
    assert all(len(slots_used(task)) == SLOTS for task in TASKS)


# The network

@torch.no_grad()
def test_all_that_is_said_is_seen_item_by_item(network, batch):
    source = network.encode_source(batch["source"], batch["gain"])
    z, t, tokens = normal(5, *network.latent_shape), torch.full((5,), -50.0), batch["tokens"]
    numbers, attention = batch["numbers"], batch["attention"]

    def called(**changes):
        given = {"z": z, "t": t, "source": source, "tokens": tokens, "numbers": numbers, "attention": attention,
                 "gate_strength": 0.5} | changes
        return network(given.pop("z"), given.pop("t"), given.pop("source"), **given)

    out = called()
    assert out.shape == z.shape
    first = torch.zeros(5)
    first[0] = 1
    wide = first[:, None, None, None]
    changes = {"z": z + wide, "t": t + 20 * first, "source": source + wide, "numbers": numbers + first[:, None],
               "attention": attention * (1 - wide)}
    changes |= {f"token {i}": torch.where((first[:, None] > 0) & (torch.arange(4) == i), (tokens + 1) % 3, tokens)
                for i in range(4)}
    for name, value in changes.items():
        moved = called(**{"tokens" if name.startswith("token") else name: value})
        assert not torch.allclose(moved[0], out[0], atol=1e-5), name
        torch.testing.assert_close(moved[1:], out[1:])
    assert torch.equal(called(gate_strength=0.0), called(attention=None))
    assert torch.equal(called(numbers=torch.zeros(5, 4)), called(numbers=None))


@torch.no_grad()
def test_saving_and_loading_keeps_every_bit(network, batch, tmp_path):
    network.save_pretrained(tmp_path)
    loaded = SinogramTranslator.from_pretrained(tmp_path)
    assert loaded.geometry == network.geometry == GEOMETRY
    assert loaded.tasks == network.tasks == tuple(TASKS)
    assert [loaded.target_scale(task) for task in TASKS] == [network.target_scale(task) for task in TASKS]
    source = network.encode_source(batch["source"], batch["gain"])
    assert torch.equal(loaded.encode_source(batch["source"], batch["gain"]), source)
    start = network.start(source, batch["used"], batch["tokens"], batch["numbers"])
    arguments = (start, torch.zeros(()), source, batch["tokens"], batch["numbers"])
    assert torch.equal(loaded(*arguments), network(*arguments))


def test_gradient_checkpointing_changes_no_gradient(batch):
    found = []
    for frugal in (False, True):
        network = tiny_translator(PAIRS).train()
        if frugal:
            network.enable_gradient_checkpointing()
        source = network.encode_source(batch["source"], batch["gain"])
        start = network.start(source, batch["used"], batch["tokens"], batch["numbers"])
        out = network(start, torch.zeros(()), source, batch["tokens"], batch["numbers"], batch["attention"], 0.5)
        out.square().mean().backward()
        found.append([p.grad for p in network.parameters()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)
    assert any(g is not None and g.any() for g in found[1])


# Mistakes

def test_it_must_be_made_for_a_task():
    with pytest.raises(InputError, match="tasks must name at least one of low-dose"):
        SinogramTranslator(GEOMETRY.to_dict(), 1.0, {}, patch=2)


def test_tasks_that_it_was_not_made_for_are_refused():
    network = tiny_translator(PAIRS, ("delayed-frame", "low-dose"))
    assert network.target_scale("low-dose") > 0
    with pytest.raises(InputError, match="task must be one that the model was trained for, low-dose, delayed-frame, "
                                         "but was 'tracer-conversion'; train one"):
        network.target_scale("tracer-conversion")
    with pytest.raises(InputError, match=r"task must be one of low-dose.*but was 'sharpen'"):
        network.target_scale("sharpen")


def test_names_of_tasks_are_put_in_order():
    assert refuse_unknown_tasks(["delayed-frame", "low-dose", "low-dose"]) == ("low-dose", "delayed-frame")
    assert refuse_unknown_tasks(iter(TASKS)) == tuple(TASKS)
    assert refuse_unknown_tasks("low-dose") == ("low-dose",)
    with pytest.raises(InputError, match=r"tasks must name at least one of low-dose.*but were none"):
        refuse_unknown_tasks([])
    with pytest.raises(InputError, match=r"task must be one of low-dose.*but was 'sharpen'"):
        refuse_unknown_tasks(["low-dose", "sharpen"])


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"patch": 3}, GeometryError, "multiples of 6, but had 16 x 16; resample"),
    ({"block_out_channels": (16,) * 5, "attention_levels": (False,) * 5}, GeometryError, "multiples of 32"),
    ({"patch": 0}, InputError, "patch must be"),
    ({"deviation": 0.0}, InputError, "deviation must be"),
    ({"norm_num_groups": 5}, InputError, "multiples of 5"),
])
def test_what_cannot_be_made_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        tiny_translator(PAIRS, **changes)


@pytest.mark.parametrize(("scale", "targets"), [(0.0, {"low-dose": 1.0}), (1.0, {"low-dose": -1.0})])
def test_scales_must_be_positive(scale, targets):
    with pytest.raises(InputError, match="scale must be"):
        SinogramTranslator(GEOMETRY.to_dict(), scale, targets, patch=2)


def test_a_start_is_interpolated_between_doses_and_is_of_its_task():
    """Equation (X2), on both sides of the rows and between them; tasks without rows start at the source."""
    config = {name: value for name, value in tiny_translator(PAIRS).config.items() if name[0] != "_"}
    rows = {"low-dose": [[1.0, 0.4, 0.3], [0.0, 1.0, 0.0], [0.5, 0.8, 0.1]], "delayed-frame": [[0.0, 0.7, -0.4]]}
    network = SinogramTranslator(**config | {"starts": rows})
    tokens = torch.tensor([task_tokens(task, None, None) for task in
                           ("low-dose",) * 5 + ("delayed-frame", "attenuation-correction")])
    numbers = torch.zeros(7, 4)
    numbers[:5, 3] = torch.tensor([-0.2, 0.25, 0.5, 0.75, 1.5])
    slope, offset = (v.flatten() for v in network.slope_and_offset(tokens, numbers))
    torch.testing.assert_close(slope, torch.tensor([1.0, 0.9, 0.8, 0.6, 0.4, 0.7, 1.0]))
    torch.testing.assert_close(offset, torch.tensor([0.0, 0.05, 0.1, 0.2, 0.3, -0.4, 0.0]))
    source = torch.randn(7, 4, 16, 16)
    start = network.start(source, torch.tensor([[1.0, 0.0]] * 7), tokens, numbers)
    torch.testing.assert_close(start[:, :4], slope[:, None, None, None] * source + offset[:, None, None, None])
    assert not start[:, 4:].any()
