"""Counts of memory: equal to what a real step saves, near to what it allocates, and made without allocating it."""

import gc
from functools import lru_cache

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.profiler import ProfilerActivity, profile

from allpet_gen import _free_memory, memory
from allpet_gen.memory import (
    MemoryCount,
    available_memory,
    count_training_memory,
    require_memory,
    training_memory,
)
from allpet_gen.settings import read_settings
from allpet_gen.training_settings import device_precision
from allpet_physics import ParallelGeometry
from allpet_physics._memory import physical_memory
from allpet_physics.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def convolutions():
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU(),
                         nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 256, 10))


def unet():
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), block_out_channels=(16, 32), layers_per_block=1,
        cross_attention_dim=16, norm_num_groups=8, attention_head_dim=2)


def images(batch=4):
    return (torch.randn(batch, 3, 16, 16),)


def latents(batch=4):
    return torch.randn(batch, 4, 16, 16), torch.arange(batch), torch.randn(batch, 3, 16)


@lru_cache
def counted(build, precision="no", gradient_checkpointing=False):
    inputs = latents() if build is unet else images()
    return count_training_memory(build, inputs, precision=precision, gradient_checkpointing=gradient_checkpointing)


def saved_by_a_real_step(network, inputs, dtype=None):
    """Return the bytes that a real forward pass saves: addresses of memory, weights excluded."""
    weights = {p.data_ptr() for p in [*network.parameters(), *network.buffers()]}
    kept = {t.data_ptr(): t for t in inputs}

    def pack(tensor):
        whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
        if whole.data_ptr() not in weights:
            kept[whole.data_ptr()] = whole
        return tensor

    with (torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
          torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None)):
        loss_of(network(*inputs))
    return sum(t.nbytes for t in kept.values())


def loss_of(output):
    output = output if isinstance(output, torch.Tensor) else output[0]
    return output if output.ndim == 0 else output.float().square().mean()


