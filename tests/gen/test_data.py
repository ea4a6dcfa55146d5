"""What networks are trained on: classes, views, masks, latents, batches; from memory and from the store."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_gen import data as data_module
from allpet_gen.data import LatentDataset, StepSampler, encode_views, read_class_set, view_numbers
from allpet_gen.prompts import Prompt
from allpet_gen.stages import check_cohort, check_planned
from allpet_gen.stored_counts import StoredCounts
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.simulation.cohort import cohort_parameters, write_cohort
from allpet_physics.simulation.cohort_reader import read_cohort

from .training_helpers import GEOMETRY, tiny_autoencoder, tiny_composites, tiny_settings

SPLIT = {"train": [0, 1, 2, 3], "validation": [4, 5], "test": [6, 7]}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort") / "store"
    write_cohort(path, cohort_parameters(8, size=16, n_slices=2, regions=("head", "chest"), tracers=("FDG", "PSMA"),
                                         split=SPLIT))
    return read_cohort(path)


def test_every_class_has_its_number_of_training_patients_alone(cohort):
    found = read_class_set(cohort, 3)
    assert found.classes == ("brain with 18F-FDG", "brain with 68Ga-PSMA", "chest with 18F-FDG", "chest with 68Ga-PSMA")
    assert len(found) == 12
    assert set(found.patients) <= set(SPLIT["train"])
    for label, tokens in zip(found.labels, found.tokens, strict=True):
        assert tuple(tokens) == Prompt.parse(found.classes[label]).tokens()
    # Heads are of even patients: they take turns through the regions.
    assert set(found.patients[:6] % 2) == {0}
    part = cohort.select(split="train", region="chest")
    np.testing.assert_array_equal(found.counts[9:], part.prompts([0, 1, 2], "PSMA"))


def test_from_the_store_comes_what_would_be_in_memory(cohort, monkeypatch):
    held = read_class_set(cohort, 4)
    monkeypatch.setattr(data_module, "IN_MEMORY_BYTES", 0)
    lazy = read_class_set(cohort, 4)
    assert isinstance(held.counts, np.ndarray)
    assert isinstance(lazy.counts, StoredCounts)
    assert (lazy.counts.shape, lazy.counts.dtype, lazy.counts.nbytes) == (held.counts.shape, held.counts.dtype,
                                                                          held.counts.nbytes)
    np.testing.assert_array_equal(np.asarray(lazy.counts), held.counts)
    np.testing.assert_array_equal(lazy.counts[::5], held.counts[::5])
    np.testing.assert_array_equal(lazy.counts[np.int64(3)], held.counts[3])


def test_no_counts_travel_to_other_processes(cohort):
    held = read_class_set(cohort, 4)
    packed = pickle.dumps(held)
    assert len(packed) < held.counts.nbytes / 2
    np.testing.assert_array_equal(np.asarray(pickle.loads(packed).counts), held.counts)


def test_too_few_sinograms_and_another_size_are_refused_before_reading(cohort):
    with pytest.raises(InputError, match=r"must hold 5 train .*, but has 4 of the head; .* or ask for fewer"):
        read_class_set(cohort, 5)
    for change, words in (({"data.per_class": 5}, "5 train .* lower data.per_class"),
                          ({"training.validation": 12}, "3 validation .* has 2 .* lower training.validation")):
        with pytest.raises(InputError, match=f"must hold {words}"):
            check_cohort(cohort, tiny_settings(**{"data.per_class": 4} | change))
    with pytest.raises(GeometryError, match=r"32 x 32.*has 16 x 16"):
        check_cohort(cohort, tiny_settings(**{"cohort.size": 32}))
    check_cohort(cohort, tiny_settings(**{"data.per_class": 4, "training.validation": 4}))


def test_a_cohort_that_will_be_too_small_is_refused_before_it_is_simulated():
    planned = cohort_parameters(9, size=16, n_slices=2, split=dict.fromkeys(("train", "validation"), 0.5))
    check_planned(planned, tiny_settings(**{"data.per_class": 2, "training.validation": 9}))
    for name, part in (("data.per_class", "train"), ("training.validation", "validation")):
        with pytest.raises(InputError, match=f"cohort.patients must give .* {part} .* raise it, or lower {name}"):
            check_planned(planned, tiny_settings(**{"data.per_class": 2, "training.validation": 9} | {name: 90}))


def test_where_one_is_wanted_already_no_setting_is_to_be_lowered():
    planned = cohort_parameters(9, size=16, n_slices=2, split={"train": 1.0, "validation": 0.0})
    with pytest.raises(InputError, match=r"give 1 validation .* give 0 of the head; raise it\.$"):
        check_planned(planned, tiny_settings(**{"data.per_class": 2, "training.validation": 1}))


def test_an_item_is_a_composite_that_follows_from_its_key():
    _, _, dataset = tiny_composites()
    first = dataset[3, 2]
    dataset[0, 1]
    assert torch.equal(dataset[3, 2], first)
    assert first.dtype == torch.float32
    assert first.shape == (3, 16, 16)
    plus, whole, minus = dataset.scaling.decode(first)
    torch.testing.assert_close(plus + minus, whole, rtol=1e-4, atol=1e-3)
    assert not torch.equal(dataset[4, 2], first)
    # Views only move counts.
    torch.testing.assert_close(whole.sum(), torch.tensor(float(dataset.data.counts[2].sum())), rtol=1e-5, atol=0)


def test_without_composites_an_item_is_the_sinogram():
    _, data, dataset = tiny_composites(**{"data.composite": False, "augmentation.mirror": 0.0,
                                          "augmentation.rotation_deg": 0.0})
    assert dataset[0, 1].shape == (1, 16, 16)
    torch.testing.assert_close(dataset.scaling.decode(dataset[0, 1])[0], torch.from_numpy(data.counts[1]).float(),
                               rtol=1e-4, atol=1e-3)


def test_views_stay_within_the_settings_and_are_told():
    rng = np.random.default_rng(0)
    drawn = [data_module.draw_view(rng, {"rotation_deg": 25.0, "mirror": 0.5}, GEOMETRY) for _ in range(300)]
    assert {turn for turn, _ in drawn} == {-2, -1, 0, 1, 2}  # steps of 11.25 degrees
    assert 90 < sum(mirrored for _, mirrored in drawn) < 210
    assert view_numbers(0, False, GEOMETRY) == (0.0, 0.0, 0.0)
    cos, sin, mirrored = view_numbers(-2, True, GEOMETRY)
    assert (1 + cos) ** 2 + sin**2 == pytest.approx(1)
    assert sin < 0
    assert mirrored == 1


def test_latents_of_all_views_are_standardised_by_what_is_returned():
    settings, data, dataset = tiny_composites()
    model = tiny_autoencoder(settings, data)
    found = encode_views(model, dataset, 3, batch=4)
    assert found["mean"].shape == (6, 3, *model.latent_shape)
    assert not found["views"][:, 0].any()
    assert found["views"][:, 1:].any()
    upright = torch.stack([dataset.item(0, i, 0, False) for i in range(6)])
    q = model.encode(upright)
    torch.testing.assert_close(found["mean"][:, 0].float(), q.mean, rtol=2e-3, atol=2e-3)
    model.set_latent_statistics(found["latent_mean"], found["latent_std"])
    shift, scale = model.latent_shift[None, None], model.latent_scale[None, None]
    standard = (found["mean"].float() - shift) / scale
    within = (found["logvar"].float().exp() / scale**2).mean((0, 1, 3, 4))
    torch.testing.assert_close(standard.mean((0, 1, 3, 4)), torch.zeros(4), rtol=0, atol=5e-3)
    torch.testing.assert_close(standard.var((0, 1, 3, 4), correction=0) + within, torch.ones(4), rtol=5e-3, atol=0)


def test_drawn_latents_have_the_moments_of_their_distribution():
    mean, logvar = torch.full((1, 1, 2, 8, 8), 3.0), torch.full((1, 1, 2, 8, 8), -2.0)
    made = [LatentDataset(m, v, torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 1, 3), seed=1)
            for m, v in ((mean, logvar), (mean.half(), logvar.half()))]
    z = torch.stack([made[0][epoch, 0]["z"] for epoch in range(100)])
    assert float(z.mean()) == pytest.approx(3, abs=0.02)
    assert float(z.std()) == pytest.approx(np.exp(-1), rel=0.03)
    assert torch.equal(made[1][5, 0]["z"], z[5])


@given(n=st.integers(1, 20), batch=st.integers(1, 7), world=st.integers(1, 3), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_batches_go_through_every_epoch_once_whoever_takes_them(n, batch, world, seed):
    steps = -(-3 * n // (batch * world))
    shares = [list(StepSampler(n, batch, range(steps), seed, rank, world)) for rank in range(world)]
    keys = [key for step in range(steps) for share in shares for key in share[step]]
    for epoch in range(3):
        assert sorted(index for e, index in keys if e == epoch) == list(range(n))
    alone = [key for step in StepSampler(n, batch * world, range(steps), seed) for key in step]
    assert keys == alone
    rest = list(StepSampler(n, batch, range(steps // 2, steps), seed, 0, world))
    assert rest == shares[0][steps // 2:]
