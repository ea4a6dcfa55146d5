"""Samplers: their coefficients are the formulas', and where the best denoiser is known their samples have its law."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allpet_gen.objectives import noise_schedule
from allpet_gen.samplers import (
    SinogramDDIMScheduler,
    make_sampler,
    predicted_clean,
    predicted_noise,
    trailing_times,
    velocity_of,
)
from allpet_physics.errors import InputError

SCHEDULE = SinogramDDIMScheduler.from_config(noise_schedule(
    {"steps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
     "zero_terminal_snr": True}).config)
ALPHA_BAR = SCHEDULE.alphas_cumprod.double()


def step_coefficients(sampler, t, dtype=torch.float64, **options):
    """Return what a step makes of the sample and of the velocity, and the standard deviation of its noise."""
    shape = (1, 1, 64, 64)
    zero, one = torch.zeros(shape, dtype=dtype), torch.ones(shape, dtype=dtype)

    def step(velocity, sample):
        return sampler.step(velocity, t, sample, generator=torch.Generator().manual_seed(0), **options).prev_sample

    noise = step(zero, zero)
    return ((step(zero, one) - noise).mean().item(), (step(one, zero) - noise).mean().item(), noise)


@pytest.mark.parametrize("steps", [1, 2, 7, 61, 72, 103, 250, 999, 1000])
def test_any_number_of_steps_is_taken(steps):
    for name in ("ddim", "ddpm"):
        times = make_sampler(name, SCHEDULE, steps).timesteps.numpy()
        assert len(times) == steps
        assert times[0] == 999
        assert times[-1] >= 0
        assert (np.diff(times) < 0).all()
        # Evenly spread: from each to the next is the same to rounding.
        assert abs(np.diff(np.append(times, -1)) + 1000 / steps).max() <= 1


def test_all_numbers_of_steps_have_their_times():
    for n in range(1, 1001):
        times = trailing_times(n, 1000)
        assert len(times) == n
        assert times[-1] >= 0
        assert (times[1:] < times[:-1]).all()


@pytest.mark.parametrize("steps", [50, 72, 61])
def test_a_full_eta_is_ddpm_step_by_step(steps):
    ddim, ddpm = (make_sampler(name, SCHEDULE, steps) for name in ("ddim", "ddpm"))
    for i in (0, 1, steps // 2, steps - 2, steps - 1):
        t = ddim.timesteps[i]
        # In single precision both draw the same numbers.
        mine, theirs = (step_coefficients(s, t, torch.float32, **o) for s, o in ((ddim, {"eta": 1.0}), (ddpm, {})))
        # diffusers' variance is single precision, and 1 - ᾱ loses digits where ᾱ is near 1.
        np.testing.assert_allclose(mine[:2], theirs[:2], rtol=2e-4, atol=2e-5)
        if i < steps - 1:
            torch.testing.assert_close(mine[2], theirs[2], rtol=2e-4, atol=1e-6)
        else:
            assert mine[2].abs().max() == 0
            assert theirs[2].abs().max() < 1e-8  # clamped, not zero


@pytest.mark.parametrize("steps", [10, 72, 1000])
def test_the_noise_of_ddpm_has_the_posterior_variance(steps):
    sampler = make_sampler("ddim", SCHEDULE, steps)
    noise = torch.randn((1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    for t, after in zip(sampler.timesteps[:-1:5], sampler.timesteps[1::5], strict=False):
        now, then = ALPHA_BAR[t], ALPHA_BAR[after]
        posterior = (1 - then) / (1 - now) * (1 - now / then)  # (1 - ᾱ')/(1 - ᾱ) β
        made = step_coefficients(sampler, t, eta=1.0)[2]
        torch.testing.assert_close(made, posterior.sqrt() * noise.double(), rtol=1e-6, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 1000), st.floats(0, 1), st.integers(0, 2**31))
def test_a_step_keeps_the_marginal_of_the_next_time(steps, eta, seed):
    """Whatever η, z_t of known clean latent and noise becomes z_t' with the right share of both, and of new noise."""
    sampler = make_sampler("ddim", SCHEDULE, steps)
    i = seed % steps
    t, then = sampler.timesteps[i], ALPHA_BAR[sampler.timesteps[i + 1]] if i + 1 < steps else torch.tensor(1.0)
    of_sample, of_velocity, noise = step_coefficients(sampler, t, eta=eta)
    # z = √ᾱ x + √(1-ᾱ) e and v = √ᾱ e - √(1-ᾱ) x.
    a, b = ALPHA_BAR[t].sqrt(), (1 - ALPHA_BAR[t]).sqrt()
    of_clean, of_noise = of_sample * a - of_velocity * b, of_sample * b + of_velocity * a
    assert of_clean == pytest.approx(then.sqrt().item(), abs=1e-9)
    drawn = torch.randn((1, 1, 64, 64), generator=torch.Generator().manual_seed(0)).double()
    sigma = (noise * drawn).sum() / drawn.square().sum()
    assert float(of_noise**2 + sigma**2) == pytest.approx(float(1 - then), abs=1e-7)
    assert sigma >= 0
    assert of_noise > -1e-9


