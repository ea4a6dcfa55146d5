"""The conditional GAN: R1 and projection in closed form, counts on both sides, parts that leave each other alone."""

import numpy as np
import pytest
import torch

from allpet_gen.baseline_stages import measured_roots, new_objective
from allpet_gen.baselines.gan import (
    ProjectionDiscriminator,
    gradient_penalty,
    in_pairs,
    spread_of_pairs,
    with_counts,
)
from allpet_gen.generation_models import load_generator
from allpet_gen.training import TrainingSettings, train
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

from .baseline_helpers import CLASSES, GEOMETRY, batch_of, class_set, quick, trained, untrained
from .training_helpers import Fit, Points

pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_r1_of_a_linear_judge_is_the_square_of_its_weights():
    weights = torch.randn(1, 4, 6, generator=generator()).requires_grad_()
    penalty = gradient_penalty(lambda x: (x * weights).sum(dim=(1, 2, 3)), torch.randn(5, 1, 4, 6))
    assert penalty.item() == pytest.approx(weights.square().sum().item(), rel=1e-5)
    penalty.backward()  # and it can be trained on
    torch.testing.assert_close(weights.grad, 2 * weights.detach())


def test_r1_of_a_square_is_four_times_the_mean_square():
    x = torch.randn(50, 1, 3, 3, generator=generator())
    penalty = gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)), x)
    assert penalty.item() == pytest.approx(4 * x.square().sum(dim=(1, 2, 3)).mean().item(), rel=1e-5)


def test_a_share_of_each_batch_has_the_penalty_that_the_loss_says():
    objective, dataset = untrained("gan", **{"gan.r1": 6.0, "gan.r1_share": 0.5, "gan.null_prompt": 0.0})
    batch = batch_of(dataset)
    loss, terms = objective(batch, generator(), "discriminator")
    tokens, view = batch["tokens"][:4], batch["view"][:4]
    wanted = gradient_penalty(lambda x: objective.discriminator(x, tokens, view), batch["x"][:4])
    assert terms["r1"] == pytest.approx(wanted.item(), rel=1e-4)
    assert loss.item() == pytest.approx(terms["discriminator"].item() + 3 * wanted.item(), rel=1e-4)
    without, _ = untrained("gan", **{"gan.r1": 0.0})
    assert "r1" not in without(batch, generator(), "discriminator")[1]


def test_what_is_said_enters_by_its_product_with_the_features():
    torch.manual_seed(0)
    judge = ProjectionDiscriminator(GEOMETRY, 2, [8, 8], 6)
    x = torch.randn(3, 1, 16, 16, generator=generator())
    tokens = torch.tensor([[1, 1, 1], [2, 3, 1], [3, 2, 1]])
    phi = judge.phi(torch.nn.functional.pixel_unshuffle(x, 2))
    wanted = judge.psi(phi)[:, 0] + torch.einsum("nf,nf->n", judge.told(tokens), phi) / 6**0.5
    torch.testing.assert_close(judge(x, tokens), wanted)
    assert (judge(x, tokens) - judge(x, tokens.flip(0)))[[0, 2]].abs().min() > 1e-4


def test_a_discriminator_begins_with_features_that_differ_as_sinograms_do():
    """PyTorch's own start shrinks the spread with every layer: 0.003 of it would be left here."""
    torch.manual_seed(0)
    judge = ProjectionDiscriminator(ParallelGeometry(64, 64, 160.0, (64, 64), 160.0), 4, [32, 48, 64, 64], 64)
    x = torch.nn.functional.interpolate(torch.rand(24, 1, 2, 2, generator=generator()) - 1, (64, 64), mode="bilinear")
    with torch.no_grad():
        phi = judge.phi(torch.nn.functional.pixel_unshuffle(x, 4))
    assert 0.1 < phi.std(0).mean() / x.std(0).mean() < 3


