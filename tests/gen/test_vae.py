"""The conditional VAE: its bound in closed form, its annealing, what it learns, what it does with words left out."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from allpet_gen.baselines.vae import ConditionalVAE, VAEPipeline, gaussian_kl
from allpet_gen.baselines.views import ViewDataset
from allpet_gen.objectives import poisson_deviance
from allpet_gen.prompts import Prompt
from allpet_gen.stages import count_scale
from allpet_physics.errors import InputError

from .baseline_helpers import CLASSES, GEOMETRY, batch_of, class_set, quick, trained, untrained

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_divergence_is_that_of_gaussians():
    draws = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 5, 7, generator=draws)
    wanted = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, logvar), wanted)
    assert gaussian_kl(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0


def test_the_loss_is_the_bound_of_what_it_decodes(monkeypatch):
    """With a posterior that is known, both terms are; the rest of the loss is the dispersion."""
    objective, dataset = untrained("vae", **{"vae.kl": 3.0})
    objective.eval()
    batch, n = batch_of(dataset), objective.network.config.latent_dim
    known = torch.full((8, n), 0.5), torch.full((8, n), -200.0).clamp(-30, 20)
    monkeypatch.setattr(objective.network, "encode", lambda *_: known)
    loss, terms = objective(batch, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = objective.network.expected(known[0], batch["tokens"], batch["view"]) + 5e-4
    counts = objective.network.scaling.decode(batch["x"][:, 0])
    deviance = poisson_deviance(counts, expected).mean()
    kl = n * (0.25 + 0 - 1 + 30) / 2
    assert terms["kl"] == pytest.approx(kl, rel=1e-4)
    assert terms["deviance"] == pytest.approx(deviance.item(), rel=1e-3)
    assert loss.item() == pytest.approx(1 + deviance.log().item() + 3 * 2 * kl / 256, rel=1e-4)


def test_the_dispersion_is_the_one_that_fits_best():
    """The gradient is that of ln of the mean deviance, the bound at its best dispersion; of Poisson counts, below 1."""
    objective, dataset = untrained("vae", **{"vae.kl": 0.0})
    objective.eval()
    batch = batch_of(dataset)
    found = []
    for wanted in (False, True):
        objective.zero_grad()
        loss, terms = objective(batch, torch.Generator().manual_seed(0))
        if wanted:
            draws = torch.Generator().manual_seed(0)
            mean, logvar = objective.network.encode(batch["x"], batch["tokens"], batch["view"])
            z = mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=draws)
            expected = objective.network.expected(z, batch["tokens"], batch["view"]) + 5e-4
            loss = poisson_deviance(objective.network.scaling.decode(batch["x"][:, 0]), expected).mean().log()
        loss.backward()
        found.append(objective.network.decoder.conv_out.weight.grad.clone())
    assert terms["deviance"] > 1
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-6)


def test_beta_rises_in_training_alone():
    objective, dataset = untrained("vae", **{"vae.kl": 2.0, "vae.kl_warmup": 4})
    batch, betas = batch_of(dataset), []
    for step in range(6):
        loss, terms = objective.train()(batch, torch.Generator().manual_seed(step))
        rest = 1 + terms["deviance"].log()
        betas.append(((loss - rest) * 256 / 2 / terms["kl"]).item())
    assert betas == pytest.approx([0, 0.5, 1, 1.5, 2, 2], abs=1e-2)
    loss, terms = objective.eval()(batch, torch.Generator().manual_seed(0))
    assert ((loss - 1 - terms["deviance"].log()) * 256 / 2 / terms["kl"]).item() == pytest.approx(2, abs=1e-2)
    assert objective.passed == 6


def test_training_lowers_the_bound_on_held_out_sinograms():
    before, _ = untrained("vae")
    held = ViewDataset(class_set(8, seed=1), count_scale(class_set()), quick("vae")["augmentation"], 0)
    pipe = VAEPipeline.from_pretrained(trained("vae") / "vae")
    losses, batch = [], batch_of(held, 16)
    for network in (before.network, pipe.network):
        objective = type(before)(network, quick("vae")["vae"]).eval()
        with torch.no_grad():
            losses.append(objective(batch, torch.Generator().manual_seed(0))[1]["deviance"].item())
    assert losses[1] < 0.2 * losses[0]


def test_words_left_out_are_drawn_from_classes_of_the_training():
    classes = [Prompt.parse(p).tokens() for p in (*CLASSES, "brain with PSMA")]
    network = ConditionalVAE(GEOMETRY.to_dict(), 100.0, [list(c) for c in classes], latent_dim=2, patch=2,
                             block_out_channels=(8, 8), token_dim=4, norm_num_groups=4)
    draws = [torch.Generator().manual_seed(seed) for seed in range(300)]

    def completed(words):
        found = network.completed(torch.tensor([Prompt.parse(words).tokens()] * len(draws)), draws)
        return {tuple(row): int((found == torch.tensor(row)).all(1).sum()) for row in found.unique(dim=0).tolist()}

    brains = completed("brain")
    assert set(brains) == {classes[0], classes[2]}
    assert min(brains.values()) > 100
    assert set(completed("anything")) == set(classes)
    assert completed(CLASSES[1]) == {classes[1]: 300}
    unknown = Prompt.parse("chest").tokens()  # no class has it
    assert completed("chest") == {unknown: 300}


def test_a_vector_decodes_alike_whatever_stands_beside_it():
    objective, _ = untrained("vae")
    z, tokens = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([[1, 1, 1]] * 3)
    with torch.no_grad():
        together, alone = (objective.network.eval().expected(z[:n], tokens[:n]) for n in (3, 1))
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "value", "words"), [("vae.kl", -1.0, r"vae\.kl"), ("vae.latent_dim", 0, "latent_dim"),
                                                      ("vae.norm_num_groups", 5, "norm_num_groups, 5")])
def test_settings_out_of_range_are_named(name, value, words):
    with pytest.raises(InputError, match=words):
        quick("vae", **{name: value})
