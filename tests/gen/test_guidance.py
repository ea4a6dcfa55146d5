"""Guides: their steps are the gradients they claim, vanish where they must, and move samples the right way."""

from itertools import pairwise

import numba
import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from allpet_gen.guidance import Guidance, PoissonGuidance, RangeGuidance, guidance_step
from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.consistency import helgason_ludwig
from allpet_physics.counts import scale_to_counts
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.operators import stack
from allpet_physics.radon import RadonOperator
from allpet_physics.simulation import demo_torso

TINY = ParallelGeometry(9, 11, 2.0, (7, 7), 2.0)
GEOMETRY = ParallelGeometry(48, 64, 10.4, (64, 64), 10.4)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small projections wait for threads longer than they compute."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def random_counts(shape, seed=0):
    return 0.5 + 8 * torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def torso():
    """Expected counts of a torso without attenuation, (1, 48, 64): in the range to the discretisation."""
    line_integrals = RadonOperator(GEOMETRY)(demo_torso().image(GEOMETRY).astype(np.float64))
    return torch.from_numpy(scale_to_counts(line_integrals, 1e6))[None]


def identity(x0):
    """A decoder whose latent, (1, 1, angle, bin), is the counts."""
    return x0[:, 0]


def descend(guide, counts, n_steps):
    """Follow a guide's steps from counts on."""
    x0 = counts[:, None].clone()
    for _ in range(n_steps):
        x0 += guide(x0, identity)
    return x0[:, 0]


def guides():
    y = torch.poisson(random_counts((2, 9, 11), 1))
    mask = np.zeros((9, 11), bool)
    mask[::3] = True
    half = RadonOperator(TINY).subset(range(0, 9, 2))
    return {
        "moments": RangeGuidance(TINY, 0.7),
        "moments beyond a target": RangeGuidance(TINY, 0.7, orders=(0, 2), target=(0.05, 0.02), tolerance=0.3),
        "moments of corrected counts": RangeGuidance(TINY, 2.0, multiplicative=random_counts((9, 11), 2),
                                                     additive=np.full((2, 1, 11), 0.25)),
        "poisson": PoissonGuidance(y, 0.7),
        "poisson, near": PoissonGuidance(random_counts((9, 11)) + 0.3, 1.0),
        "poisson, masked": PoissonGuidance(y[0], 0.7, mask=mask, dose_factor=3.0, additive=np.full(11, 0.1)),
        "poisson of a linear model": PoissonGuidance(np.full((7, 7), 30.0), 0.7, model=RadonOperator(TINY).T),
        "poisson of a callable": PoissonGuidance(np.full((5, 11), 4.0), 0.7, model=lambda s: s[:, :5] ** 1.5),
        "poisson of a stack": PoissonGuidance(y[0, :7, :7], 0.7, model=stack([half]) .T),
    }


