"""One training loop for every network, on accelerate: averaging, mixed precision, checkpoints, exact resumption.

What a step does follows from the seed and the step's number alone (batches, masks, views, noise), so a training that
was stopped and resumed has the losses of one that was not; a checkpoint need not hold any state of a random generator.
"""

import contextlib
import math
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import nn

from allpet_gen.checkpoints import last_good_checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from allpet_gen.data import StepSampler, start_worker
from allpet_gen.training_log import TrainingLog
from allpet_gen.training_settings import PRECISIONS, SCHEDULES, TrainingSettings, require_precision
from allpet_physics.errors import InputError

__all__ = ["PRECISIONS", "SCHEDULES", "Averages", "TrainingError", "TrainingSettings", "TrainingStopped",
           "start_accelerator", "train"]


class TrainingError(RuntimeError):
    """A training that cannot go on for a reason in its numbers; the last good checkpoint is kept."""


class TrainingStopped(Exception):
    """A training that was asked to stop before its end; its checkpoint is written.

    Attributes
    ----------
    step, steps : int
        How many were done, of how many.
    """

    def __init__(self, step: int, steps: int):
        super().__init__(f"stopped after step {step} of {steps}")
        self.step, self.steps = step, steps


class Averages:
    """Exponential moving average of the weights, with diffusers' warm-up: decay (1 + k)/(10 + k) at first."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                self.weights[name].lerp_(value.detach(), 1 - decay)
            else:
                self.weights[name].copy_(value)


def start_accelerator(precision: str = "no"):
    """Return an `Accelerator` for a precision: a GPU's where there is one, the CPU's otherwise.

    Raises
    ------
    InputError
        A precision that this device does not have.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    require_precision(precision)
    on_gpu = torch.cuda.is_available()
    AcceleratorState._reset_state()  # a training before this one in the same process may have had another precision
    try:
        # The other processes wait while the first one encodes the whole training set.
        return Accelerator(mixed_precision=precision, cpu=not on_gpu,
                           kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))])
    except ValueError as error:  # of a GPU without bfloat16
        if precision == "no":
            raise
        raise InputError(f'precision must be one that this device has, but was "{precision}" ({error}); take '
                         '"no".') from None


