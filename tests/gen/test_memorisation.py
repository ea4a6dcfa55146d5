"""Copies are found however they are turned, mirrored, rescaled or drawn anew; strangers are left in peace."""

import json

import numpy as np
import pytest

from allpet_gen.evaluation import nearest as module
from allpet_gen.evaluation.features import RandomCNN
from allpet_gen.evaluation.memorisation import memorisation
from allpet_gen.evaluation.nearest import nearest_in_features, nearest_neighbours, summed
from allpet_gen.symmetry import mirror_sinogram, rotate_sinogram
from allpet_physics.errors import InputError

N_ANGLES, N_BINS = 36, 32


def expected_counts(rng, n, arc=np.pi):
    """Sinograms of bodies with a few hot spots in random places: sums of Gaussian discs, exact at all angles."""
    s, theta = np.linspace(-1, 1, N_BINS), np.arange(N_ANGLES) * arc / N_ANGLES
    out = 12 * np.exp(-(s**2) / 0.3) * np.ones((n, N_ANGLES, 1))
    for _ in range(4):
        radius, phi = 0.6 * np.sqrt(rng.random((n, 1))), rng.uniform(0, 2 * np.pi, (n, 1))
        width, hot = rng.uniform(0.08, 0.2, (n, 1, 1)), rng.uniform(20, 80, (n, 1, 1))
        out += hot * np.exp(-((s - (radius * np.cos(theta - phi))[..., None]) ** 2) / (2 * width**2))
    return out


@pytest.fixture(scope="module")
def patients():
    """Expected counts of 60 training patients, two slices each, and counts of them and of 60 held-out ones."""
    rng = np.random.default_rng(8)
    training, held_out = expected_counts(rng, 120), expected_counts(rng, 120)
    return training, rng.poisson(training), rng.poisson(held_out), np.repeat(np.arange(60), 2)


@pytest.fixture
def rng():
    return np.random.default_rng(9)


@pytest.mark.parametrize("arc", [np.pi, 2 * np.pi])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_copy_is_its_original(rng, arc, mirrored):
    training = rng.poisson(expected_counts(rng, 30, arc))
    for index, steps in ((3, 0), (17, 5), (29, 33)):
        original = mirror_sinogram(training[index], arc) if mirrored else training[index]
        found = nearest_neighbours(rotate_sinogram(original, steps, arc)[None], training, arc=arc)
        assert (found.index[0], found.steps[0], found.mirrored[0]) == (index, steps, mirrored)
        assert found.distance[0] < 1e-3


def test_the_distance_is_that_of_its_equation_without_noise(rng):
    """Fractions are taken as expected counts: plain correlation of the roots, tried rotation by rotation."""
    a, b = expected_counts(rng, 2)
    turned = [rotate_sinogram(m, k) for m in (b, mirror_sinogram(b)) for k in range(2 * N_ANGLES)]
    # Hot spots are wider than a bin and smooth in the angle, so that nothing lies beyond the kept harmonics.
    rho = max(np.corrcoef(np.sqrt(a).ravel(), np.sqrt(t).ravel())[0, 1] for t in turned)
    found = nearest_neighbours(a[None], b[None])
    # On an arc of π the mean of the whole turn is that of the half: Pearson's correlation itself.
    assert found.distance[0] == pytest.approx(np.sqrt(2 * (1 - rho)), rel=2e-3)


def test_noise_does_not_hide_a_copy(rng, patients):
    expected, counts, _, _ = patients
    for dose in (0.25, 1.0, 4.0):
        again = rotate_sinogram(rng.poisson(dose * expected[:40]), 7)
        found = nearest_neighbours(again, counts)
        assert (found.index == np.arange(40)).mean() > 0.95, dose
        # the correlation is corrected to about 1 at any dose
        assert np.median(found.distance) < 0.2, dose
    found = nearest_neighbours(rotate_sinogram(expected[:40], 7), counts)  # expected counts of a side have no noise
    assert (found.index == np.arange(40)).all()
    assert np.median(found.distance) < 0.15


def test_blocks_do_not_change_the_result(patients, monkeypatch):
    _, counts, held_out, _ = patients
    whole = nearest_neighbours(held_out[:50], counts)
    monkeypatch.setattr(module, "_BLOCK", (7, 11))
    parts = nearest_neighbours(held_out[:50], counts)
    np.testing.assert_array_equal(parts.index, whole.index)
    np.testing.assert_allclose(parts.distance, whole.distance, rtol=1e-4)


def test_one_patient_can_be_left_out(patients):
    _, counts, _, names = patients
    itself = nearest_neighbours(counts, counts)
    np.testing.assert_array_equal(itself.index, np.arange(len(counts)))
    others = nearest_neighbours(counts, counts, query_groups=names, training_groups=names)
    assert (names[others.index] != names).all()
    alone = nearest_neighbours(counts[:2], counts[:2], query_groups=names[:2], training_groups=names[:2])
    assert (alone.index == -1).all()
    assert np.isinf(alone.distance).all()


