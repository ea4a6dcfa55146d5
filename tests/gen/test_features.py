"""Extractors: one call shape, the same figures by seed, statistics that hold what their equations say."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from allpet_gen.evaluation.features import EncoderFeatures, RandomCNN, ScriptedFeatures, StatisticsFeatures
from allpet_gen.symmetry import mirror_sinogram, rotate_sinogram
from allpet_physics.errors import InputError

EXTRACTORS = [RandomCNN(100.0), StatisticsFeatures(), StatisticsFeatures("image"),
              EncoderFeatures(lambda batch: np.sqrt(batch)[:, None], grid=2)]


@pytest.fixture
def counts():
    rng = np.random.default_rng(3)
    s, theta = np.linspace(-1, 1, 48), np.linspace(0, np.pi, 40, endpoint=False)
    centre = 0.3 * np.cos(theta - rng.uniform(0, 6, (6, 1)))
    return rng.poisson(80 * np.exp(-((s - centre[..., None]) ** 2) / 0.08) + 2).astype(np.float32)


def named(batch, domain="sinogram"):
    extractor = StatisticsFeatures(domain)
    return dict(zip(extractor.names, extractor(batch).T, strict=True))


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda e: e.name)
def test_one_call_shape_and_items_do_not_depend_on_their_batch(extractor, counts):
    whole = extractor(counts)
    assert whole.dtype == np.float64
    assert whole.shape[0] == len(counts)
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(extractor(counts[2:3])[0], whole[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda e: e.name)
@pytest.mark.parametrize(("spoil", "words"), [
    (lambda c: c[0], "shape"),
    (lambda c: np.where(c == c.max(), np.nan, c), "finite"),
    (lambda c: c - 1000, "negative"),
    (lambda c: c * np.array([1, 0, 1, 1, 1, 1])[:, None, None], r"index 1 \(empty\)"),
    (lambda c: np.concatenate([c, np.full_like(c[:1], 7)]), r"index 6 \(constant\)"),
])
def test_bad_batches_are_refused_in_a_sentence(extractor, counts, spoil, words):
    with pytest.raises(InputError, match=words):
        extractor(spoil(counts))


def test_random_network_is_its_seed(counts):
    first = RandomCNN(100.0, seed=5)(counts)
    np.testing.assert_array_equal(first, RandomCNN(100.0, seed=5)(counts))
    assert np.abs(first - RandomCNN(100.0, seed=6)(counts)).max() > 0.1
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    RandomCNN(100.0)
    assert torch.rand(1) == expected  # the global seed is left alone


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (96, 64)])
def test_random_network_takes_any_size(size):
    batch = np.random.default_rng(0).poisson(9, (2, *size))
    assert RandomCNN(10.0)(batch).shape == (2, 128)
    with pytest.raises(InputError, match="at least 32"):
        RandomCNN(10.0)(batch[:, :31])


def test_the_scale_is_global(counts):
    network = RandomCNN(100.0)
    assert np.abs(network(4 * counts) - network(counts)).max() > 0.1  # brightness is seen
    np.testing.assert_allclose(RandomCNN(400.0)(4 * counts), network(counts), rtol=1e-5)


def test_encoder_latents_are_averaged_over_cells():
    batch = np.random.default_rng(0).poisson(9, (3, 32, 32)).astype(np.float32)
    expected = batch.reshape(3, 2, 16, 2, 16).mean((2, 4)).reshape(3, 4)
    np.testing.assert_allclose(EncoderFeatures(lambda b: b[:, None], grid=2)(batch), expected, rtol=1e-6)
    distribution = EncoderFeatures(lambda b: SimpleNamespace(mean=torch.from_numpy(b)[:, None]), grid=2, batch_size=2)
    np.testing.assert_allclose(distribution(batch), expected, rtol=1e-6)
    with pytest.raises(InputError, match="encode must return"):
        EncoderFeatures(lambda b: b[:, 0, 0])(batch)
    with pytest.raises(InputError, match="encode must return finite"):
        EncoderFeatures(lambda b: np.full((len(b), 4), np.nan))(batch)


def test_statistics_of_poisson_noise():
    figures = named(np.random.default_rng(0).poisson(200, (4, 96, 96)))
    powers = np.exp([v for k, v in figures.items() if k.startswith("log_power") and "0.25" in k])
    np.testing.assert_allclose(powers, 0.25, rtol=0.08)  # white, of the variance of √n
    np.testing.assert_allclose(figures["deviation"], 200**-0.5, rtol=0.05)
    np.testing.assert_allclose(figures["skewness"], 200**-0.5, atol=0.12)
    np.testing.assert_allclose(figures["uniformity"], 1 / 200, rtol=0.05)
    np.testing.assert_allclose(figures["entropy"], -1 / 400, rtol=0.05)
    np.testing.assert_allclose(figures["gradient_anisotropy"], 0, atol=0.1)


def test_moments_of_a_line_source():
    """A point at radius ρ has its counts at s = ρ cos(θ − φ): amplitude ρ, no residual, no elongation."""
    s, theta = np.linspace(-1, 1, 101), np.linspace(0, np.pi, 60, endpoint=False)
    sinogram = np.exp(-((s - 0.4 * np.cos(theta - 1.0)[:, None]) ** 2) / (2 * 0.1**2))[None]
    figures = {k: v[0] for k, v in named(sinogram).items()}
    assert figures["centre_amplitude"] == pytest.approx(0.4, abs=1e-4)
    assert figures["centre_residual"] == pytest.approx(0, abs=1e-4)
    assert figures["width"] == pytest.approx(0.1, abs=1e-3)
    assert figures["elongation"] == pytest.approx(0, abs=1e-3)
    assert figures["width_kurtosis"] == pytest.approx(3, abs=0.01)
    assert figures["angle_total_variation"] == pytest.approx(0, abs=1e-4)


def test_moments_of_an_image():
    y, x = np.mgrid[-1:1:80j, -1:1:80j]
    image = np.exp(-((x - 0.2) ** 2) / 0.02 - y**2 / 0.08)[None]
    figures = {k: v[0] for k, v in named(image, "image").items()}
    assert figures["centre_distance"] == pytest.approx(0.2, rel=0.03)
    assert figures["angular_2"] == pytest.approx((0.04 - 0.01) / (0.04 + 0.01), abs=0.01)
    assert figures["angular_3"] == pytest.approx(0, abs=0.01)


def test_statistics_do_not_depend_on_how_the_patient_lies(counts):
    here, turned = named(counts), named(mirror_sinogram(rotate_sinogram(counts, 13)))
    for name in set(here) - {n for n in here if n.startswith("gradient")}:
        np.testing.assert_allclose(turned[name], here[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_unknown_domain_is_refused():
    with pytest.raises(InputError, match='"sinogram" or "image"'):
        StatisticsFeatures("volume")


# Networks of the caller's own

class Judge(torch.nn.Module):
    """Stands for Inception: grey values in whole numbers, probabilities unless features are asked for."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        if x.dtype != torch.uint8:
            raise RuntimeError("expected scalar type Byte")
        x = x.float()
        found = torch.stack([x[:, 0].amax((1, 2)), x[:, 1].mean((1, 2)), x[:, 2].mean((1, 2))], 1)
        return found if return_features else found.softmax(1)


