"""Bridges are pinned at both ends, and where the best denoiser is known, samples have the law of the data."""

import itertools
import math

import pytest
import torch
from diffusers import DiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_gen.bridge_schedule import BridgeSchedule, latent_statistics
from allpet_gen.bridge_scheduler import BridgeScheduler
from allpet_physics.errors import InputError

KINDS = ("vp", "ve")
pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (3, 2, 4, 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def number(x):
    return torch.tensor(x, dtype=torch.float64)


# The process.

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("T", [1.0, 0.7, 3.0])
def test_the_ends_are_pinned(kind, T):
    bridge = BridgeScheduler(schedule=kind, T=T)
    z0, zT, noise = (normal(*SHAPE, seed=i).float() for i in range(3))
    end = bridge.bridge.T
    assert torch.equal(bridge.bridge_sample(z0, zT, noise, end), zT)
    assert torch.equal(bridge.bridge_sample(z0, zT, noise, 0.0), z0)
    # A time for each sample is the same as the samples one by one, and near the ends z is near them.
    t = torch.tensor([1e-6 * end, 0.4 * end, (1 - 1e-6) * end])
    together = bridge.bridge_sample(z0, zT, noise, t)
    for i in range(3):
        torch.testing.assert_close(together[i:i + 1], bridge.bridge_sample(z0[i:i + 1], zT[i:i + 1], noise[i:i + 1],
                                                                           t[i]))
    assert (together[0] - z0[0]).abs().max() < 0.02 * (1 + end)
    assert (together[2] - zT[2]).abs().max() < 0.02 * (1 + end)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.floats(0.2, 5), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_drift_and_noise_belong_to_signal_and_variance(kind, T, share, seed):
    """f and g², the pull and the score are the derivatives of what they are defined by."""
    schedule, t = BridgeSchedule(kind, T), number(share * T).requires_grad_()
    end = number(T)
    (f,) = torch.autograd.grad(schedule.alpha(t).log() + 0 * t, t)
    (growth,) = torch.autograd.grad(schedule.variance(t), t)
    torch.testing.assert_close(schedule.drift(t), f)
    torch.testing.assert_close(schedule.diffusion(t).detach(), growth - 2 * f * schedule.variance(t).detach())
    t = t.detach()
    z, z0, zT = normal(3, 5, seed=seed)
    z.requires_grad_()
    # p(z_T | z_t) of the diffusion without a bridge.
    ratio = schedule.alpha(end) / schedule.alpha(t)
    spread = (schedule.variance(end) - ratio**2 * schedule.variance(t)).sqrt()
    (h,) = torch.autograd.grad(torch.distributions.Normal(ratio * z, spread).log_prob(zT).sum(), z)
    # q(z_t | z_0, z_T) by Bayes: p(z_T | z_t) p(z_t | z_0), up to what does not depend on z_t.
    free = torch.distributions.Normal(schedule.alpha(t) * z0, schedule.variance(t).sqrt()).log_prob(z).sum()
    (forward,) = torch.autograd.grad(free, z)
    z = z.detach()
    torch.testing.assert_close(schedule.pull(z, zT, t), h, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(schedule.score(z, z0, zT, t), forward + h, rtol=1e-6, atol=1e-8)
    # M23 and M24 as they are printed.
    for stochastic, weight in ((True, 1.0), (False, 0.5)):
        slope = f * z - schedule.diffusion(t) * (weight * (forward + h) - h)
        torch.testing.assert_close(schedule.reverse_slope(z, z0, zT, t, stochastic=stochastic), slope, rtol=1e-5,
                                   atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_flow_of_a_known_clean_sample_keeps_its_noise(kind):
    schedule, t = BridgeSchedule(kind), number(0.37).requires_grad_()
    z0, zT, noise = normal(3)
    a, b, c = schedule.moments(t)
    (slope,) = torch.autograd.grad(a * zT + b * z0 + c * noise, t)
    z = (a * zT + b * z0 + c * noise).detach()
    torch.testing.assert_close(schedule.reverse_slope(z, z0, zT, t.detach(), stochastic=False), slope)


@pytest.mark.parametrize("kind", KINDS)
def test_simulation_with_the_pull_has_the_moments(kind):
    """Euler–Maruyama of M22, dz = (f z + g² h) dt + g dw, from z_0 ends in z_T, by way of the moments."""
    schedule, draws, n, steps = BridgeSchedule(kind), generator(1), 6000, 400
    z0, zT = 1.5, -0.8
    z = torch.full((n,), z0, dtype=torch.float64)
    times = torch.linspace(1e-6, 1, steps + 1, dtype=torch.float64)
    for i, (s, t) in enumerate(itertools.pairwise(times)):
        slope = schedule.drift(s) * z + schedule.diffusion(s) * schedule.pull(z, torch.full_like(z, zT), s)
        z = z + (t - s) * slope + ((t - s) * schedule.diffusion(s)).sqrt() * torch.randn(z.shape, generator=draws)
        if i + 1 in (steps // 4, steps // 2, 3 * steps // 4):
            a, b, c = schedule.moments(t)
            assert z.mean().item() == pytest.approx(float(a * zT + b * z0), abs=4 * float(c) / math.sqrt(n) + 0.005)
            assert z.std().item() == pytest.approx(float(c), rel=4 / math.sqrt(2 * n) + 0.01)
    assert (z - zT).abs().max() < 0.4  # the noise of the last of the steps, √(g²/400) at most
    assert (z - zT).abs().mean() < 0.1


# Preconditioning.

@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.floats(0.1, 5), st.floats(0.1, 5), st.floats(-0.99, 0.99), st.floats(1e-3, 1),
       st.floats(0.3, 3))
def test_input_and_target_have_unit_variance(kind, sigma_0, sigma_T, correlation, share, T):
    covariance = correlation * sigma_0 * sigma_T
    bridge = BridgeScheduler(schedule=kind, T=T, sigma_0=sigma_0, sigma_T=sigma_T, covariance=covariance)
    t = share * bridge.bridge.T
    # What a unit of z_0, z_T and noise becomes: all is linear in them.
    unit = torch.eye(3, dtype=torch.float64)
    z = bridge.bridge_sample(unit[0], unit[1], unit[2], t)
    joint = torch.tensor([[sigma_0**2, covariance, 0], [covariance, sigma_T**2, 0], [0, 0, 1]], dtype=torch.float64)
    x, target = bridge.scale_model_input(z, t), bridge.model_target(unit[0], t, z)
    assert float(x @ joint @ x) == pytest.approx(1, rel=1e-6)
    assert float(target @ joint @ target) == pytest.approx(1, rel=1e-6)
    # The skip is the best linear guess: nothing of z_t is left in the target.
    assert float(target @ joint @ x) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(bridge.predicted_clean(target, t, z), unit[0])
    # ‖D − z_0‖² with its weight is ‖F − F*‖².
    error = bridge.predicted_clean(target + 0.1, t, z) - unit[0]
    torch.testing.assert_close(bridge.loss_weight(t).sqrt() * error, torch.full_like(error, 0.1))


def test_measured_statistics_make_unit_power_of_any_latents():
    z0 = normal(4000, 1, 2, 2).exp()  # neither Gaussian nor of mean zero
    zT = 0.6 * z0 + 0.3 + normal(4000, 1, 2, 2, seed=1)
    statistics = latent_statistics(z0, zT)
    bridge = BridgeScheduler(**statistics)
    for t in (0.05, 0.5, 1.0):
        z = bridge.bridge_sample(z0, zT, normal(4000, 1, 2, 2, seed=2), t)
        assert bridge.scale_model_input(z, t).square().mean().item() == pytest.approx(1, rel=0.05)
        assert bridge.model_target(z0, t, z).square().mean().item() == pytest.approx(1, rel=0.05)


def test_the_network_is_told_the_logarithm_of_the_time():
    t = torch.tensor([1e-4, 0.5, 1.0])
    told = BridgeScheduler(noise_scale=1000.0).noise_condition(t)
    assert told.dtype == torch.float32
    torch.testing.assert_close(told, 250 * t.log())
    assert BridgeScheduler().noise_condition(t[1]).shape == ()


# Samplers, driven by the best denoiser of jointly Gaussian ends.

MEAN_0, MEAN_T = number([0.7, -0.4]), number([-0.5, 0.9])
_ROOT = number([[1.1, 0, 0, 0], [0.3, 0.6, 0, 0], [0.7, -0.2, 0.9, 0], [0.1, 0.5, -0.4, 0.5]])
JOINT = _ROOT @ _ROOT.T  # of (z_0, z_T), two numbers each
GAIN = JOINT[:2, 2:] @ torch.linalg.inv(JOINT[2:, 2:])
LEFT = JOINT[:2, :2] - GAIN @ JOINT[2:, :2]  # covariance of z_0 given z_T


def regression(source):
    return MEAN_0 + (source - MEAN_T) @ GAIN.T


def best_denoiser(bridge, t, z, source):
    """Return E[z_0 | z_t, z_T]."""
    a, b, c = bridge.bridge.moments(number(float(t)))
    prior = regression(source)
    gain = b * LEFT @ torch.linalg.inv(b**2 * LEFT + c**2 * torch.eye(2) + 1e-300 * torch.eye(2)) if c > 0 else 0 * LEFT
    return prior + (z - a * source - b * prior) @ gain.T


def sampled(bridge, steps, source, seed=0):
    """Drive a sampler as a pipeline does, with a network that is the best denoiser."""
    bridge.set_timesteps(steps)
    draws, z = generator(seed), source
    for t in bridge.timesteps:
        x = bridge.scale_model_input(z, t)
        z_seen = x / bridge.scale_model_input(torch.ones_like(x), t)  # the network sees the scaled input alone
        out = bridge.model_target(best_denoiser(bridge, t, z_seen, source), t, z_seen)
        z = bridge.step(out, t, z, source, generator=draws).prev_sample
    return z


def sources(n, seed=5):
    return MEAN_T + normal(n, 2, seed=seed) @ torch.linalg.cholesky(JOINT[2:, 2:]).T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "options"), [
    (150, {"sampler": "dbim1", "eta": 0.0}), (150, {"sampler": "dbim1", "eta": 0.4}),
    (200, {"sampler": "dbim1", "eta": 1.0}), (60, {"sampler": "dbim2", "eta": 0.0}),
    (80, {"sampler": "dbim2", "eta": 1.0}), (60, {"sampler": "heun", "churn": 0.33}),
    (80, {"sampler": "heun", "churn": 0.33, "spacing": "karras"})], ids=str)
def test_samples_have_the_law_of_the_data(kind, steps, options):
    n = 8000
    bridge = BridgeScheduler(schedule=kind, sigma_0=1.2, sigma_T=1.4, covariance=0.6, **options)
    source = sources(n)
    residual = sampled(bridge, steps, source) - regression(source)
    deviation = LEFT.diagonal().sqrt()
    # Within the Monte-Carlo error, and 2 % for what is left of the steps.
    assert (residual.mean(0).abs() / deviation).max() < 4.5 / math.sqrt(n) + 0.02
    # Correlation of the rest with the source, all of which the regression has taken.
    rest = (residual.T @ (source - MEAN_T) / n) / torch.outer(deviation, JOINT[2:, 2:].diagonal().sqrt())
    assert rest.abs().max() < 4.5 / math.sqrt(n) + 0.02
    excess = (torch.cov(residual.T) - LEFT) / torch.outer(deviation, deviation)
    assert excess.abs().max() < 4.5 * math.sqrt(2 / n) + (0.08 if options.get("spacing") == "karras" else 0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_is_the_mean(kind):
    source = sources(50)
    for sampler in ("dbim1", "dbim2"):
        once = sampled(BridgeScheduler(schedule=kind, sampler=sampler), 1, source)
        torch.testing.assert_close(once, regression(source))


@pytest.mark.parametrize("kind", KINDS)
def test_without_eta_the_booting_noise_decides_and_the_second_order_falls_faster(kind):
    """For Gaussian ends the flow is z_0 = mean + √covariance·noise: noise keeps its place in the law."""
    source = sources(100)
    noise = torch.randn(source.shape, generator=generator(3)).double()
    values, vectors = torch.linalg.eigh(LEFT)
    exact = regression(source) + noise @ (vectors @ values.sqrt().diag() @ vectors.T)
    first, second = ([(sampled(BridgeScheduler(schedule=kind, sampler=sampler), n, source, seed=3) - exact).square()
                      .mean().sqrt().item() for n in (15, 30, 60)] for sampler in ("dbim1", "dbim2"))
    for coarse, fine in itertools.pairwise(first):
        assert 1.7 < coarse / fine < 2.4
    for coarse, fine in itertools.pairwise(second):
        assert coarse / fine > 3.3
    assert second[0] < first[0] / 2
    assert second[2] < 2e-3


@pytest.mark.parametrize("options", [{"sampler": "dbim1"}, {"sampler": "dbim2", "eta": 0.5}, {"sampler": "heun"}],
                         ids=str)
def test_seeds_decide(options):
    bridge, source = BridgeScheduler(**options), sources(6)
    once = sampled(bridge, 8, source, seed=1)
    assert torch.equal(once, sampled(bridge, 8, source, seed=1))
    assert (once - sampled(bridge, 8, source, seed=2)).abs().min() > 1e-6
    # A generator for each sample: it does not depend on its neighbours.
    draws = [generator(i) for i in range(6)]
    alone = [generator(i) for i in range(6)]
    bridge.set_timesteps(4)
    z, parts = source, list(source.split(1))
    for i in range(6):
        for t in bridge.timesteps:  # and the first time begins anew, without set_timesteps
            parts[i] = bridge.step(0.3 * parts[i], t, parts[i], source[i:i + 1], generator=[alone[i]]).prev_sample
    for t in bridge.timesteps:
        z = bridge.step(0.3 * z, t, z, source, generator=draws).prev_sample
    torch.testing.assert_close(z, torch.cat(parts), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", ["dbim2", "heun"])
def test_an_abandoned_batch_leaves_no_trace(sampler):
    bridge, source = BridgeScheduler(sampler=sampler), sources(4)
    bridge.set_timesteps(5)

    def drive(times):
        z, draws = source, generator()
        for t in times:
            z = bridge.step(0.3 * z, t, z, source, generator=draws).prev_sample
        return z

    whole = drive(bridge.timesteps)
    drive(bridge.timesteps[:3])
    assert torch.equal(drive(bridge.timesteps), whole)


def test_noise_is_drawn_in_the_first_step_alone_without_eta():
    bridge, source = BridgeScheduler(sampler="dbim2"), sources(4)
    bridge.set_timesteps(6)
    z, states = source, []
    draws = generator()
    for t in bridge.timesteps:
        z = bridge.step(0.3 * z, t, z, source, generator=draws).prev_sample
        states.append(draws.get_state().clone())
    assert not torch.equal(states[0], generator().get_state())
    assert all(torch.equal(state, states[0]) for state in states)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(["dbim1", "dbim2"]), st.floats(0, 1), st.integers(2, 12))
def test_a_step_keeps_the_bridge(kind, sampler, eta, steps):
    """Of known ends, z_s becomes z_t with the right share of each, of the noise in it and of new noise."""
    bridge = BridgeScheduler(schedule=kind, sampler=sampler, eta=eta)
    bridge.set_timesteps(steps)
    # Shares of z_0, z_T and noise; two samples that differ by the new noise alone.
    unit = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    z0, zT, noise = unit[:, 0], unit[:, 1], unit[:, 2]
    drawn = torch.randn((2, 3), generator=generator()).double()
    for i, (s, t) in enumerate(itertools.pairwise([*bridge.timesteps.tolist(), 0.0])):
        z = bridge.bridge_sample(z0, zT, noise, s)
        moved = bridge.step(bridge.model_target(z0, s, z), s, z, zT, generator=generator()).prev_sample
        deviation = ((moved[0] - moved[1]) / (drawn[0] - drawn[1])).mean().item()
        shares, still = (moved - deviation * drawn)[0], bridge.bridge.moments(number(t))
        assert shares[0].item() == pytest.approx(float(still.b), abs=1e-7)
        assert shares[1].item() == pytest.approx(float(still.a), abs=1e-7)
        assert shares[2].item()**2 + deviation**2 == pytest.approx(float(still.c)**2, abs=1e-7)
        if i == 0:
            assert deviation == pytest.approx(float(still.c), abs=1e-9)
        else:
            # The ancestral deviation, of z_t between z_0 and z_s, whatever z_T: precisions add up.
            alpha_s, alpha_t = (bridge.bridge.alpha(number(x)) for x in (s, t))
            var_s, var_t = (bridge.bridge.variance(number(x)) for x in (s, t))
            between = var_s - (alpha_s / alpha_t)**2 * var_t
            ancestral = (var_t * between / (between + (alpha_s / alpha_t)**2 * var_t)).sqrt()
            assert deviation == pytest.approx(eta * float(ancestral), abs=1e-6)


# Times and calls.

@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["dbim1", "dbim2", "heun"]), st.sampled_from(["cosine", "karras"]), st.integers(1, 1000),
       st.sampled_from([0.0, 0.33, 0.9]), st.sampled_from([1.0, 0.7, 80.0]))
