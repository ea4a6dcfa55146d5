"""How much memory a training needs, counted before it begins and without allocating any of it.

A step of training runs once on tensors without storage (torch's fake tensors, which go through the same operators,
autocasts and checkpoints as real ones), and every storage that would be allocated is followed from its birth to its
death. Not seen are the scratch buffers inside kernels, the allocator's fragments and torch itself, so `require_memory`
asks for a tenth more.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from allpet_gen._free_memory import available_memory
from allpet_gen.training_settings import device_precision
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

#: Numbers of the size of the weights that an optimiser keeps for each of them.
OPTIMISER_COPIES = {"adamw": 2, "adam": 2, "sgd": 0}
_AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class MemoryCount:
    """Bytes that one step of training holds, in parts that add up to `total`.

    Parameters
    ----------
    parameters : int
        Weights and buffers.
    gradients : int
        Of all weights at once, as gradient accumulation and clipping hold them.
    optimiser : int
        State of the optimiser.
    ema : int
        The averaged weights.
    activations : int
        The batch, and what the forward pass saves for the backward pass (each storage once, weights excluded).
    workspace : int
        How far the busiest moment (in the forward or backward pass, or while the optimiser steps) is above that.
    """

    parameters: int
    gradients: int
    optimiser: int
    ema: int
    activations: int
    workspace: int

    @property
    def fixed(self) -> int:
        """What does not depend on the batch."""
        return self.parameters + self.gradients + self.optimiser + self.ema

    @property
    def total(self) -> int:
        """The most that is held at once."""
        return self.fixed + self.activations + self.workspace


def count_training_memory(build: Callable[[], nn.Module], inputs: tuple, *, precision: str = "no",
                          optimiser: str = "adamw", ema: bool = True, gradient_checkpointing: bool = False,
                          device="cpu") -> MemoryCount:
    """Count the memory of training a network, without allocating it.

    The loss is the output, or the sum of outputs, where they are scalars, and their mean square otherwise.

    Parameters
    ----------
    build : callable
        Returns the network, or an objective around it. What it allocates is fake.
    inputs : tuple
        Arguments of the network. Of tensors (at any depth of tuples, lists and dictionaries) only shape and dtype
        matter: ``torch.empty(shape, device="meta")`` takes no memory.
    precision : {"no", "bf16", "fp16"}
        Of the autocast.
    optimiser : {"adamw", "adam", "sgd"}
    ema : bool
        Whether an average of the weights is kept.
    gradient_checkpointing : bool
        Whether to call ``enable_gradient_checkpointing()`` of the network and of its parts that have it.
    device : torch.device or str
        Where the training will be. Autocasts and attention kernels differ between devices, so a count for a GPU is
        made on the machine that has it.

    Returns
    -------
    MemoryCount

    Raises
    ------
    InputError
        An unknown precision or optimiser; a network that gives nothing to be differentiated.
    """
    if precision not in _AUTOCAST or optimiser not in OPTIMISER_COPIES:
        raise InputError(f"precision must be one of {', '.join(_AUTOCAST)} and optimiser one of "
                         f"{', '.join(OPTIMISER_COPIES)}, but were {precision!r} and {optimiser!r}.")
    device = torch.device(device)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with device:
            network = build().train()
        if gradient_checkpointing:
            _checkpoint(network)
        inputs = tree_map_only(torch.Tensor, lambda t: torch.empty(t.shape, dtype=t.dtype, device=device), inputs)
        weights = [p for p in network.parameters() if p.requires_grad]
        for p in weights:
            p.grad = torch.empty_like(p)
        activations, peak = _forward_and_backward(network, inputs, _autocast(device, precision))
        parameters = _bytes([*network.parameters(), *network.buffers()])
        gradients = _bytes(weights)
        kept = OPTIMISER_COPIES[optimiser] * gradients
        averages = _bytes(network.state_dict().values()) if ema else 0
    # An optimiser that steps over all weights at once computes the update of all of them first.
    return MemoryCount(parameters, gradients, kept, averages, activations, max(peak, gradients) - activations)


def training_memory(settings: Mapping, geometry: ParallelGeometry, stage: str, *, device="cpu") -> MemoryCount:
    """Count the memory of a stage of a generator's training: its objective on one batch.

    Parameters
    ----------
    settings : mapping
        Of `allpet_gen.settings.read_settings`; batch, precision and checkpointing are its.
    geometry : ParallelGeometry
        Of the sinograms.
    stage : {"autoencoder", "denoiser"}
    device : torch.device or str
        See `count_training_memory`.

    Raises
    ------
    InputError
        An unknown stage, settings that no network can have.
    """
    from allpet_gen.autoencoder import SinogramAutoencoder
    from allpet_gen.denoiser import SinogramDenoiser
    from allpet_gen.objectives import AutoencoderObjective, DenoiserObjective
    from allpet_gen.training import TrainingSettings

    if stage not in ("autoencoder", "denoiser"):
        raise InputError(f"stage must be autoencoder or denoiser, but was {stage!r}.")
    how = TrainingSettings.of(settings["training"], stage)
    channels = 3 if settings["data"]["composite"] else 1

    def autoencoder():
        return SinogramAutoencoder(geometry.to_dict(), 1.0, channels=channels, **settings["autoencoder"])

    generator = torch.Generator(device)
    if stage == "autoencoder":
        def build():
            return AutoencoderObjective(autoencoder(), settings["autoencoder_loss"])

        inputs = torch.empty(how.batch, channels, *geometry.sinogram_shape, device="meta"), generator
    else:
        with FakeTensorMode():
            shape = autoencoder().latent_shape

        def build():
            denoiser = SinogramDenoiser(shape, geometry.arc, **settings["denoiser"])
            return DenoiserObjective(denoiser, settings["diffusion"], *torch.ones(2, shape[0], 1, 1))

        inputs = {"z": torch.empty(how.batch, *shape, device="meta"),
                  "tokens": torch.empty(how.batch, 3, dtype=torch.long, device="meta"),
                  "view": torch.empty(how.batch, 3, device="meta")}, generator
    return count_training_memory(build, inputs, precision=how.precision, device=device,
                                 gradient_checkpointing=how.gradient_checkpointing)


def require_memory(count: MemoryCount, stage: str = "", *, batch: int, precision: str = "no",
                   gradient_checkpointing: bool = False, device="cpu", margin: float = 0.1) -> None:
    """Raise an `InputError` that names what to change, unless there is memory for a training.

    Parameters
    ----------
    count : MemoryCount
    stage : str
        Of a generator's training: the message names it, and what to change as the settings do.
    batch, precision, gradient_checkpointing
        With which `count` was made.
    device : torch.device or str
    margin : float
        What is asked for beyond the count, as a part of it.
    """
    there, needed = available_memory(device), count.total * (1 + margin)
    if needed <= there:
        return
    what = f"training the {stage}" if stage else "training"
    of_all, of_stage = ("training.", f"training.{stage}.") if stage else ("", "")
    room = there / (1 + margin) - count.fixed
    fits = min(batch - 1, int(room * batch / (count.activations + count.workspace)))
    ways = []
    if fits >= 1:
        ways.append(f"lower {of_stage}batch to {fits} and raise {of_all}accumulation to {-(-batch // fits)}")
    if room > 0 and not gradient_checkpointing:
        ways.append(f"set {of_all}gradient_checkpointing to true")
    if room > 0 and precision == "no" and device_precision() == "bf16":
        ways.append(f'set {of_all}precision to "bf16"')
    ways.append("take a smaller size")
    raise InputError(
        f"{what} with a batch of {batch} needs {_gb(needed)} of memory ({_gb(count.fixed)} for weights, gradients, "
        f"optimiser and average, {_gb(count.activations + count.workspace)} for the batch, {margin:.0%} to spare), but "
        f"{torch.device(device)} has {_gb(there)} free; {', or '.join(ways)}.")


class _LiveStorages(TorchDispatchMode):
    """Follows the bytes of every storage that operators make, until it is freed."""

    def __init__(self, known: Iterable[torch.Tensor]):
        super().__init__()
        self.live = self.peak = 0
        self._known = {t.untyped_storage()._cdata for t in known}
        self._references: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.follow(leaf)
        return out

    def follow(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        key, n = storage._cdata, storage.nbytes()
        if key in self._known or key in self._references:
            return

        def freed(_):
            del self._references[key]
            self.live -= n

        self._references[key] = weakref.ref(storage, freed)
        self.live += n
        self.peak = max(self.peak, self.live)


def _forward_and_backward(network, inputs, autocast) -> tuple[int, int]:
    """Return the bytes saved for the backward pass, and the most alive at once, both without weights and gradients."""
    kept = [*network.parameters(), *network.buffers(), *(p.grad for p in network.parameters() if p.grad is not None)]
    saved = {}
    weights = {t.untyped_storage()._cdata for t in kept}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage  # held, so that its address is not used again
        return tensor

    tracker = _LiveStorages(kept)
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, torch.Tensor):
            pack(leaf)
            tracker.follow(leaf)
    with tracker:
        with saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
            loss = _scalar(network(*inputs))
        activations = sum(storage.nbytes() for storage in saved.values())
        saved.clear()
        loss.backward()
    return activations, tracker.peak


def _scalar(output) -> torch.Tensor:
    leaves = tree_leaves(output if isinstance(output, (torch.Tensor, tuple, list, dict)) else tuple(output))
    losses = [t if t.ndim == 0 else t.float().square().mean()
              for t in leaves if isinstance(t, torch.Tensor) and t.requires_grad]
    if not losses:
        raise InputError("build must give a network whose output depends on its weights, but it has no gradient.")
    return sum(losses)


def _checkpoint(network) -> None:
    """Checkpoint the network itself, or else the outermost of its parts that can be."""
    if hasattr(network, "enable_gradient_checkpointing"):
        network.enable_gradient_checkpointing()
        return
    for child in network.children():
        _checkpoint(child)


def _autocast(device, precision):
    dtype = _AUTOCAST[precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _bytes(tensors) -> int:
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def _gb(n: float) -> str:
    return f"{n / 1e9:.3g} GB"
