"""The score-based model against Gaussians, whose scores and marginals are known in closed form."""

import numpy as np
import pytest
import torch
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

def test_the_scheduler_makes_the_clean_sinogram_of_what_the_network_says():
    """Its scaling is (SG1): D by the scheduler is z + σ² times the score."""
    network = network_of()
    sampler, z = score_scheduler(network), torch.randn(3, *network.latent_shape)
    tokens, sigma = torch.ones(3, 3, dtype=torch.long), torch.tensor(1.7)
    with torch.no_grad():
        clean = sampler.precondition_outputs(z, network(z, sigma, tokens), sigma)
        torch.testing.assert_close(clean, z + sigma**2 * network.score(z, sigma, tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_levels_go_from_the_largest_to_the_smallest_each_once(steps):
    network, seen = network_of(sigma_min=0.1, sigma_max=30.0), []
    own = network.forward
    network.forward = lambda z, sigma, *told: seen.append(float(sigma)) or own(z, sigma, *told)
    pipe = SGMPipeline(network, score_scheduler(network))
    with torch.no_grad():
        rounds = list(pipe._rounds(torch.ones(1, 3, dtype=torch.long), [torch.Generator()], steps))
    assert len(rounds) == len(seen) == steps
    assert seen[0] == pytest.approx(30)
    assert seen[-1] == pytest.approx(0.1)
    assert (np.diff(seen) < 0).all()


@pytest.mark.parametrize("deviation", [0.5, 1.0, 3.0])
def test_what_is_drawn_from_a_gaussian_is_that_gaussian(deviation):
    """The flow multiplies z by the deviation left over that at the start; (SG5) leaves the mean of clean data."""
    network = knows_gaussian(network_of(sigma_min=0.2, sigma_max=60.0, deviation=0.25), deviation)
    pipe, kept = SGMPipeline(network, score_scheduler(network)), []
    network.counts = lambda z: kept.append(z) or z[:, 0]
    for _ in pipe._rounds(torch.ones(4, 3, dtype=torch.long), [torch.Generator().manual_seed(k) for k in range(4)], 40):
        pass
    noise = torch.stack([torch.randn(network.latent_shape, generator=torch.Generator().manual_seed(k))
                         for k in range(4)])
    v, taken = deviation**2 + 0.2**2, 0.2**2 + network.noise**2
    assert network.noise == pytest.approx(400**-0.5 / 0.25)
    flow = 60 * (v / (deviation**2 + 60**2)) ** 0.5
    torch.testing.assert_close(kept[0], noise * flow * (1 - taken / v), rtol=0.01, atol=1e-3)


def test_more_steps_come_nearer_to_the_flow_to_second_order():
    network = knows_gaussian(network_of(sigma_min=0.2, sigma_max=60.0), 1.0)
    pipe, kept = SGMPipeline(network, score_scheduler(network)), []
    network.counts = lambda z: kept.append(z) or z[:, 0]
    for steps in (20, 40, 640):
        for _ in pipe._rounds(torch.ones(1, 3, dtype=torch.long), [torch.Generator().manual_seed(0)], steps):
            pass
    coarse, fine = ((z - kept[2]).abs().max().item() for z in kept[:2])
    assert coarse > 3 * fine


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


@pytest.mark.parametrize(("name", "value"), [("sgm.noise_share", 0.0), ("sgm.patch", 0)])
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(InputError, match=f"^{name} must be"):
        quick("sgm", **{name: value})


def test_noise_levels_in_the_wrong_order_are_named():
    with pytest.raises(InputError, match="sigma_min must be below sigma_max, but they were 3 and 2"):
        network_of(sigma_min=3.0, sigma_max=2.0)