class Maps(torch.nn.Module):
    """Gives maps, and takes one size alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[3] != 20:
            raise RuntimeError("size mismatch")
        return x.unsqueeze(0).unsqueeze(0) if x.shape[0] == 5 else x


def scripted(tmp_path, network):
    path = tmp_path / "network.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network), str(path))
    return path


def test_a_network_from_a_file_sees_grey_values(tmp_path, counts):
    features = ScriptedFeatures(scripted(tmp_path, Judge()), 100.0)
    grey = np.floor(255 * np.minimum(np.sqrt(counts / 100), 1) + 0.5)
    wanted = np.stack([grey.max((1, 2)), *[grey.mean((1, 2))] * 2], 1)
    np.testing.assert_allclose(features(counts), wanted, rtol=1e-5)
    assert features(counts).dtype == np.float64
    assert features.name == "network of network.pt"
    half = ScriptedFeatures(tmp_path / "network.pt", 100.0, batch_size=4)
    np.testing.assert_array_equal(half(counts), features(counts))


def test_pictures_are_resized_for_a_network_and_its_maps_averaged(tmp_path, counts):
    path = scripted(tmp_path, Maps())
    features = ScriptedFeatures(path, 100.0, size=20, dtype="float32")(counts)
    assert features.shape == (6, 3)
    np.testing.assert_allclose(features[:, 0], features[:, 2])
    grey = 255 * np.minimum(np.sqrt(counts / 100), 1)
    np.testing.assert_allclose(features[:, 1], grey.mean((1, 2)), rtol=0.02)
    with pytest.raises(InputError, match=r"pictures of shape \(6, 3, 40, 48\), but it failed \(.*size mismatch"):
        ScriptedFeatures(path, 100.0)(counts)
    with pytest.raises(InputError, match="must return latents of shape"):
        ScriptedFeatures(path, 100.0, size=20)(counts[:5])


class Nothing(torch.nn.Module):
    """Has exported methods only."""

    @torch.jit.export
    def count(self) -> int:
        return 1


def test_files_that_are_no_network_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"path must be a TorchScript file .*network.pt.*forward"):
        ScriptedFeatures(scripted(tmp_path, Nothing()), 1.0)
    (tmp_path / "text.pt").write_text("weights")
    for name in ("none.pt", "text.pt"):
        with pytest.raises(InputError, match=rf"path must be a TorchScript file .*{name}"):
            ScriptedFeatures(tmp_path / name, 1.0)
    with pytest.raises(InputError, match='dtype must be "uint8" or "float32"'):
        ScriptedFeatures(tmp_path / "text.pt", 1.0, dtype="int8")