def test_times_go_down_within_what_was_trained(sampler, spacing, steps, churn, T):
    bridge = BridgeScheduler(sampler=sampler, spacing=spacing, churn=churn, T=T)
    bridge.set_timesteps(steps)
    t, end = bridge.timesteps, bridge.bridge.T
    assert t.dtype == torch.float32
    heun = sampler == "heun"
    assert len(t) == ((3 if churn else 2) * steps + 1 if heun else steps)
    distinct = torch.unique_consecutive(t.double())
    assert (distinct.diff() < 0).all()
    if heun:
        assert len(distinct) == (2 if churn else 1) * steps + 1
    assert distinct[0].item() == pytest.approx(end * (1 - 1e-4) if heun else end, rel=1e-7)
    assert distinct[-1].item() >= 1e-4 * end * (1 - 1e-5)


@pytest.mark.parametrize("options", [{"sampler": "dbim2"}, {"sampler": "heun"}], ids=str)
def test_types_are_kept_and_half_is_computed_in_single(options):
    bridge = BridgeScheduler(**options)
    bridge.set_timesteps(5)
    results = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        source = normal(*SHAPE).to(dtype)
        z, draws = source, generator()
        for t in bridge.timesteps:
            out = bridge.step(0.2 * z, t, z, source, generator=draws)
            z = out.prev_sample
            assert z.dtype == out.pred_original_sample.dtype == dtype
        assert bridge.scale_model_input(source, t).dtype == dtype
        assert torch.equal(bridge.step(0.2 * z, bridge.timesteps[0], z, source, generator(), return_dict=False)[0],
                           bridge.step(0.2 * z, bridge.timesteps[0], z, source, generator()).prev_sample)
        results[dtype] = z.double()
    assert (results[torch.float32] - results[torch.float64]).abs().max() < 1e-4
    assert (results[torch.bfloat16] - results[torch.float64]).abs().max() < 0.3