@pytest.mark.parametrize("name", list(guides()))
def test_a_step_is_minus_the_strength_times_the_gradient(name):
    guide = guides()[name]
    shape = (2, 5, 11) if name == "poisson of a stack" else (2, 9, 11)
    expected = random_counts(shape).requires_grad_()
    assert gradcheck(guide.loss, expected, fast_mode=True)
    value = guide.loss(expected)
    assert value.shape == (2,)
    assert (value > 0).all()
    # Through a curved decoder, along a random direction, by central differences.
    weight = torch.randn(shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x0 = torch.randn((2, 1, *shape[1:]), dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def decode(x0):
        return expected.detach() * torch.exp(0.3 * weight * x0[:, 0])

    step = guide(x0, decode)
    assert step.shape == x0.shape
    assert not step.requires_grad
    direction, small = torch.randn_like(x0), 1e-6
    up, down = (guide.loss(decode(x0 + sign * small * direction)).sum() for sign in (1, -1))
    torch.testing.assert_close((step * direction).sum(), -guide.strength * (up - down) / (2 * small),
                               rtol=1e-5, atol=1e-8)


def test_the_penalty_is_square_near_and_linear_far():
    class Given(Guidance):
        strength = 1.0

        def squared_residual(self, expected):
            return expected[:, 0, 0] ** 2

    r = torch.tensor([0, 0.5, 1, 1 + 1e-9, 3], dtype=torch.float64)[:, None, None]
    np.testing.assert_allclose(Given().loss(r).numpy(), [0, 0.125, 0.5, 0.5, 2.5], atol=1e-8)
    np.testing.assert_allclose(Given()(r[:, None], identity).flatten().numpy(), [0, -0.5, -1, -1, -1], atol=1e-8)


def test_samples_do_not_mix():
    expected = random_counts((2, 9, 11))
    guide = RangeGuidance(TINY, 1.0, measure="projection")
    both = guide(expected[:, None], identity)
    torch.testing.assert_close(both[1:], guide(expected[1:, None], identity))


def test_the_residual_is_that_of_the_consistency_check(torso):
    counts = torch.cat([torso, torch.poisson(torso, generator=torch.Generator().manual_seed(0)), torso * 7])
    guide = RangeGuidance(GEOMETRY, 1.0, orders=(0, 1, 2, 5))
    wanted = helgason_ludwig(counts.numpy(), GEOMETRY, orders=(0, 1, 2, 5)).residual
    np.testing.assert_allclose(guide.residual(counts).numpy(), wanted, rtol=1e-6, atol=1e-12)
    assert guide.residual(torch.zeros_like(torso)).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("measure", ["moments", "projection"])
def test_nothing_is_pulled_in_the_range_and_a_disturbed_angle_is_pulled_back(measure, torso):
    guide = RangeGuidance(GEOMETRY, 1.0, measure=measure, n_iterations=30)
    scaled, shifted = torso.clone(), torso.clone()
    scaled[:, 20] *= 1.3
    shifted[:, 30] = shifted[:, 30].roll(4, dims=-1)
    still = guide(torso[:, None], identity)
    for disturbed, angle in ((scaled, 20), (shifted, 30)):
        pull = guide(disturbed[:, None], identity)[:, 0]
        assert still.norm() < 0.2 * pull.norm()
        assert guide.loss(torso) < 0.05 * guide.loss(disturbed)
        assert pull[0].norm(dim=-1).argmax() == angle
        assert (pull[0, angle] * (torso - disturbed)[0, angle]).sum() > 0
        step = 1e-3 * disturbed.norm() / pull.norm()
        assert guide.loss(disturbed + step * pull) < guide.loss(disturbed)
    change = guide(scaled[:, None], identity)[0, 0].sum(dim=-1)
    assert change.argmin() == 20
    assert abs(np.delete(change.numpy(), 20)).max() < 0.2 * -change[20]


def test_a_scaled_angle_comes_back_to_its_counts(torso):
    disturbed = torso.clone()
    disturbed[:, 20] *= 1.3
    pull = RangeGuidance(GEOMETRY, 1.0, orders=(0,), tolerance=0.001)(disturbed[:, None], identity)
    strength = 0.01 * (disturbed - torso).norm() / pull.norm()  # far away each step is as long as the first
    guide = RangeGuidance(GEOMETRY, float(strength), orders=(0,), tolerance=0.001)
    total = torso[0].sum(dim=-1)
    back = descend(guide, disturbed, 150)
    assert guide.residual(back) < 0.05 * guide.residual(disturbed)
    off, off_before = abs(back[0].sum(dim=-1) - total), abs(disturbed[0].sum(dim=-1) - total)
    assert off[20] < 0.2 * off_before[20]


def test_a_target_stops_the_pull_and_factors_bring_prompts_into_the_range(torso):
    attenuation = AcquisitionModel(RadonOperator(GEOMETRY)).expected(demo_torso("attenuation").image(GEOMETRY))
    m, b = np.exp(-attenuation.astype(np.float64)), np.full(GEOMETRY.sinogram_shape, 3.0)
    prompts = torso * torch.from_numpy(m) + 3
    naive = RangeGuidance(GEOMETRY, 1.0)
    level = naive.residual(prompts)[0].numpy()
    assert level[0] > 0.05  # attenuated prompts are not in the range
    assert naive(prompts[:, None], identity).abs().max() > 0
    contented = RangeGuidance(GEOMETRY, 1.0, target=1.001 * level)
    assert contented(prompts[:, None], identity).abs().max() == 0
    corrected = RangeGuidance(GEOMETRY, 1.0, multiplicative=m, additive=b)
    np.testing.assert_allclose(corrected.residual(prompts).numpy(), naive.residual(torso).numpy(), atol=1e-6)


def test_the_distance_to_the_range_is_that_of_a_projection():
    """Converged, the residual is orthogonal to the range and its gradient is that of the distance itself."""
    guide = RangeGuidance(TINY, 1.0, measure="projection", n_iterations=90)
    matrix = RadonOperator(TINY)(np.eye(49).reshape(-1, 7, 7)).reshape(49, -1).T
    outside = np.eye(99) - matrix @ np.linalg.pinv(matrix)
    counts = random_counts((2, 9, 11))
    flat = counts.numpy().reshape(2, -1)
    exact = np.linalg.norm(flat @ outside, axis=1) / np.linalg.norm(flat, axis=1)
    np.testing.assert_allclose(guide.residual(counts)[:, 0].numpy(), exact, rtol=1e-6)
    assert gradcheck(guide.loss, counts.requires_grad_(), atol=1e-4, fast_mode=True)


def test_poisson_guidance_rests_at_the_measured_expectation():
    mean = random_counts((2, 9, 11))
    low = PoissonGuidance(mean / 20 + 1.5, 1.0, dose_factor=20, additive=1.5)
    torch.testing.assert_close(low(mean[:, None], identity), torch.zeros(2, 1, 9, 11, dtype=torch.float64),
                               rtol=0, atol=1e-12)
    assert low(2 * mean[:, None], identity).max() < 0
    assert low(0.5 * mean[:, None], identity).min() > 0
    mask = np.zeros((9, 11), bool)
    mask[4] = True
    step = PoissonGuidance(np.where(mask, 50, np.nan), 1.0, mask=mask)(mean[:, None], identity)
    assert (step[:, 0, 4] > 0).all()
    assert step[:, 0].abs().sum(dim=(1, 2)).equal(step[:, 0, 4].abs().sum(dim=1))


def test_the_deviance_is_the_likelihood_of_the_acquisition_model_and_one_for_noise():
    projector = RadonOperator(TINY)
    model = AcquisitionModel(projector)
    rng = np.random.default_rng(0)
    images = rng.uniform(10, 20, (2, 7, 7))
    counts = rng.poisson(model.expected(images[0])).astype(float)
    guide = PoissonGuidance(counts, 1.0)
    squared = guide.squared_residual(torch.from_numpy(model.expected(images)))
    likelihood = model.log_likelihood(images, counts)
    np.testing.assert_allclose((squared[1] - squared[0]) * counts.size / 2, likelihood[0] - likelihood[1], rtol=1e-9)
    mean = torch.full((1, 100, 100), 50.0)
    noisy = PoissonGuidance(torch.poisson(mean, generator=torch.Generator().manual_seed(0))[0], 1.0)
    # The mean deviance of 10,000 bins has the standard deviation sqrt(2/10,000).
    assert noisy.squared_residual(mean).item() == pytest.approx(1, abs=0.06)


def test_counts_without_an_expectation_pull_with_a_finite_force():
    guide = PoissonGuidance(np.ones((2, 3)), 1.0)
    step = guide(torch.zeros(1, 1, 2, 3, dtype=torch.float64), identity)
    assert torch.isfinite(step).all()
    assert (step > 0).all()


def sample(guides, projection, n_steps=25, seed=0):
    """DDIM on the exact denoiser of standard normal latents, E[z₀ | z_t] = √ᾱ z_t, with guided clean latents."""
    z = torch.randn((16, 4, 3, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    alpha = torch.linspace(0.001, 1, n_steps + 1, dtype=torch.float64)

    def decode(x0):
        return 20 * torch.exp(0.2 * x0.flatten(1) @ projection).reshape(-1, 8, 9)

    for now, then in pairwise(alpha):
        x0 = now.sqrt() * z
        noise = (z - now.sqrt() * x0) / (1 - now).sqrt()
        z = then.sqrt() * (x0 + guidance_step(guides, x0, decode)) + (1 - then).sqrt() * noise
    return z, decode


def test_guided_sampling_of_a_toy_model_explains_the_counts():
    generator = torch.Generator().manual_seed(7)
    projection = torch.randn((36, 72), dtype=torch.float64, generator=generator) / 3
    truth = torch.randn((1, 4, 3, 3), dtype=torch.float64, generator=generator)
    _, decode = sample([], projection)
    counts = torch.poisson(decode(truth), generator=generator)
    mask = np.zeros((8, 9), bool)
    mask[::2] = True
    misfit = []
    for strength in (0.0, 0.2, 1.0):
        guide = PoissonGuidance(counts, strength, mask=mask)
        z, _ = sample([guide], projection)
        misfit.append((guide.squared_residual(decode(z)).mean(), (decode(z) - decode(truth))[:, 1::2].square().mean()))
    unguided, weak, strong = misfit
    assert strong[0] < weak[0] < unguided[0]
    assert strong[0] < 0.4 * unguided[0]
    assert strong[1] < unguided[1]  # the bins that were not measured come nearer too


def test_several_guides_share_one_decoding_and_add_up():
    expected = random_counts((2, 9, 11))[:, None]
    calls = []

    def decode(x0):
        calls.append(1)
        return identity(x0)

    pair = [RangeGuidance(TINY, 0.5), PoissonGuidance(np.full((9, 11), 3), 2.0)]
    both = guidance_step(pair, expected, decode)
    assert len(calls) == 1
    torch.testing.assert_close(both, pair[0](expected, identity) + pair[1](expected, identity))
    assert guidance_step([PoissonGuidance(np.ones((9, 11)), 0.0)], expected, decode).abs().max() == 0
    assert len(calls) == 1  # a guide without strength costs nothing


def test_the_gradient_runs_through_the_denoiser_where_asked():
    guide = PoissonGuidance(np.full((9, 11), 3), 1.0)
    noisy = random_counts((1, 1, 9, 11)).requires_grad_()
    x0 = 0.5 * noisy
    torch.testing.assert_close(guide(x0, identity, noisy), 0.5 * guide(x0, identity))
    with torch.inference_mode():
        inside = guide(0.5 * noisy, identity)
    torch.testing.assert_close(inside, guide(x0, identity))
    with pytest.raises(InputError, match=r"wrt must require grad and x0 .* x0 did not require grad"):
        guide(x0.detach(), identity, noisy)
    with pytest.raises(InputError, match="x0 must depend on wrt"):
        guide(x0, identity, torch.zeros(1, requires_grad=True))


def test_mistakes_are_named():
    counts = np.ones((9, 11))
    for wrong in (-1, np.nan, True):
        for make in (lambda s: RangeGuidance(TINY, s), lambda s: PoissonGuidance(counts, s)):
            with pytest.raises(InputError, match="strength must be a finite number of at least zero"):
                make(wrong)
    for keywords, message in (
            ({"measure": "fourier"}, "measure must be one of moments, projection, but was 'fourier'"),
            ({"orders": ()}, "orders must be at least one, each below 8"),
            ({"orders": 3}, r"orders must be a sequence of whole numbers, such as \(0, 1, 2\), but was 3"),
            ({"orders": "ab"}, "orders must be a sequence of whole numbers"),
            ({"orders": (0, 1.5)}, "orders must be an integer of at least 0, but was 1.5"),
            ({"target": (0.1, 0.2)}, "target must be one number, or with moments one for each"),
            ({"target": -0.1}, "target must not be negative"),
            ({"tolerance": 0}, "tolerance must be a finite number greater than zero"),
            ({"multiplicative": 0.0}, "multiplicative must be greater than zero in every bin"),
            ({"additive": np.ones((3, 3))}, r"additive must be broadcastable to \(batch, 9, 11\)"),
            ({"operator": np.dot}, "operator must be a LinearOperator, but was "),
            ({"n_iterations": 0}, "n_iterations must be an integer of at least 1")):
        with pytest.raises(InputError, match=message):
            RangeGuidance(TINY, 1.0, **keywords)
    with pytest.raises(GeometryError, match=r"operator must give sinograms of the geometry's shape \(9, 11\)"):
        RangeGuidance(TINY, 1.0, operator=RadonOperator(GEOMETRY))
    with pytest.raises(InputError, match="geometry must be a ParallelGeometry"):
        RangeGuidance((9, 11), 1.0)
    for arguments, keywords, message in (
            ((-counts, 1.0), {}, "counts must not be negative, but its minimum was -1"),
            ((counts * np.nan, 1.0), {}, "counts must be finite"),
            ((counts[0], 1.0), {}, r"counts must have shape \(angle, bin\) or \(batch, angle, bin\)"),
            (("abc", 1.0), {}, "counts must be an array of real numbers, but their dtype was <U3"),
            ((None, 1.0), {}, "counts must be an array of real numbers, but their dtype was object"),
            ((counts[None][:0], 1.0), {}, r"at least one of each, but their shape was \(0, 9, 11\)"),
            ((counts, 1.0), {"mask": counts}, "mask must be boolean"),
            ((counts, 1.0), {"mask": np.ones((3, 3), bool)}, "mask must be broadcastable to the counts' shape"),
            ((counts, 1.0), {"mask": np.zeros((9, 11), bool)}, "mask must leave at least one measured bin"),
            ((counts, 1.0), {"model": 3}, "model must be a LinearOperator or a callable, but was int"),
            ((counts, 1.0), {"dose_factor": 0}, "dose_factor must be a finite number greater than zero"),
            ((counts, 1.0), {"additive": -1.0}, "additive must not be negative")):
        with pytest.raises(InputError, match=message):
            PoissonGuidance(*arguments, **keywords)
    for guide in (RangeGuidance(TINY, 1.0), PoissonGuidance(counts, 1.0)):
        with pytest.raises(InputError, match=r"expected counts must have shape \(batch, 9, 11\), but .* \(2, 11, 9\)"):
            guide.loss(torch.ones(2, 11, 9))
        with pytest.raises(InputError, match=r"decode must return counts \(batch, angle, bin\) for a batch of 2"):
            guide(torch.ones(2, 1, 9, 11), lambda x0: x0)
    with pytest.raises(InputError, match="counts must be one sinogram or one for each of the batch of 3, but were 2"):
        PoissonGuidance(np.ones((2, 9, 11)), 1.0).loss(torch.ones(3, 9, 11))
    with pytest.raises(InputError, match="guides must be Guidance objects, but one was int"):
        guidance_step([3], torch.ones(1), identity)
    with pytest.raises(InputError, match="guides must be a Guidance object or several of them, but was int"):
        guidance_step(3, torch.ones(1), identity)


def test_a_single_guide_and_counts_of_half_precision_will_do():
    expected, guide = random_counts((2, 9, 11))[:, None], PoissonGuidance(torch.full((9, 11), 3.0).bfloat16(), 2.0)
    whole = PoissonGuidance(np.full((9, 11), 3.0), 2.0)
    torch.testing.assert_close(guidance_step(guide, expected, identity), whole(expected, identity))
