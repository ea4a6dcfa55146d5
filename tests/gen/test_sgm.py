"""The score-based model against Gaussians, whose scores and marginals are known in closed form."""

import numpy as np
import pytest
import torch
from diffusers import ScoreSdeVeScheduler
from torch.nn import functional

from allpet_gen.baseline_stages import measured_roots
from allpet_gen.baselines.sgm import ScoreNetwork, SGMPipeline, score_scheduler
from allpet_gen.baselines.views import ViewDataset
from allpet_gen.generation_models import load_generator
from allpet_gen.stages import count_scale
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

from .baseline_helpers import GEOMETRY, batch_of, class_set, quick, trained, untrained

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"patch": 2, "block_out_channels": (16, 16), "attention_levels": (False, True), "token_dim": 8,
         "attention_head_dim": 2, "norm_num_groups": 4}


def network_of(**changes):
    torch.manual_seed(0)
    return ScoreNetwork(GEOMETRY.to_dict(), 400.0, **SMALL | changes).eval()


def knows_gaussian(network, deviation):
    """Make F what the score of N(0, deviation²) under noise of any σ means by (SG1)."""
    def forward(z, sigma, _tokens, _view=None):
        s = sigma.to(torch.float32).expand(len(z)).reshape(-1, 1, 1, 1)
        return (z / (s**2 + 1) - z / (s**2 + deviation**2)) * s * (s**2 + 1).sqrt()
    network.forward = forward
    return network


def test_the_score_of_a_gaussian_is_the_one_that_its_network_means():
    network, z = knows_gaussian(network_of(), 0.7), torch.randn(4, *network_of().latent_shape)
    for sigma in (0.05, 1.0, 40.0):
        found = network.score(z, torch.tensor(sigma), torch.ones(4, 3, dtype=torch.long))
        torch.testing.assert_close(found, -z / (0.7**2 + sigma**2), rtol=1e-4, atol=1e-6)


def test_the_loss_is_least_for_the_score_of_the_data():
    """For z ~ N(0, I) the best F is zero at all σ, and what is left of the loss is 1, the variance of F*."""
    objective, _ = untrained("sgm")
    network, draws = objective.network, torch.Generator().manual_seed(0)
    z = torch.randn(64, 1, 16, 16, generator=draws)
    batch = {"x": z * network.config.deviation + network.config.center,
             "tokens": torch.ones(64, 3, dtype=torch.long), "view": torch.zeros(64, 3)}
    losses = {}
    for deviation in (0.8, 1.0, 1.25):
        knows_gaussian(network, deviation)
        losses[deviation] = objective(batch, torch.Generator().manual_seed(1))[0].item()
    assert losses[1.0] == pytest.approx(1, abs=0.04)
    assert losses[1.0] < min(losses[0.8], losses[1.25])


def test_the_weighted_error_of_the_score_is_that_of_the_network():
    objective, dataset = untrained("sgm", **{"sgm.null_prompt": 0.0})
    network, batch, seen = objective.network.eval(), batch_of(dataset), []
    own = network.forward
    network.forward = lambda z, sigma, *told: seen.append((z, sigma)) or own(z, sigma, *told)
    loss, terms = objective(batch, torch.Generator().manual_seed(0))
    z, sigma = seen[0]
    s, clean = sigma.reshape(-1, 1, 1, 1), network.encode(batch["x"])
    with torch.no_grad():
        error = network.score(z, sigma, batch["tokens"], batch["view"]) + (z - clean) / s**2
    weighted = (s**2 * (s**2 + 1) * error**2).mean()
    assert loss.item() == pytest.approx(weighted.item(), rel=1e-3)
    assert terms["score"].item() == pytest.approx((s**2 * error**2).mean().item(), rel=1e-3)
    low, high = network.config.sigma_min, network.config.sigma_max
    share = (sigma / low).log() / np.log(high / low)
    assert ((share * 8).long() == torch.arange(8)).all()  # one in each eighth: evenly spread
    torch.testing.assert_close((z - clean).std(dim=(1, 2, 3)) / sigma, torch.ones(8), atol=0.2, rtol=0)


# The sampler

@pytest.mark.parametrize("steps", [2, 7, 50, 333, 2000])
def test_the_scheduler_visits_every_level_once(steps):
    sampler = ScoreSdeVeScheduler(num_train_timesteps=steps, sigma_min=0.1, sigma_max=30.0)
    places = (sampler.timesteps * (steps - 1)).long()
    assert places.tolist() == list(range(steps - 1, -1, -1))
    ratios = sampler.discrete_sigmas[1:] / sampler.discrete_sigmas[:-1]
    torch.testing.assert_close(ratios, torch.full_like(ratios, 300 ** (1 / (steps - 1))), rtol=1e-3, atol=0)


def test_a_step_of_the_predictor_has_the_marginal_of_the_reverse_sde():
    """Of N(0, s² + σ²), the step keeps a Gaussian of variance v(1 − Δ/v)² + Δ, with Δ what is taken from σ²."""
    sampler = ScoreSdeVeScheduler(num_train_timesteps=20, sigma_min=0.1, sigma_max=30.0)
    draws, place = torch.Generator().manual_seed(0), 12
    sigma, after = sampler.discrete_sigmas[place], sampler.discrete_sigmas[place - 1]
    v, taken = 0.49 + sigma**2, sigma**2 - after**2
    z = v.sqrt() * torch.randn(200, 1000, generator=draws)
    out = sampler.step_pred(-z / v, sampler.timesteps[19 - place], z, generator=draws).prev_sample
    assert out.var().item() == pytest.approx((v * (1 - taken / v) ** 2 + taken).item(), rel=0.02)