def train(objective: nn.Module, dataset, settings: TrainingSettings, out, *, validation=None, resume: bool = False,
          report: Callable | None = None, stop: Callable[[], bool] | None = None) -> nn.Module:
    """Train an objective and return it with the averaged weights.

    Under ``accelerate launch`` or ``torchrun`` each process takes its share of every batch, gradients are averaged,
    and the first process writes; losses are logged as means over the processes.

    Parameters
    ----------
    objective : nn.Module
        ``objective(batch, generator, part)`` gives loss and terms; it has ``parts``, and may have ``betas``, ``rates``.
    dataset : Dataset
        Items by (epoch, index).
    settings : TrainingSettings
    out : path-like
        Folder for checkpoints and logs.
    validation : Dataset, optional
        Its loss is logged at each checkpoint, always with the same noise.
    resume : bool
        Go on from the last whole checkpoint in `out`, if there is one.
    report : callable, optional
        Called with ``step, steps, loss, seconds_left`` after every step of the main process.
    stop : callable, optional
        Asked after each step whether to write a checkpoint and stop.

    Raises
    ------
    TrainingError
        A loss or a gradient that is not finite: says at which step, in which term, and which checkpoint is the last
        good one.
    TrainingStopped
        `stop` said so before the last step; the checkpoint is written.
    InputError
        `out` holds a training and `resume` is false; all checkpoints are damaged, or were made with other settings.
    """
    accelerator = start_accelerator(settings.precision)
    out, main = Path(out), accelerator.is_main_process
    if not resume and (there := latest_checkpoint(out)) is not None:
        raise InputError(f"out must hold no training, but {str(out)!r} has a checkpoint, {there.name}; resume it, or "
                         "choose another folder.")
    if accelerator.num_processes > 1 and len(objective.parts) > 1:
        raise InputError(f"networks that are trained by turns ({', '.join(objective.parts)}) must be trained by one "
                         f"process, but there were {accelerator.num_processes}; start one, or, for an autoencoder, set "
                         "autoencoder_loss.adversarial to 0.")
    torch.manual_seed(settings.seed)  # dropout alone draws from it; batches and noise have generators of their own
    if settings.gradient_checkpointing:
        for module in objective.children():
            if hasattr(module, "enable_gradient_checkpointing"):
                module.enable_gradient_checkpointing()
    objective.to(accelerator.device)
    optimisers = {part: torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay,
                                          betas=getattr(objective, "betas", (0.9, 0.99)))
                  for part, parameters in objective.parts.items()}
    model, *prepared = accelerator.prepare(objective, *optimisers.values())
    averages, start, before = Averages(objective, settings.ema_decay), 0, 0.0
    if resume:
        with accelerator.main_process_first():  # which sets damaged ones aside
            checkpoint = last_good_checkpoint(out)
        if checkpoint is not None:
            card = load_checkpoint(checkpoint, objective, averages.weights, optimisers, settings,
                                   scaler=accelerator.scaler, processes=accelerator.num_processes)
            start, before = card["step"], card.get("seconds", 0.0)
    log, began = TrainingLog(out, start) if main else None, time.monotonic()

    def save(step: int) -> None:
        accelerator.wait_for_everyone()
        if main:
            held = _validate(objective, averages, validation, settings, accelerator.device)
            if held is not None:
                log.write(step, {"validation": held})
            save_checkpoint(out, step, objective, averages.weights, optimisers, settings, scaler=accelerator.scaler,
                            processes=accelerator.num_processes, seconds=before + time.monotonic() - began)
        accelerator.wait_for_everyone()

    try:
        batches, saved = _batches(dataset, settings, start, accelerator), began
        objective.train()
        for step in range(start, settings.steps):
            terms = _step(accelerator, model, objective, dict(zip(optimisers, prepared, strict=True)), batches,
                          settings, step, out)
            averages.update(objective, step)
            if main:
                log.write(step + 1, terms)
                if report is not None:
                    left = (time.monotonic() - began) / (step + 1 - start) * (settings.steps - step - 1)
                    report(step + 1, settings.steps, terms["loss"], left)
            due = main and time.monotonic() - saved > settings.checkpoint_minutes * 60
            due, stopping = _said_by_any(accelerator, due, stop is not None and stop())
            finished = step + 1 == settings.steps
            if due or stopping or finished:
                save(step + 1)
                saved = time.monotonic()
            if stopping and not finished:
                raise TrainingStopped(step + 1, settings.steps)
    finally:
        if log is not None:
            log.close()
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # the objective's own forward again, without autocast
        objective.__dict__.pop("_is_accelerate_prepared", None)
        for parameter in (p for parameters in objective.parts.values() for p in parameters):
            parameter.requires_grad_(True)
    objective.load_state_dict(averages.weights)
    return objective.eval()


def _batches(dataset, settings: TrainingSettings, start: int, accelerator):
    from torch.utils.data import DataLoader

    passes = range(start * settings.accumulation, settings.steps * settings.accumulation)
    sampler = StepSampler(len(dataset), settings.batch, passes, settings.seed, accelerator.process_index,
                          accelerator.num_processes)
    workers = settings.workers if passes else 0
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=workers, worker_init_fn=start_worker,
                        multiprocessing_context="spawn" if workers else None)
    threads = torch.get_num_threads()
    for batch in loader:
        torch.set_num_threads(threads)  # numba changes them when it starts its own, and sums would round differently
        yield batch