def test_velocity_clean_and_noise_are_one_and_the_same():
    generator = torch.Generator().manual_seed(1)
    z, v = torch.randn((2, 3, 4, 4), generator=generator).double(), torch.randn((2, 3, 4, 4), generator=generator)
    for t in (0, 13, 500, 999):
        clean, noise = predicted_clean(SCHEDULE, v, t, z), predicted_noise(SCHEDULE, v, t, z)
        torch.testing.assert_close(ALPHA_BAR[t].sqrt() * clean + (1 - ALPHA_BAR[t]).sqrt() * noise, z)
        torch.testing.assert_close(velocity_of(SCHEDULE, clean, t, z), v.double(), rtol=1e-6, atol=1e-6)


MEAN, DEVIATION = 1.3, 0.4


def sampled(name, steps, n=40_000, seed=0, **options):
    """Return samples of N(MEAN, DEVIATION²) by a sampler with the best possible denoiser, which is known for it."""
    sampler = make_sampler(name, SCHEDULE, steps)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((n, 1, 1, 1), generator=generator).double()
    for t in sampler.timesteps:
        a = ALPHA_BAR[t]
        # E[x | z] of a Gaussian x.
        clean = MEAN + DEVIATION**2 * a.sqrt() / (a * DEVIATION**2 + 1 - a) * (z - a.sqrt() * MEAN)
        z = sampler.step(velocity_of(SCHEDULE, clean, t, z), t, z, generator=generator, **options).prev_sample.double()
    return z.flatten()


@pytest.mark.parametrize(("name", "options"), [("ddim", {"eta": 0.0}), ("ddim", {"eta": 0.5}), ("ddim", {"eta": 1.0}),
                                               ("ddpm", {})])
def test_one_step_is_the_mean_and_many_are_the_distribution(name, options):
    once = sampled(name, 1, **options)
    # From pure noise the best guess is the mean, whatever the noise; the last step adds none.
    assert (once - MEAN).abs().max() < 1e-5
    many = sampled(name, 1000 if name == "ddpm" else 250, n=20_000, **options)
    error = DEVIATION / np.sqrt(len(many))
    assert many.mean().item() == pytest.approx(MEAN, abs=5 * error)
    # DDIM of 250 steps leaves a bias of the deviation that falls as one over the steps.
    assert many.std().item() == pytest.approx(DEVIATION, abs=5 * error / np.sqrt(2) + 0.02 * DEVIATION)


def test_more_steps_come_nearer():
    off = [abs(sampled("ddim", steps, n=4000, eta=0.0).std().item() - DEVIATION) for steps in (5, 25, 125)]
    assert off[0] > 2 * off[1]
    assert off[1] > off[2]


def test_noise_is_drawn_only_where_there_is_some():
    def last(eta, seed):
        sampler, z = make_sampler("ddim", SCHEDULE, 7), torch.ones((1, 1, 2, 2))
        generator = torch.Generator().manual_seed(seed)
        for t in sampler.timesteps:
            z = sampler.step(0.5 * z, t, z, eta=eta, generator=generator).prev_sample
        return z

    assert torch.equal(last(0.0, 1), last(0.0, 2))
    assert torch.equal(last(0.7, 1), last(0.7, 1))
    assert not torch.equal(last(0.7, 1), last(0.7, 2))


@pytest.mark.parametrize("steps", [0, -3, 1001, 2.5, True, None, "50"])
def test_impossible_steps_are_named(steps):
    with pytest.raises(InputError, match="steps must be an integer"):
        make_sampler("ddim", SCHEDULE, steps)


def test_unknown_samplers_and_eta_beyond_one_are_refused():
    with pytest.raises(InputError, match="one of ddim, ddpm, but was 'euler'"):
        make_sampler("euler", SCHEDULE, 10)
    sampler, z = make_sampler("ddim", SCHEDULE, 10), torch.zeros((1, 1, 2, 2))
    for eta in (1.01, -0.1, float("nan")):
        with pytest.raises(InputError, match="eta must be"):
            sampler.step(z, sampler.timesteps[0], z, eta=eta)