class BridgeAlone(DiffusionPipeline):
    def __init__(self, scheduler):
        super().__init__()
        self.register_modules(scheduler=scheduler)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    bridge = BridgeScheduler(schedule="ve", T=3.0, sigma_0=0.8, sigma_T=1.3, covariance=-0.4, sampler="heun", churn=0.2)
    bridge.save_pretrained(tmp_path / "alone")
    BridgeAlone(bridge).save_pretrained(tmp_path / "pipeline")
    source = sources(3)
    for loaded in (BridgeScheduler.from_pretrained(tmp_path / "alone"),
                   BridgeAlone.from_pretrained(tmp_path / "pipeline").scheduler):
        assert isinstance(loaded, BridgeScheduler)
        assert torch.equal(sampled(loaded, 5, source), sampled(bridge, 5, source))
    # Another sampler for the same network.
    other = BridgeScheduler.from_config(bridge.config, sampler="dbim1")
    assert other.config.sampler == "dbim1"
    assert torch.equal(other.loss_weight(0.5), bridge.loss_weight(0.5))


# What is refused.

@pytest.mark.parametrize(("options", "words"), [
    ({"schedule": "cosine"}, "schedule must be one of vp, ve, but was 'cosine'"),
    ({"sampler": "ddim"}, "sampler must be one of dbim1, dbim2, heun, but was 'ddim'"),
    ({"spacing": "even"}, "spacing must be one of cosine, karras"),
    ({"eta": 1.2}, "eta must be a number from 0"), ({"eta": float("nan")}, "eta must be"),
    ({"churn": 1.0}, "churn must be a number from 0 to below 1"), ({"churn": -0.1}, "churn must be"),
    ({"rho": 0.5}, "rho must be a number of at least 1"), ({"T": 0}, "T must be"), ({"beta_min": -1}, "beta_min must"),
    ({"t_min": 0.3}, "t_min must be a share of T"), ({"epsilon": 0}, "epsilon must be"),
    ({"sigma_0": 0}, "sigma_0 must be"), ({"noise_scale": "much"}, "noise_scale must be"),
    ({"sigma_0": 2, "sigma_T": 0.5, "covariance": 1.0}, r"covariance must lie below sigma_0·sigma_T = 1 in size"),
    ({"covariance": float("nan")}, "covariance must lie below"), ({"covariance": "high"}, "covariance must")])