def test_a_generator_makes_and_a_discriminator_judges_standardised_roots():
    settings, data = quick("gan"), class_set()
    _, dataset = untrained("gan")
    measured = measured_roots(dataset)
    x = torch.stack([dataset[0, i]["x"] for i in range(len(dataset))])
    assert measured == {"center": pytest.approx(x.mean().item(), abs=1e-5),
                        "deviation": pytest.approx(x.std().item(), abs=1e-5)}
    plain, told = (new_objective("gan", data.geometry, settings, 1.0, m) for m in ({}, measured))
    batch = batch_of(dataset)
    z, tokens, view = torch.randn(8, 16, generator=generator()), batch["tokens"], batch["view"]
    u = plain.network(z, tokens, view)
    torch.testing.assert_close(told.network(z, tokens, view), measured["center"] + measured["deviation"] * u)
    torch.testing.assert_close(told.judge(measured["center"] + measured["deviation"] * u, tokens, view),
                               plain.judge(u, tokens, view))
    # R1 is by the roots, as (GA2) says: of standardised ones it would be the square of the deviation of it.
    of_roots = told({**batch, "x": measured["center"] + measured["deviation"] * batch["x"]}, generator(),
                    "discriminator")[1]["r1"]
    of_standardised = plain(batch, generator(), "discriminator")[1]["r1"]
    assert of_roots.item() == pytest.approx(of_standardised.item() / measured["deviation"]**2, rel=1e-3)
    with pytest.raises(InputError, match="deviation must be"):
        new_objective("gan", data.geometry, settings, 1.0, {"center": 0.0, "deviation": 0.0})


# Mode seeking

@pytest.mark.parametrize("n", [2, 7, 8])
def test_pairs_are_told_the_same_and_the_spread_of_a_multiple_is_its_factor(n):
    tokens = in_pairs(torch.arange(3 * n).reshape(n, 3))
    half = (n + 1) // 2
    assert len(tokens) == n
    assert torch.equal(tokens[half:], tokens[:n - half])
    z = torch.randn(n, 12, generator=generator())
    assert spread_of_pairs(3 * z.unflatten(1, (1, 3, 4)) + 5, z).item() == pytest.approx(3, rel=1e-5)
    # The mean of ratios, not a ratio of means: pairs whose noises lie far apart count as much as others.
    z[half:] = z[:n - half] + torch.arange(1.0, n - half + 1)[:, None]
    x = torch.zeros(n, 1, 3, 4)
    x[half:] += 2.0
    wanted = np.mean([2 / k for k in range(1, n - half + 1)])
    assert spread_of_pairs(x, z).item() == pytest.approx(wanted, rel=1e-5)