@pytest.mark.parametrize("deviation", [0.5, 1.0, 3.0])
def test_what_is_drawn_from_a_gaussian_is_that_gaussian(deviation):
    """To the first order of the steps, and what the last step takes away: (SG4) leaves the mean of clean data."""
    network = knows_gaussian(network_of(sigma_min=0.2, sigma_max=60.0, deviation=0.25), deviation)
    pipe, kept = SGMPipeline(network, score_scheduler(network, 0.16)), []
    network.counts = lambda z: kept.append(z) or z[:, 0]
    draws = [torch.Generator().manual_seed(k) for k in range(40)]
    for _ in pipe._rounds(torch.ones(40, 3, dtype=torch.long), draws, 400):
        pass
    z = kept[0]
    taken = 0.2**2 + network.noise**2
    assert network.noise == pytest.approx(400**-0.5 / 0.25)
    v = deviation**2 + 0.2**2
    assert z.var().item() == pytest.approx(v * (1 - taken / v) ** 2, rel=0.08)
    assert abs(z.mean().item()) < 0.1 * deviation


def test_the_corrector_of_one_sinogram_does_not_see_the_others():
    """The scheduler's own step is that of a whole batch, so each sinogram is corrected alone."""
    network = network_of()
    pipe = SGMPipeline(network, score_scheduler(network, 0.16))
    sampler, z = ScoreSdeVeScheduler(), torch.randn(3, *network.latent_shape)
    z[1] *= 100
    tokens, sigma = torch.ones(3, 3, dtype=torch.long), torch.tensor(2.0)

    def draws(n):
        return [torch.Generator().manual_seed(k) for k in range(n)]

    with torch.no_grad():
        alone = pipe._corrected(sampler, z[:1], sigma, tokens[:1], draws(1))
        together = pipe._corrected(sampler, z, sigma, tokens, draws(3))
        score = network.score(z, sigma, tokens)
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)
    coupled = sampler.step_correct(score, z, generator=draws(3)).prev_sample
    assert (coupled[:1] - alone).abs().max() > 1e-2


# Counts

def test_nothing_is_lost_on_the_way_in():
    network = network_of(center=-0.4, deviation=0.3)
    counts = torch.arange(256.0).reshape(1, 1, 16, 16)
    z = network.encode(network.scaling.encode(counts))
    assert z.shape == (1, 4, 8, 8)
    torch.testing.assert_close(network.counts(z), counts[:, 0] + 0.25, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("mean", [5.0, 40.0, 900.0])
def test_the_mean_of_roots_gives_back_the_mean_of_counts(mean):
    rng, network = np.random.default_rng(0), network_of()
    roots = np.sqrt(rng.poisson(mean, 400_000)).mean()
    x = torch.full((1, 1, 16, 16), 2 * roots / 20 - 1, dtype=torch.float32)
    assert network.counts(network.encode(x)).mean().item() == pytest.approx(mean, abs=0.02 * mean**0.5 + 0.03)


def test_noise_and_distances_are_measured():
    dataset = ViewDataset(class_set(), count_scale(class_set()), quick("sgm")["augmentation"], 0)
    found = measured_roots(dataset, 0.5)
    x = torch.stack([dataset[0, i]["x"] for i in range(len(dataset))]).double()
    assert found["center"] == pytest.approx(x.mean().item(), rel=1e-4)
    assert found["deviation"] == pytest.approx(x.std().item(), rel=1e-4)
    z = (x / found["deviation"]).flatten(1)
    assert found["sigma_max"] == pytest.approx(max((a - b).norm().item() for a in z for b in z), rel=1e-4)
    assert found["sigma_min"] == pytest.approx(0.5 * dataset.scaling.noise / found["deviation"], rel=1e-4)


def test_training_lowers_the_loss_on_held_out_sinograms():
    settings = quick("sgm")
    pipe = load_generator(trained("sgm"))
    held = ViewDataset(class_set(8, seed=1), pipe.network.scaling.scale, settings["augmentation"], 0)
    fresh = ScoreNetwork(**{k: v for k, v in pipe.network.config.items() if k[0] != "_"})
    objective, losses = type(untrained("sgm")[0]), []
    for network in (fresh, pipe.network):
        with torch.no_grad():
            losses.append(objective(network.eval(), settings["sgm"])(batch_of(held, 16), torch.Generator())[0].item())
    assert losses[1] < 0.6 * losses[0]


def test_angles_go_on_beyond_the_last():
    """The input's continuation reaches the network: a turn by some angles that starts in another row is the same."""
    network, arc = network_of(), GEOMETRY.arc
    full = ParallelGeometry(16, 16, 41.6, (16, 16), 41.6, 2 * arc)
    network = ScoreNetwork(full.to_dict(), 400.0, **SMALL).eval()
    z = torch.randn(1, *network.latent_shape)
    tokens, sigma = torch.ones(1, 3, dtype=torch.long), torch.tensor(1.0)
    with torch.no_grad():
        moved, own = (network(v, sigma, tokens) for v in (z.roll(2, dims=2), z))
    torch.testing.assert_close(moved, own.roll(2, dims=2), rtol=1e-3, atol=1e-4)
    assert functional.mse_loss(moved, own) > 1e-6


@pytest.mark.parametrize(("name", "value"), [("sgm.snr", 0.0), ("sgm.noise_share", 0.0), ("sgm.patch", 0)])
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(InputError, match=f"^{name} must be"):
        quick("sgm", **{name: value})


def test_noise_levels_in_the_wrong_order_are_named():
    with pytest.raises(InputError, match="sigma_min must be below sigma_max, but they were 3 and 2"):
        network_of(sigma_min=3.0, sigma_max=2.0)