@pytest.fixture(scope="module")
def judge(patients):
    _, counts, held_out, names = patients

    def run(generated, **settings):
        return memorisation(generated, counts, held_out, training_patients=names, held_out_patients=1000 + names,
                            quantile=0.02, **settings)
    return run


@pytest.mark.parametrize("arc", [np.pi, 2 * np.pi])
@pytest.mark.parametrize("mirrored", [False, True])
def test_poses_are_tried_in_features_too(rng, arc, mirrored):
    """Bins as features: a copy in a pose that is tried is found exactly, and how it lies."""
    training, whole = expected_counts(rng, 30, arc), N_ANGLES * (2 if arc < 4 else 1)
    for index, k in ((3, 0), (17, 1), (29, 5)):
        original = mirror_sinogram(training[index], arc) if mirrored else training[index]
        query = 3 * rotate_sinogram(original, k * whole // 6, arc)[None]
        found = nearest_in_features(query, training, lambda batch: batch.reshape(len(batch), -1), arc=arc,
                                    turns=6)
        assert (found.index[0], found.steps[0], found.mirrored[0]) == (index, k * whole // 6, mirrored)
        assert found.distance[0] < 1e-5


@pytest.mark.parametrize("turn", [0, 3, 130])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("n_angles", [128, 288])
def test_a_pose_is_found_between_angles_that_are_summed(rng, monkeypatch, n_angles, mirrored, turn):
    """The mirror of sums of angles is not the sum of mirrored ones, and a turn may lie between two of them."""
    monkeypatch.setattr(f"{__name__}.N_ANGLES", n_angles)
    training = expected_counts(rng, 20)
    query = rotate_sinogram(mirror_sinogram(training[7]) if mirrored else training[7], turn)[None]
    found = nearest_in_features(query, training, lambda batch: batch.reshape(len(batch), -1))
    assert (found.index[0], found.steps[0], found.mirrored[0]) == (7, turn, mirrored)
    assert found.distance[0] < 1e-5
    by_angle = -(-n_angles // 128)  # of 288 angles, three are summed for (M1), with turns by as many
    found = nearest_neighbours(rotate_sinogram(query[0], by_angle * turn - turn)[None], training)
    assert (found.index[0], found.mirrored[0]) == (7, mirrored)
    assert found.steps[0] == turn % (2 * n_angles // by_angle)
    assert found.distance[0] < 1e-3


@pytest.mark.parametrize(("sizes", "wanted"), [((128, 128), (32, 32)), ((36, 96), (36, 32)), ((70, 31), (35, 31))])
def test_sums_keep_enough_angles_and_bins(rng, sizes, wanted):
    batch = rng.random((3, *sizes))
    out = summed(batch, 32)
    assert out.shape == (3, *wanted)
    k, m = sizes[0] // wanted[0], sizes[1] // wanted[1]
    assert out[1, 2, 3] == pytest.approx(batch[1, 2 * k:3 * k, 3 * m:4 * m].sum())


def test_the_distance_in_features_is_that_of_its_equation(rng):
    a, b = expected_counts(rng, 3), expected_counts(rng, 20)
    scaled = [x * b.sum((1, 2)).mean() / x.sum((1, 2), keepdims=True) for x in (a, b)]

    def features(batch):
        return np.stack([batch[:, 0, 5], batch[:, 7].max(1), np.full(len(batch), 3.0)], 1)  # the last tells nothing

    known = features(scaled[1])[:, :2]

    def apart(i, turn, flipped):
        pose = features(rotate_sinogram(mirror_sinogram(scaled[0]) if flipped else scaled[0], turn))[i, :2]
        return min(np.linalg.norm((pose - t) / known.std(0)) / 2**0.5 for t in known)

    coarse = [min((apart(i, 9 * k, flipped), 9 * k, flipped) for k in range(8) for flipped in (False, True))
              for i in range(3)]
    wanted = [min(apart(i, turn + off, flipped) for off in range(-8, 9))  # and all turns about the best
              for i, (_, turn, flipped) in enumerate(coarse)]
    assert wanted != [distance for distance, *_ in coarse]
    np.testing.assert_allclose(nearest_in_features(a, b, features, turns=8).distance, wanted, rtol=1e-4)
    names = np.arange(20) // 2
    others = nearest_in_features(b, b, features, query_groups=names, training_groups=names)
    assert (names[others.index] != names).all()
    alone = nearest_in_features(b[:2], b[:2], features, query_groups=names[:2], training_groups=names[:2])
    assert (alone.index == -1).all()
    with pytest.raises(InputError, match="training must differ in some feature"):
        nearest_in_features(a, b, lambda batch: np.ones((len(batch), 2)))
    with pytest.raises(InputError, match="both or neither"):
        nearest_in_features(a, b, features, query_groups=names[:3])


@pytest.mark.parametrize(("anew", "least"), [(False, 30), (True, 15)])
def test_planted_copies_are_found_in_features(rng, patients, judge, anew, least):
    """All that are turned, mirrored and rescaled; and half of those with counts drawn anew, of which bins find all."""
    expected, counts, _, _ = patients
    strangers = rng.poisson(expected_counts(rng, 60))
    source = rng.choice(120, 30, replace=False)
    copies = np.stack([rotate_sinogram(mirror_sinogram(e) if i % 2 else e, 3 * i)
                       for i, e in enumerate((expected if anew else counts)[source])])
    copies = rng.poisson(copies) if anew else 2 * copies
    extractor = RandomCNN(float(np.quantile(expected, 0.999)))
    out = judge(np.concatenate([strangers, copies]), extractor=extractor, n_bootstrap=100)
    found = np.array(out["flagged"])
    assert (found >= 60).sum() >= least > 3 * (found < 60).sum()
    right = [source[f - 60] == n for f, n in zip(out["flagged"], out["flagged_neighbours"], strict=True) if f >= 60]
    assert np.mean(right) > 0.9
    assert out["copies"]["excess"]["low"] > 0


def test_strangers_are_left_in_peace_in_features(rng, patients, judge):
    extractor = RandomCNN(float(np.quantile(patients[0], 0.999)))
    quiet = judge(rng.poisson(expected_counts(rng, 60)), extractor=extractor, n_bootstrap=100)
    assert quiet["copies"]["excess"]["low"] <= 0 <= quiet["copies"]["excess"]["high"]
    assert quiet["authenticity"]["excess"]["low"] <= 0 <= quiet["authenticity"]["excess"]["high"]


def test_planted_copies_are_found_and_named(rng, patients, judge):
    expected, _, _, _ = patients
    strangers = rng.poisson(expected_counts(rng, 60))
    source = rng.choice(120, 30, replace=False)
    copies = np.stack([rotate_sinogram(mirror_sinogram(e) if i % 2 else e, 3 * i)
                       for i, e in enumerate(expected[source])])
    copies = rng.poisson(copies * rng.uniform(0.5, 2, (30, 1, 1)))
    out = judge(np.concatenate([strangers, copies]))
    found = np.array(out["flagged"])
    assert (found >= 60).sum() >= 28
    assert (found < 60).sum() <= 5
    right = [source[f - 60] == n for f, n in zip(out["flagged"], out["flagged_neighbours"], strict=True) if f >= 60]
    assert np.mean(right) > 0.9
    assert out["copies"]["generated"]["value"] == pytest.approx(len(found) / 90)
    assert out["copies"]["excess"]["low"] > 0.1
    assert out["authenticity"]["excess"]["high"] < 0
    assert out["flagged_distances"] == sorted(out["flagged_distances"])
    assert json.loads(json.dumps(out)) == out


def test_strangers_are_left_in_peace(rng, judge):
    out = judge(rng.poisson(expected_counts(rng, 150)), seed=3)
    assert out["copies"]["excess"]["low"] <= 0 <= out["copies"]["excess"]["high"]
    assert out["copies"]["generated"]["value"] < 0.08
    assert out["copies"]["held_out"]["value"] < 0.08
    assert out["authenticity"]["excess"]["low"] <= 0 <= out["authenticity"]["excess"]["high"]


def test_the_result_is_its_seed(rng, judge):
    strangers = rng.poisson(expected_counts(rng, 20))
    first = judge(strangers, seed=1, n_bootstrap=50)
    assert first == judge(strangers, seed=1, n_bootstrap=50)
    assert first != judge(strangers, seed=2, n_bootstrap=50)


def test_bad_input_is_refused_in_a_sentence(patients, judge):
    _, counts, held_out, names = patients
    with pytest.raises(InputError, match=r"must have items of the shape"):
        nearest_neighbours(held_out[:, :, :-1], counts)
    with pytest.raises(InputError, match=r"queries must vary .* index 0 \(empty\)"):
        nearest_neighbours(held_out * (np.arange(120) > 0)[:, None, None], counts)
    with pytest.raises(InputError, match="training must be finite"):
        nearest_neighbours(held_out, np.where(counts == counts.max(), np.nan, counts))
    with pytest.raises(InputError, match="both or neither"):
        nearest_neighbours(held_out, counts, query_groups=names)
    with pytest.raises(InputError, match="60 were in both"):
        memorisation(held_out, counts, held_out, training_patients=names, held_out_patients=names)
    with pytest.raises(InputError, match="at least 4 patients"):
        memorisation(held_out, counts, held_out, training_patients=names, held_out_patients=1000 + names % 3)
    with pytest.raises(InputError, match="quantile must be"):
        memorisation(held_out, counts, held_out, training_patients=names, held_out_patients=1000 + names, quantile=0.9)