def peak_of_a_real_step(network, inputs, dtype=None):
    """Return the most that torch's allocator held beyond weights and gradients, as its profiler saw it."""
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            loss = loss_of(network(*inputs))
        loss.backward()
    events = sorted((e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"),
                    key=lambda e: e.start_ns())
    assert events
    return np.cumsum([e.nbytes() for e in events]).max() + sum(t.nbytes for t in inputs)


# Counts against real steps ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(("build", "inputs"), [(convolutions, images()), (unet, latents())])
def test_what_a_forward_pass_saves_is_counted_to_the_byte(build, inputs):
    assert counted(build).activations == saved_by_a_real_step(build().train(), inputs)


@pytest.mark.parametrize(("build", "inputs"), [(convolutions, images()), (unet, latents())])
def test_mixed_precision_is_counted(build, inputs):
    count = counted(build, "bf16").activations
    # Fake group norms say that statistics are bf16 where real ones keep float32: 2 of 1000 bytes.
    assert count == pytest.approx(saved_by_a_real_step(build().train(), inputs, torch.bfloat16), rel=5e-3)
    assert count < counted(build).activations


def test_checkpointing_is_counted_to_the_byte():
    network = unet().train()
    network.enable_gradient_checkpointing()
    count = counted(unet, gradient_checkpointing=True)
    assert count.activations == saved_by_a_real_step(network, latents())
    plain = counted(unet)
    assert count.activations < plain.activations / 3
    assert count.total < plain.total
    assert count.fixed == plain.fixed


@pytest.mark.parametrize(("build", "inputs", "dtype", "checkpointing"), [
    (convolutions, images(), None, False), (convolutions, images(), torch.bfloat16, False),
    (unet, latents(), None, False), (unet, latents(), None, True), (unet, latents(), torch.bfloat16, False)])
def test_the_peak_is_near_the_one_that_the_allocator_saw(build, inputs, dtype, checkpointing, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the steps are the processor's
    network = build().train()
    if checkpointing:
        network.enable_gradient_checkpointing()
    count = counted(build, "no" if dtype is None else "bf16", checkpointing)
    # Processors with matrix tiles keep bfloat16 copies in a layout of their own, for one layer at a time: a fifth of
    # the peak of the few large convolutions here, less than a tenth of the U-Net's; those without instructions for
    # bfloat16 keep copies in float32. They are not of the network.
    scratch = 0.25 if dtype is not None and (build is convolutions or device_precision() == "no") else 0.1
    ratio = (count.activations + count.workspace) / peak_of_a_real_step(network, inputs, dtype)
    assert 1 / (1 + scratch) <= ratio <= 1.1


def test_a_linear_layer_is_counted_as_by_hand():
    count = count_training_memory(lambda: nn.Linear(7, 5), (torch.empty(3, 7, device="meta"),))
    weights = 4 * (7 * 5 + 5)
    assert (count.parameters, count.gradients, count.optimiser, count.ema) == (weights, weights, 2 * weights, weights)
    assert count.activations == 4 * (3 * 7 + 3 * 5)  # the input, and the output for its square
    assert count.fixed == 5 * weights
    assert count.total == count.fixed + count.activations + count.workspace


def test_the_optimisers_state_is_what_a_real_one_holds():
    network = convolutions()
    loss_of(network(*images())).backward()
    for name, kind in (("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        real = kind(network.parameters(), lr=1e-3)
        real.step()
        state = sum(t.nbytes for values in real.state.values() for t in values.values()
                    if isinstance(t, torch.Tensor) and t.ndim)
        assert count_training_memory(convolutions, images(), optimiser=name).optimiser == state


# What counting does and does not ---------------------------------------------------------------------------------
def test_terabytes_are_counted_without_allocating_them():
    count = count_training_memory(lambda: nn.Sequential(nn.Linear(10**6, 10**6), nn.ReLU()),
                                  (torch.empty(10**5, 10**6, device="meta"),))
    assert count.parameters == 4 * (10**12 + 10**6)
    assert count.activations >= 2 * 4 * 10**11
    assert count.total > 20e12


def test_activations_grow_with_the_batch_and_nothing_else_does():
    one, two, three = (count_training_memory(convolutions, images(batch)) for batch in (2, 4, 6))
    assert one.fixed == two.fixed == three.fixed
    assert three.activations - two.activations == two.activations - one.activations > 0


def test_storages_are_counted_once_and_weights_not_as_activations():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8, bias=False)
            self.second = nn.Linear(8, 8, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return (self.first(x) + self.second(x.view(5, 8))).sum()

    count = count_training_memory(Shared, (torch.randn(5, 8),), ema=False)
    assert count.parameters == count.gradients == 4 * 64
    assert count.activations == 4 * 5 * 8
    assert count.ema == 0


def test_frozen_weights_have_no_gradients_and_no_state():
    def build():
        network = convolutions()
        network[0].requires_grad_(False)
        return network

    frozen, free = count_training_memory(build, images()), count_training_memory(convolutions, images())
    first = 4 * (3 * 16 * 9 + 16)
    assert frozen.parameters == free.parameters
    assert free.gradients - frozen.gradients == first
    assert free.optimiser - frozen.optimiser == 2 * first


def test_wrong_arguments_are_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"precision must be one of no, bf16, fp16 and optimiser .*'int8' and 'adamw'"):
        count_training_memory(convolutions, images(), precision="int8")
    with pytest.raises(InputError, match="'lion'"):
        count_training_memory(convolutions, images(), optimiser="lion")
    with pytest.raises(InputError, match="no gradient"):
        count_training_memory(nn.ReLU, images())


# The generator's own networks ------------------------------------------------------------------------------------
def tiny(**changes):
    settings = read_settings("tiny", {f"training.{name}": value for name, value in changes.items()})
    n = settings["cohort"]["size"]
    return settings, ParallelGeometry(n, n, 665.6 / n, (n, n), 665.6 / n)


def test_the_autoencoders_stage_is_counted_as_it_is_trained():
    from allpet_gen.autoencoder import SinogramAutoencoder
    from allpet_gen.objectives import AutoencoderObjective

    settings, geometry = tiny(precision="no")
    count = training_memory(settings, geometry, "autoencoder")
    network = SinogramAutoencoder(geometry.to_dict(), 1.0, **settings["autoencoder"])
    objective = AutoencoderObjective(network, settings["autoencoder_loss"])
    assert count.parameters == sum(p.nbytes for p in [*network.parameters(), *network.buffers()])
    x = torch.rand(settings["training"]["autoencoder"]["batch"], 3, *geometry.sinogram_shape)

    class Called(nn.Module):
        def __init__(self):
            super().__init__()
            self.objective = objective

        def forward(self, x):
            return self.objective(x, torch.Generator())

    assert count.activations == saved_by_a_real_step(Called(), (x,))


def test_both_stages_are_counted_with_their_settings():
    for stage in ("autoencoder", "denoiser"):
        settings, geometry = tiny(precision="no")
        full = training_memory(settings, geometry, stage)
        assert full.ema <= full.parameters
        settings["training"]["gradient_checkpointing"] = True
        assert training_memory(settings, geometry, stage).activations < full.activations / 2
        settings["training"] |= {"gradient_checkpointing": False, "precision": "bf16"}
        assert training_memory(settings, geometry, stage).activations < full.activations
        settings["training"]["precision"] = "no"
        settings["training"][stage]["batch"] *= 2
        # Copies of a constant such as the frequencies of the times do not grow.
        assert training_memory(settings, geometry, stage).activations == pytest.approx(2 * full.activations, rel=0.01)
    with pytest.raises(InputError, match="stage must be autoencoder or denoiser"):
        training_memory(settings, geometry, "decoder")


# What there is, and whether it is enough -------------------------------------------------------------------------
def test_available_memory_is_some_of_the_physical_one():
    assert 0 < available_memory() <= physical_memory()
    assert available_memory("cpu") == pytest.approx(available_memory(torch.device("cpu")), rel=0.2)


def test_a_containers_limit_counts(tmp_path):
    assert _free_memory._container_available(tmp_path) == float("inf")
    for name, text in (("memory.max", "1000\n"), ("memory.current", "700\n"),
                       ("memory.stat", "anon 500\ninactive_file 150\nactive_file 7\n")):
        (tmp_path / name).write_text(text)
    assert _free_memory._container_available(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert _free_memory._container_available(tmp_path) == float("inf")


COUNT = MemoryCount(parameters=10**9, gradients=10**9, optimiser=2 * 10**9, ema=10**9, activations=14 * 10**9,
                    workspace=2 * 10**9)


def test_enough_memory_passes_and_a_tenth_is_to_spare(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 23.2e9)
    require_memory(COUNT, batch=16)
    monkeypatch.setattr(memory, "available_memory", lambda device: 23.0e9)
    with pytest.raises(InputError):
        require_memory(COUNT, batch=16)
    require_memory(COUNT, batch=16, margin=0.0)


def test_the_refusal_names_a_batch_that_fits_and_only_ways_that_are_left(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 11e9)
    monkeypatch.setattr(memory, "device_precision", lambda: "bf16")
    with pytest.raises(InputError) as caught:
        require_memory(COUNT, "denoiser", batch=16)
    assert str(caught.value) == (
        "training the denoiser with a batch of 16 needs 23.1 GB of memory (5 GB for weights, gradients, optimiser and "
        "average, 16 GB for the batch, 10% to spare), but cpu has 11 GB free; lower training.denoiser.batch to 5 and "
        "raise training.accumulation to 4, or set training.gradient_checkpointing to true, or set training.precision "
        'to "bf16", or take a smaller size.')
    with pytest.raises(InputError) as caught:
        require_memory(COUNT, batch=16, precision="bf16", gradient_checkpointing=True)
    assert str(caught.value).endswith("free; lower batch to 5 and raise accumulation to 4, or take a smaller size.")
    monkeypatch.setattr(memory, "device_precision", lambda: "no")
    with pytest.raises(InputError) as caught:
        require_memory(COUNT, batch=16)
    assert "bf16" not in str(caught.value)
    monkeypatch.setattr(memory, "available_memory", lambda device: 5e9)
    with pytest.raises(InputError, match=r"5 GB free; take a smaller size\.$"):
        require_memory(COUNT, batch=16)
    monkeypatch.setattr(memory, "available_memory", lambda device: 6e9)
    with pytest.raises(InputError, match=r"free; set gradient_checkpointing to true, or"):
        require_memory(COUNT, batch=16)