def test_a_generator_of_one_sinogram_for_each_prompt_is_driven_to_many():
    objective, dataset = untrained("gan", **{"gan.mode_seeking": 0.5, "gan.null_prompt": 0.0})
    for parameter in (*objective.discriminator.psi.parameters(), *objective.discriminator.told.parameters()):
        torch.nn.init.zeros_(parameter)  # judges nothing: what is left is the spread
    batch, optimiser, found = batch_of(dataset), torch.optim.Adam(objective.parts["model"], 1e-3), []
    for step in range(24):
        loss, terms = objective(batch, generator(step))
        assert loss.item() == pytest.approx(0.5 / (terms["spread"].item() + 1e-3), rel=1e-5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(terms["spread"].item())
    assert found[-1] > 2 * found[0] > 0


def test_a_batch_of_one_has_no_pair():
    objective, dataset = untrained("gan", **{"gan.mode_seeking": 0.5})
    assert set(objective(batch_of(dataset, 1), generator())[1]) == {"adversarial"}
    assert set(objective(batch_of(dataset, 3), generator())[1]) == {"adversarial", "spread"}


def test_without_mode_seeking_all_of_a_batch_is_told_what_it_is():
    objective, dataset = untrained("gan", **{"gan.mode_seeking": 0.0, "gan.null_prompt": 0.0})
    seen, judge = [], objective.discriminator.forward
    objective.discriminator.forward = lambda x, tokens, view: seen.append(tokens) or judge(x, tokens, view)
    _, terms = objective(batch_of(dataset), generator())
    assert torch.equal(seen[0], batch_of(dataset)["tokens"])
    assert set(terms) == {"adversarial"}


def test_hinge_is_two_where_nothing_is_told_apart():
    objective, dataset = untrained("gan", **{"gan.r1": 0.0})
    for parameter in (*objective.discriminator.psi.parameters(), *objective.discriminator.told.parameters()):
        torch.nn.init.zeros_(parameter)
    loss, _ = objective(batch_of(dataset), generator(), "discriminator")
    assert loss.item() == 2


# What the discriminator sees

@pytest.mark.parametrize("mean", [0.3, 4.0, 300.0])
def test_expectations_become_poisson_counts(mean):
    scale, n = 500.0, 40000
    x = torch.full((n,), 2 * (mean / scale) ** 0.5 - 1)
    counts = scale * ((with_counts(x, scale, generator()) + 1) / 2) ** 2
    torch.testing.assert_close(counts, counts.round(), atol=2e-2, rtol=1e-4)
    spread = 5 * (mean / n) ** 0.5
    assert counts.mean().item() == pytest.approx(mean, abs=spread)
    assert counts.var().item() == pytest.approx(mean, rel=0.1)


def test_the_gradient_is_that_of_the_root():
    scale = 500.0
    for x in (torch.tensor([0.2, -0.5, 0.9]), torch.tensor([-1.4, -1.2])):
        x = x.requires_grad_()
        with_counts(x, scale, generator()).sum().backward()
        torch.testing.assert_close(x.grad, torch.sign(x.detach() + 1))  # below -1 the root counts by its size


def test_what_is_not_finite_stays_so():
    x = torch.tensor([float("nan"), float("inf"), 0.0])
    assert torch.isfinite(with_counts(x, 100.0, generator())).tolist() == [False, False, True]


def test_counts_of_a_generator_that_knows_the_expectation_have_the_moments_of_measured_ones():
    data = class_set(4)
    expected = np.maximum(data.counts.astype(np.float32), 1)
    scale = 200.0
    x = torch.from_numpy(2 * np.sqrt(expected / scale) - 1)[:, None]
    rng = np.random.default_rng(0)
    real = torch.from_numpy(2 * np.sqrt(rng.poisson(expected, (200, *expected.shape)) / scale) - 1).float()
    made = torch.stack([with_counts(x[:, 0], scale, generator(k)) for k in range(200)])
    for moment in (1, 2, 3):
        first, second = (((v + 1) ** moment).mean(dim=(0, 2, 3)) for v in (real, made))
        torch.testing.assert_close(first, second, rtol=2e-2, atol=1e-3)


# Parts

def test_each_part_moves_its_own_weights_alone():
    objective, dataset = untrained("gan")
    for part, other in (("model", objective.discriminator), ("discriminator", objective.network)):
        objective.zero_grad(set_to_none=True)
        for name, parameters in objective.parts.items():
            for parameter in parameters:
                parameter.requires_grad_(name == part)
        objective(batch_of(dataset), generator(), part)[0].backward()
        assert not any(p.grad is not None for p in other.parameters())
        assert all(p.grad is not None for p in objective.parts[part])


def test_adam_has_the_momentum_that_an_objective_asks_for(tmp_path, monkeypatch):
    seen, adam = [], torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *a, **k: seen.append(k["betas"]) or adam(*a, **k))
    how = TrainingSettings(steps=1, batch=2, learning_rate=1e-3)
    train(Fit(), Points(), how, tmp_path / "plain")
    adversary = Fit()
    adversary.betas = type(untrained("gan")[0]).betas
    train(adversary, Points(), how, tmp_path / "adversary")
    assert seen == [(0.9, 0.99), (0.0, 0.99)]


def test_training_brings_the_classes_nearer_to_held_out_ones():
    held = class_set(8, seed=1)
    trained_pipe = load_generator(trained("gan"))
    before, _ = untrained("gan")
    errors = []
    for network in (before.network, trained_pipe.network):
        pipe = type(trained_pipe)(network.eval())
        pipe.set_progress_bar_config(disable=True)
        drawn = pipe(CLASSES, count=16, seed=3, noise=False, reconstruct=None).expected
        errors.append(sum(np.square(np.sqrt(drawn[16 * k:16 * k + 16]).mean(0)
                                    - np.sqrt(held.counts[held.labels == k]).mean(0)).mean() for k in (0, 1)))
    assert errors[1] < 0.2 * errors[0]


def test_a_part_has_the_rate_that_an_objective_asks_for(tmp_path, monkeypatch):
    assert untrained("gan", **{"gan.discriminator_rate": 3.0})[0].rates == {"discriminator": 3.0}
    seen, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a, **k: seen.append(
        self.param_groups[0]["lr"]) or step(self, *a, **k))
    how = TrainingSettings(steps=1, batch=2, learning_rate=1e-3, schedule="constant", warmup=0)
    train(Fit(), Points(), how, tmp_path / "plain")
    gan, dataset = untrained("gan", **{"gan.discriminator_rate": 3.0})
    train(gan, dataset, how, tmp_path / "gan")
    assert seen == pytest.approx([1e-3, 1e-3, 3e-3])


@pytest.mark.parametrize(("name", "value"), [("gan.r1", -1.0), ("gan.r1_share", 0.0), ("gan.r1_share", 1.5),
                                             ("gan.null_prompt", 2.0), ("gan.mode_seeking", -0.1),
                                             ("gan.discriminator_rate", 0.0)])
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(InputError, match=f"^{name} must be"):
        quick("gan", **{name: value})
