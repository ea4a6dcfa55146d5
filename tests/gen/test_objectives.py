"""The mathematics of what is minimised, asked of networks that are perfect, or wrong in a known way."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from allpet_gen.autoencoder import SinogramAutoencoder
from allpet_gen.count_scaling import CountScaling
from allpet_gen.objectives import AutoencoderObjective, DenoiserObjective, noise_schedule, poisson_deviance
from allpet_physics import DynamicMultiMask, ParallelGeometry, composite_blocks

GEOMETRY = ParallelGeometry(16, 32, 4.0, (32, 32), 4.0)
WEIGHTS = {"kl": 1e-5, "spectral": 0.2, "consistency": 0.3, "adversarial": 0.0}
DIFFUSION = {"steps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
             "zero_terminal_snr": True, "min_snr_gamma": 5.0, "null_prompt": 0.1}


class Oracle(nn.Module):
    """An autoencoder whose decoder gives what it is told, whatever the input."""

    def __init__(self, decoded, scale=100.0):
        super().__init__()
        self.decoded, self.scaling = decoded, CountScaling(scale)
        self.config = SimpleNamespace(channels=3)

    def encode(self, x):
        return SimpleNamespace(sample=lambda generator: x, kl=lambda: x.new_zeros(len(x)))

    def decode_raw(self, z):
        return self.decoded

    expected = SinogramAutoencoder.expected


def terms(counts, expected, scale=100.0):
    """The terms for counts (batch, 3, angle, bin) when the decoder expects others."""
    scaling = CountScaling(scale)
    objective = AutoencoderObjective(Oracle(scaling.encode(torch.as_tensor(expected).float()), scale), WEIGHTS)
    loss, found = objective(scaling.encode(torch.as_tensor(counts).float()), torch.Generator())
    weighted = found["deviance"] + sum(WEIGHTS[k] * found[k] for k in ("kl", "spectral", "consistency"))
    torch.testing.assert_close(loss, weighted)
    return {name: value.item() for name, value in found.items()}


def composites(n=2, mean=30.0, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(mean * rng.random((n, *GEOMETRY.sinogram_shape))).astype(np.float32)
    counts[..., :6] = 0  # outside the body
    blocks = DynamicMultiMask(GEOMETRY.image_shape, n_blocks=(1, 3), block_px=(4, 12), seed=seed).draw(list(range(n)))
    return composite_blocks(counts, blocks, GEOMETRY)


# Deviance

@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=8).filter(any))
def test_the_mean_minimises_the_deviance(counts):
    n = torch.tensor(counts, dtype=torch.float64)
    best = n.mean().clone().requires_grad_()
    least = poisson_deviance(n, best).sum()
    least.backward()
    assert abs(best.grad.item()) < 1e-9 * len(counts)
    for factor in (0.5, 0.99, 1.01, 2):
        assert poisson_deviance(n, factor * n.mean()).sum() > least


def test_the_deviance_is_zero_where_counts_are_met_and_positive_elsewhere():
    n = torch.tensor([0.5, 1.0, 7.0, 1e4], dtype=torch.float64)
    torch.testing.assert_close(poisson_deviance(n, n), torch.zeros(4, dtype=torch.float64), atol=1e-10, rtol=0)
    assert (poisson_deviance(n[:, None], n * 1.1) > 0).all()
    assert poisson_deviance(torch.zeros(1), torch.tensor([3.5])).item() == 7  # no counts where 3.5 are expected


@pytest.mark.parametrize(("mean", "within"), [(50.0, 0.005), (10.0, 0.03), (1000.0, 3e-4)])
def test_its_mean_is_1_for_poisson_counts(mean, within):
    n = np.arange(int(mean + 15 * np.sqrt(mean)) + 10)
    deviance = poisson_deviance(torch.from_numpy(n).double(), torch.tensor(mean, dtype=torch.float64)).numpy()
    assert stats.poisson.pmf(n, mean) @ deviance == pytest.approx(1, abs=within)


def test_it_is_twice_the_difference_of_log_likelihoods():
    n, mean = np.array([0, 3, 40]), 12.5
    saturated = stats.poisson.logpmf(n, np.maximum(n, 1e-300))
    expected = 2 * (saturated - stats.poisson.logpmf(n, mean))
    np.testing.assert_allclose(poisson_deviance(torch.from_numpy(n).double(), torch.tensor(mean).double()), expected)


# The autoencoder's terms

def test_a_decoder_that_gives_the_data_back_has_no_error():
    counts = composites()
    found = terms(counts, counts)
    assert found["deviance"] < 2e-3  # the least expectation of a bin is half a thousandth of a count
    assert found["spectral"] < 1e-6
    assert found["consistency"] < 3e-3
    assert found["kl"] == 0


def test_the_consistency_term_sees_parts_that_do_not_fit():
    counts = composites()
    plus, whole, minus = (np.array([1, 0, 0]), np.array([0, 1, 0]), np.array([0, 0, 1]))
    floor = terms(counts, counts)["consistency"]
    for channel in (plus, whole, minus):
        changed = counts * (1 + 0.3 * channel[:, None, None])
        assert terms(counts, changed)["consistency"] > floor + 0.01
    moved = counts.copy()  # the parts still add up, but not with the mask
    moved[:, 0], moved[:, 2] = counts[:, 0] * 0.5, counts[:, 2] + counts[:, 0] * 0.5
    assert terms(counts, moved)["consistency"] > floor + 0.01
    # Other counts that are split as the mask says are as consistent as the data.
    assert terms(counts, 2 * counts)["consistency"] < 5e-3


def test_the_consistency_term_is_the_distance_of_roots():
    counts = np.full((1, 3, 16, 32), 100, np.float32) * np.array([0.25, 1, 0.75], np.float32)[:, None, None]
    expected = counts * np.array([4, 1, 1], np.float32)[:, None, None]
    together, part = np.sqrt(175) - 10, 10 - 5
    assert terms(counts, expected)["consistency"] == pytest.approx(4 * (together**2 + part**2), rel=1e-3)


def test_the_spectral_term_is_the_energy_of_the_ramp_filtered_error():
    rng = np.random.default_rng(1)
    n_bins = GEOMETRY.n_bins
    counts = np.full((1, 3, 16, n_bins), 60.0)
    counts[:, 1] *= 2
    # Neither of the highest frequency nor constant: the ramp of a discrete transform differs there.
    bins, error = np.arange(n_bins), np.zeros_like(counts)
    for k in (3, 5, 8):
        error += rng.standard_normal((3, 16, 1)) * np.cos(2 * np.pi * k * bins / n_bins + rng.random())
    error *= np.hanning(n_bins)
    # In space: e against e convolved with the band-limited ramp (Kak and Slaney 1988, eq. 3.61), Nyquist frequency 1.
    lag = np.arange(n_bins)[:, None] - np.arange(n_bins)
    ramp = np.where(lag == 0, 0.5, np.where(lag % 2 == 0, 0.0, -2 / (np.pi * np.where(lag == 0, 1, lag)) ** 2))
    energy = np.einsum("bcai,ij,bcaj->bca", error, ramp, error).mean(-1) / n_bins
    wanted = 2 * (energy / counts.mean((-2, -1))).mean()
    # The mean is over n_bins + 1 frequencies, both ends included.
    assert terms(counts, counts + error)["spectral"] == pytest.approx(wanted * n_bins / (n_bins + 1), rel=0.01)


def test_a_rough_error_weighs_more_than_a_smooth_one_and_a_shift_least():
    counts = np.full((1, 3, 16, 32), 50.0, np.float32)
    bins = np.arange(32)
    found = [terms(counts, counts + (2 * np.cos(np.pi * f * bins)).astype(np.float32))["spectral"]
             for f in (0, 1 / 8, 1 / 2, 7 / 8)]
    assert found == sorted(found)
    assert found[3] / found[2] == pytest.approx(7 / 4, rel=0.1)


def test_poisson_noise_alone_has_a_spectral_term_and_a_deviance_of_1():
    rng = np.random.default_rng(2)
    mean = np.full((24, 3, 16, 32), 40.0)
    found = terms(rng.poisson(mean), mean)
    assert found["spectral"] == pytest.approx(1, abs=0.05)
    assert found["deviance"] == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("decoded", [-1.0, -1.5, 0.0, 3.0])
@pytest.mark.parametrize("empty", [True, False])
def test_gradients_are_finite_where_nothing_is_counted_or_expected(decoded, empty):
    x = CountScaling(100.0).encode(torch.from_numpy(composites()) * (0 if empty else 1))
    leaf = torch.full_like(x, decoded).requires_grad_()
    loss, found = AutoencoderObjective(Oracle(leaf), WEIGHTS)(x, torch.Generator())
    loss.backward()
    assert loss.isfinite()
    assert all(value.isfinite() for value in found.values())
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("adversarial", [0.0, 0.1])
def test_every_weight_of_the_networks_is_trained(channels, adversarial):
    torch.manual_seed(0)
    autoencoder = SinogramAutoencoder(GEOMETRY.to_dict(), 50.0, channels=channels, patch=2, block_out_channels=(8, 8),
                                      norm_num_groups=4, mid_attention=False)
    objective = AutoencoderObjective(autoencoder, WEIGHTS | {"adversarial": adversarial})
    x = autoencoder.scaling.encode(torch.from_numpy(composites()))[:, :channels]
    assert set(objective.parts) == ({"model", "discriminator"} if adversarial else {"model"})
    for part, parameters in objective.parts.items():
        objective.zero_grad()
        loss, found = objective(x, torch.Generator().manual_seed(1), part)
        loss.backward()
        assert loss.isfinite()
        assert ("consistency" in found) == (channels == 3 and part == "model")
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
        if part == "discriminator":
            assert all(p.grad is None for p in autoencoder.parameters())
    objective.eval()  # in training, the discriminator's spectral norm moves on with every call
    again = objective(x, torch.Generator().manual_seed(1))[0]
    assert torch.equal(again, objective(x, torch.Generator().manual_seed(1))[0])


# The schedule and the denoiser's loss

class PointMass(nn.Module):
    """The perfect prediction when every latent is the same z0; remembers what it was asked."""

    def __init__(self, z0):
        super().__init__()
        self.z0, self.asked = z0, []
        self.alphas = noise_schedule(DIFFUSION).alphas_cumprod

    def forward(self, z, t, tokens, view=None, **_):
        self.asked.append((z, t, tokens, view))
        alpha = self.alphas[t][:, None, None, None]
        return (alpha.sqrt() * z - self.z0) / (1 - alpha).sqrt()


def objective_of(z0, **changes):
    c = len(z0)
    return DenoiserObjective(PointMass(z0), DIFFUSION | changes, torch.full((c, 1, 1), 0.5), torch.full((c, 1, 1), 2.0))


def batch_of(z0, n):
    return {"z": (z0 * 2 + 0.5).expand(n, *z0.shape), "tokens": torch.tensor([[1, 2, 3]]).repeat(n, 1),
            "view": torch.zeros(n, 3)}


def test_the_schedule_ends_in_pure_noise_and_starts_with_little():
    scheduler = noise_schedule(DIFFUSION)
    alphas = scheduler.alphas_cumprod
    assert alphas[-1] == 0
    assert (alphas.diff() < 0).all()
    assert 0.999 < alphas[0] < 1
    z, noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    last = torch.tensor([999])
    assert torch.equal(scheduler.add_noise(z[None], noise[None], last), noise[None])
    assert torch.equal(scheduler.get_velocity(z[None], noise[None], last), -z[None])
    scheduler.set_timesteps(10)
    assert scheduler.timesteps[0] == 999
    assert not scheduler.config.clip_sample
    assert noise_schedule(DIFFUSION | {"zero_terminal_snr": False}).alphas_cumprod[-1] > 1e-3


def test_the_weights_are_min_snr_plus_one_and_train_the_last_time():
    objective = objective_of(torch.zeros(2, 4, 4))
    snr = (lambda a: a / (1 - a))(noise_schedule(DIFFUSION).alphas_cumprod.double().numpy())
    np.testing.assert_allclose(objective.weight, np.minimum(snr + 1, 5) / (snr + 1), rtol=1e-5)
    assert objective.weight[-1] == 1  # SNR 0, where min(SNR, 5)/(SNR + 1) would be 0
    assert torch.all(objective.weight[snr < 4] == 1)
    assert torch.all(objective.weight > 0)
    assert torch.all(objective.weight.diff() >= 0)
    assert torch.all(objective_of(torch.zeros(2, 4, 4), min_snr_gamma=0).weight == 1)


def test_the_perfect_prediction_has_no_loss_and_no_prediction_has_the_variance():
    z0 = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    objective = objective_of(z0)
    loss, found = objective(batch_of(z0, 16), torch.Generator().manual_seed(0))
    assert loss < 1e-5
    assert found["v"] < 1e-5
    objective.denoiser.forward = lambda z, *_, **__: torch.zeros_like(z)
    unit = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    _, found = objective(batch_of(z0, 64) | {"z": unit * 2 + 0.5}, torch.Generator().manual_seed(2))
    assert found["v"] == pytest.approx(1, abs=0.1)  # v has unit variance when latents have


def test_times_are_spread_over_the_schedule_and_reach_its_end():
    z0, last = torch.zeros(2, 4, 4), 0
    objective = objective_of(z0)
    for seed in range(30):
        objective(batch_of(z0, 8), torch.Generator().manual_seed(seed))
        t = objective.denoiser.asked[-1][1]
        assert (t // 125).tolist() == list(range(8))
        last = max(last, int(t[-1]))
    assert 980 < last <= 999


def test_words_are_dropped_as_often_as_said():
    z0 = torch.zeros(1, 2, 2)
    for chance, whole in ((0.0, 1.0), (1.0, 0.0), (0.1, 0.9**4)):
        objective = objective_of(z0, null_prompt=chance)
        objective(batch_of(z0, 2000), torch.Generator().manual_seed(0))
        tokens = objective.denoiser.asked[-1][2]
        said = tokens == torch.tensor([1, 2, 3])
        assert torch.all(said | (tokens == 0))
        assert said.all(1).float().mean() == pytest.approx(whole, abs=0.04)
        assert said.float().mean() == pytest.approx((1 - chance) ** 2, abs=0.03)
        assert (~said).all(1).float().mean() >= chance - 0.03  # all at once: classifier-free guidance needs it


def test_the_same_generator_gives_the_same_loss():
    z0 = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(3))
    objective = objective_of(z0 + 1)
    first, again, other = (objective(batch_of(z0, 4), torch.Generator().manual_seed(s))[0] for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