def _step(accelerator, model, objective, optimisers: dict, batches, settings: TrainingSettings, step: int,
          out: Path) -> dict[str, float]:
    """Update every part of an objective once; return what is logged."""
    inputs = [_to(next(batches), accelerator.device) for _ in range(settings.accumulation)]
    totals: dict[str, float] = {}
    for number, (part, optimiser) in enumerate(optimisers.items()):
        suffix = f"_{part}" if number else ""
        _only(objective, part)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate(step) * getattr(objective, "rates", {}).get(part, 1.0)
        found: dict[str, float] = {}
        for passed, batch in enumerate(inputs):
            generator = _noise(accelerator, settings.seed, step, passed)
            last = passed + 1 == settings.accumulation
            with contextlib.nullcontext() if last else accelerator.no_sync(model):
                with accelerator.autocast():
                    loss, terms = model(batch, generator, part)
                accelerator.backward(loss / settings.accumulation)
            for name, value in {f"loss{suffix}": loss.detach(), **terms}.items():
                found[name] = found.get(name, 0.0) + float(value) / settings.accumulation
        found = _mean_of_processes(accelerator, found)
        _require_finite(found, step, out)
        found[f"norm{suffix}"] = float(accelerator.clip_grad_norm_(objective.parts[part], settings.clip))
        if settings.precision != "fp16":  # whose scaler leaves out steps that overflow, and lowers its scale
            _require_finite(found, step, out)
        optimiser.step()
        optimiser.zero_grad()
        totals |= found
    return totals | {"rate": settings.rate(step)}


def _noise(accelerator, seed: int, step: int, passed: int) -> torch.Generator:
    """Return the generator of a pass, by NumPy's seed sequence: the same on every machine and version of Python."""
    words = np.random.SeedSequence([seed, step, passed, accelerator.process_index]).generate_state(1, np.uint64)
    return torch.Generator(device=accelerator.device).manual_seed(int(words[0]) >> 1)


@torch.no_grad()
def _validate(objective, averages: Averages, dataset, settings: TrainingSettings, device) -> float | None:
    """Return the loss of the averaged weights on held-out items, with noise that never changes."""
    if dataset is None or not len(dataset):
        return None
    kept = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.load_state_dict(averages.weights)
    objective.eval()
    total, n = 0.0, min(settings.validation or len(dataset), len(dataset))
    generator = torch.Generator(device=device).manual_seed(settings.seed)
    for start in range(0, n, settings.batch):
        items = [dataset[0, i] for i in range(start, min(start + settings.batch, n))]
        loss, _ = objective(_to(torch.utils.data.default_collate(items), device), generator)
        total += float(loss) * len(items)
    objective.load_state_dict(kept)
    objective.train()
    return total / n


def _require_finite(terms: dict[str, float], step: int, out: Path) -> None:
    wrong = [name for name, value in terms.items() if not math.isfinite(value)]
    if wrong:
        kept = latest_checkpoint(out)
        go_on = f"the last good checkpoint is {kept}; resume" if kept else "no checkpoint was written yet; begin anew"
        raise TrainingError(f"the loss and its gradient must stay finite, but at step {step + 1} these were not: "
                            f'{", ".join(wrong)}; {go_on} with a lower learning_rate or clip, or with precision "no".')


def _mean_of_processes(accelerator, values: dict[str, float]) -> dict[str, float]:
    """Return means over the processes, so that all of them stop where one has a loss that is not finite."""
    if accelerator.num_processes == 1:
        return values
    mean = accelerator.reduce(torch.tensor(list(values.values()), device=accelerator.device), "mean")
    return dict(zip(values, mean.tolist(), strict=True))


def _said_by_any(accelerator, *said: bool) -> list[bool]:
    """Return what any process said; each has a clock and receives signals of its own, but all must save together."""
    if accelerator.num_processes == 1:
        return list(said)
    return (accelerator.reduce(torch.tensor(said, device=accelerator.device).float(), "sum") > 0).tolist()


def _only(objective: nn.Module, part: str) -> None:
    """Let gradients reach the parameters of one part only."""
    if len(objective.parts) > 1:
        for name, parameters in objective.parts.items():
            for parameter in parameters:
                parameter.requires_grad_(name == part)


def _to(batch, device):
    if isinstance(batch, dict):
        return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    return batch.to(device, non_blocking=True)