def test_impossible_settings_are_named(options, words):
    with pytest.raises(InputError, match=words):
        BridgeScheduler(**options)


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, True, None, "10"])
def test_impossible_steps_are_named(steps):
    with pytest.raises(InputError, match="num_inference_steps must be an integer"):
        BridgeScheduler().set_timesteps(steps)


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan"), torch.tensor([0.5, 2.0, 0.1]), torch.ones(3, 1), None, "late"])
def test_impossible_times_are_named(t):
    bridge, z = BridgeScheduler(), normal(*SHAPE)
    with pytest.raises(InputError, match="t must be one number, or one for each sample, from"):
        bridge.bridge_sample(z, z, z, t)


def test_calls_that_cannot_be_are_named():
    bridge, z = BridgeScheduler(sampler="heun"), normal(*SHAPE)
    with pytest.raises(InputError, match="step must come after set_timesteps"):
        bridge.step(z, 1.0, z, z)
    bridge.set_timesteps(3)
    with pytest.raises(InputError, match="t must be entry 0 of timesteps"):
        bridge.step(z, bridge.timesteps[2], z, z)
    with pytest.raises(InputError, match="t must be entry 0 of timesteps"):
        bridge.step(z, bridge.timesteps[:3], z, z)
    bridge.step(z, bridge.timesteps[0], z, z)
    with pytest.raises(InputError, match="t must be entry 1 of timesteps"):
        bridge.step(z, bridge.timesteps[2], z, z)
    with pytest.raises(InputError, match="source must have the shape of model_output"):
        bridge.step(z, bridge.timesteps[1], z, z[:1])
    with pytest.raises(InputError, match=r"generator must be one, or a list of 3.* had 2"):
        bridge.step(z, bridge.timesteps[0], z, z, generator=[generator(), generator()])
    with pytest.raises(InputError, match="zT must have the shape of z0"):
        bridge.bridge_sample(z, z[..., :2], z, 0.5)
    with pytest.raises(InputError, match="one number or 3, one for each sample, but were 2"):
        bridge.bridge_sample(z, z, z, torch.tensor([0.1, 0.2]))
    for door in (bridge.noise_condition, bridge.loss_weight, lambda t: bridge.model_target(z, t, z)):
        with pytest.raises(InputError, match="from above 0 to 1, but was 0"):
            door(0.0)
    with pytest.raises(InputError, match="zT must have the shape of z0"):
        latent_statistics(z, z[:1])
    with pytest.raises(InputError, match="covariance must lie below"):
        latent_statistics(z, 2 * z)
