"""What trainings on the command line share: how they are stopped, how they report, the cohort that nobody gave."""

import contextlib
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from allpet_physics import _command_line as line

#: Where a cohort is simulated, in the folder of the training.
COHORT = "cohort.zarr"


@contextlib.contextmanager
def stop_signals():
    """Yield what says whether Ctrl-C or SIGTERM came; the second one ends at once."""
    received = []

    def note(number, _frame):
        if received:
            raise KeyboardInterrupt("interrupted; the last checkpoint is kept: go on with --resume.")
        received.append(number)
        line.note("stopping after this step, with a checkpoint; press Ctrl-C again to stop at once ...")

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Report:
    """Progress of a stage with its loss: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, stage: str, progress):
        self.stage, self.progress, self._bar, self._shown, self._loss = stage, progress, None, time.monotonic(), None

    def __enter__(self):
        self.progress.stage(f"training the {self.stage}")
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def __call__(self, step: int, steps: int, loss: float, seconds_left: float) -> None:
        """Show one step; the loss shown is a mean over some 50."""
        if self.progress.quiet:
            return
        self._loss = loss if self._loss is None else self._loss + 0.02 * (loss - self._loss)
        if self.progress.terminal:
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(desc=self.stage, initial=step - 1, total=steps, unit="step", dynamic_ncols=True)
            self._bar.set_postfix_str(f"loss {self._loss:.4g}", refresh=False)
            self._bar.update()
        elif time.monotonic() - self._shown > 10 or step == steps:
            self._shown = time.monotonic()
            line.note(f"{self.stage}: step {step} of {steps}, loss {self._loss:.4g}, {_time_text(seconds_left)} left")


def begun_precision(folder: Path) -> str | None:
    """Return the precision of the training in a folder, None if there is none; say so where it is slow here."""
    from allpet_gen.training_card import read_card
    from allpet_gen.training_settings import device_precision

    card = read_card(folder)
    if card is None:
        return None
    training = card["settings"].get("training")
    found = training.get("precision") if isinstance(training, Mapping) else None  # what is wrong there is said later
    if found == "bf16" and device_precision() == "no":
        line.note("the training was begun in bfloat16, for which this machine has no instructions: a step takes ten "
                  "times as long as with --set training.precision=no, which changes the losses a little.")
    return found


def planned_cohort(settings: Mapping) -> dict:
    """Return the parameters of the cohort that the settings describe."""
    from allpet_physics.simulation.cohort_settings import cohort_parameters

    cohort = settings["cohort"]
    return cohort_parameters(cohort["patients"], seed=cohort["seed"], size=cohort["size"], n_slices=cohort["slices"])


def simulate(parameters: dict, store: Path, resume: bool, overwrite: bool, progress) -> None:
    """Write the cohort that a training was not given."""
    from allpet_physics.simulation.cohort import write_cohort

    store.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_cohort(store, parameters, resume=resume, overwrite=overwrite, progress=progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted while the cohort was simulated; what is done is kept: go on with "
                                "--resume.") from None


def parameters_of(store: Path) -> dict | None:
    """Return the parameters of the cohort in a folder, None where there is none."""
    from allpet_physics.io import store as stores

    return stores.describe(store)["parameters"] if (store / "card.json").is_file() else None


def refuse_other_store(card: Mapping, new: Mapping) -> None:
    """Raise `InputError` unless two cards of a training name the same store."""
    from allpet_physics.errors import InputError

    if card["store"]["sha256"] != new["store"]["sha256"]:
        raise InputError("store must be the one that the training was begun with, but its card differs; give that "
                         "one, or choose another --out.")


def stage_lines(card: Mapping, out) -> list[str]:
    """Return a line on each stage of a card, and one on where all is."""
    lines = [f"{name:<12} {stage['steps']} steps in {stage['minutes']:.1f} min, loss {stage['losses']['loss']:.4g}, on "
             f"held-out data {stage['validation_loss']:.4g}" for name, stage in card["stages"].items()]
    return [*lines, f"written  {out}"]


def _time_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else \
        f"{seconds / 3600:.1f} h"
