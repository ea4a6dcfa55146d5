"""Losses by step: a CSV table, and TensorBoard's events where tensorboard is installed."""

import csv
import os
from importlib.util import find_spec
from pathlib import Path

_TABLE = "losses.csv"


class TrainingLog:
    """Rows of (step, name, value) in ``losses.csv``, which any spreadsheet or pandas reads.

    Parameters
    ----------
    out : path
        Folder of the training.
    start : int
        Rows after this step are dropped: a training that was stopped after its last checkpoint does them again.
    """

    def __init__(self, out: Path, start: int):
        out.mkdir(parents=True, exist_ok=True)
        path, partial = out / _TABLE, out / f".{_TABLE}"
        rows = [row for row in _rows(path) if int(row[0]) <= start] if start else []
        with partial.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("step", "name", "value"), *rows])
        os.replace(partial, path)
        self._file = path.open("a", newline="", encoding="utf-8")
        self._table = csv.writer(self._file)
        self._board = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1 if start else None)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write values by name for a step."""
        for name, value in values.items():
            self._table.writerow((step, name, repr(float(value))))
            if self._board is not None:
                self._board.add_scalar(name, value, step)
        self._file.flush()

    def close(self) -> None:
        """Close both."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_losses(out) -> dict[str, dict[int, float]]:
    """Return what was logged in the folder of a training: by name, the value of each step."""
    found: dict[str, dict[int, float]] = {}
    for step, name, value in _rows(Path(out) / _TABLE):
        found.setdefault(name, {})[int(step)] = float(value)
    return found


def _rows(path: Path) -> list[list[str]]:
    """Return the whole rows of a table; the last one may have been cut short by a kill."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = file.read().split("\n")
    return [row for row in csv.reader(lines[:-1]) if len(row) == 3 and row[0].isdigit()]
