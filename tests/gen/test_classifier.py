"""The classifier learns shapes, is not fooled by totals or noise, repeats by seed and survives a save."""

import numpy as np
import pytest
import torch

from allpet_gen.evaluation.classifier import (
    ClassifierFeatures,
    load_classifier,
    predict,
    save_classifier,
    train_classifier,
)
from allpet_gen.evaluation.shape_images import summed_counts, turned_images
from allpet_physics.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
TRACERS, REGIONS = ("one spot", "two spots"), ("narrow", "wide")


def scans(rng, n, total=60_000):
    """Counts, tracers and regions: bodies of two widths with one or two hot spots."""
    s, theta = np.linspace(-1, 1, 32), np.linspace(0, np.pi, 32, endpoint=False)
    tracer, region = rng.integers(2, size=(2, n))
    radius = np.where(region == 0, 0.4, 0.75)[:, None, None]
    mean = np.sqrt(np.maximum(radius**2 - s**2, 0)) + np.zeros((n, 32, 1))
    for spot in range(2):
        phi = rng.uniform(-0.6, 0.6, (n, 1)) + spot * np.pi
        here = s - (0.6 * radius[..., 0] * np.cos(theta - phi))[..., None]
        mean += (spot <= tracer)[:, None, None] * 0.8 * np.exp(-(here**2) / (2 * 0.06**2))
    mean *= total * rng.uniform(0.5, 2, (n, 1, 1)) / mean.sum((1, 2), keepdims=True)
    return rng.poisson(mean), np.array(TRACERS)[tracer], np.array(REGIONS)[region]


def train(seed=0, epochs=6, **settings):
    rng = np.random.default_rng(4)
    return train_classifier(*scans(rng, 320), *scans(rng, 64), seed=seed, epochs=epochs, width=8, **settings)


@pytest.fixture(scope="module")
def records():
    return []


@pytest.fixture(scope="module")
def classifier(records):
    return train(progress=records.append)


def test_new_patients_are_named(classifier):
    counts, tracers, regions = scans(np.random.default_rng(77), 200)
    out = predict(classifier, counts)
    assert (out.tracer == tracers).mean() > 0.95
    assert (out.region == regions).mean() > 0.95
    assert out.joint.shape == (200, 4)
    np.testing.assert_allclose(out.joint.sum(1), 1)
    np.testing.assert_allclose(out.joint.reshape(200, 2, 2).sum(2), out.tracer_probability)


def test_totals_and_noise_do_not_decide(classifier):
    rng = np.random.default_rng(78)
    low, tracers, regions = scans(rng, 200, total=8_000)
    out = predict(classifier, low)
    assert (out.tracer == tracers).mean() > 0.85
    assert (out.region == regions).mean() > 0.95
    np.testing.assert_allclose(predict(classifier, 10 * low).joint, out.joint, atol=1e-4)


def test_probabilities_are_means_over_turns(classifier):
    counts = scans(np.random.default_rng(6), 12)[0]
    each = []
    for x in turned_images(summed_counts(counts.astype(float)), classifier.arc):
        with torch.no_grad():
            each.append(classifier(torch.from_numpy(x))[0].double().softmax(1).numpy())
    assert len(each) == 5
    np.testing.assert_allclose(predict(classifier, counts).tracer_probability, np.mean(each, axis=0), atol=1e-6)
    assert np.abs(each[0] - each[2]).max() > 1e-4


def test_progress_and_history_tell_of_every_epoch(classifier, records):
    assert [r["epoch"] for r in records] == list(range(1, len(records) + 1))
    assert records == classifier.history
    assert records[-1]["loss"] < records[0]["loss"]


def test_training_is_its_seed_and_leaves_the_global_one_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = train(epochs=1)
    assert torch.rand(1) == expected
    counts = scans(np.random.default_rng(1), 10)[0]
    np.testing.assert_array_equal(predict(first, counts).joint, predict(train(epochs=1), counts).joint)
    assert np.abs(predict(first, counts).joint - predict(train(seed=1, epochs=1), counts).joint).max() > 1e-3


def test_training_ends_early_and_keeps_the_best_epoch():
    """Validation labels at random: the loss there soon only grows."""
    rng = np.random.default_rng(4)
    part, (counts, tracers, regions) = scans(rng, 64), scans(rng, 32)
    model = train_classifier(*part, counts, rng.permutation(tracers), rng.permutation(regions), epochs=30, patience=2,
                             width=8, learning_rate=5e-3)
    losses = [h["validation_loss"] for h in model.history]
    assert len(losses) < 30
    assert len(losses) == np.argmin(losses) + 3


def test_a_save_keeps_every_prediction(classifier, tmp_path):
    counts = scans(np.random.default_rng(2), 20)[0]
    folder = save_classifier(classifier, tmp_path / "classifier")
    assert sorted(f.name for f in folder.iterdir()) == ["classifier.json", "classifier.safetensors"]
    again = load_classifier(folder)
    np.testing.assert_array_equal(predict(again, counts).joint, predict(classifier, counts).joint)
    assert again.history == classifier.history
    with pytest.raises(InputError, match="folder must hold"):
        load_classifier(tmp_path)


def test_features_are_an_extractor(classifier):
    features = ClassifierFeatures(classifier)(scans(np.random.default_rng(2), 9)[0])
    assert features.shape == (9, 64)
    assert features.dtype == np.float64


def test_bad_input_is_refused_in_a_sentence(classifier):
    counts, tracers, regions = scans(np.random.default_rng(0), 12)
    held = (counts, tracers, regions)
    with pytest.raises(InputError, match="counts must be whole numbers"):
        train_classifier(counts + 0.5, tracers, regions, *held)
    with pytest.raises(InputError, match=r"tracer_labels must name one class for each of 12"):
        train_classifier(counts, tracers[:5], regions, *held)
    with pytest.raises(InputError, match="validation_regions must be among those of training, narrow, wide, but"):
        train_classifier(counts, tracers, regions, counts, tracers, np.full(12, "x"))
    with pytest.raises(InputError, match="at least two classes"):
        train_classifier(counts, ["a"] * 12, ["b"] * 12, counts, ["a"] * 12, ["b"] * 12)
    with pytest.raises(InputError, match=r"counts must vary .* index 3 \(empty\)"):
        predict(classifier, counts * (np.arange(12) != 3)[:, None, None])
    with pytest.raises(InputError, match="counts must be finite"):
        predict(classifier, np.where(counts == counts.max(), np.nan, counts))
