"""What two processes that train together run, each in an interpreter of its own: see test_training."""

import json
import os
import sys
from pathlib import Path

import torch

from allpet_gen.training import TrainingError, TrainingSettings, TrainingStopped, train

from . import training_helpers as tiny


class NotFiniteInOne(tiny.Fit):
    """Its loss becomes infinite in the second process alone, at the third step."""

    calls = 0

    def forward(self, batch, generator, part="model"):
        loss, terms = super().forward(batch, generator, part)
        self.calls += 1
        if self.calls == 3 and torch.distributed.get_rank() == 1:
            loss = loss * float("inf")
        return loss, terms


def main(out: Path) -> None:
    rank = int(os.environ["RANK"])
    how = TrainingSettings(steps=6, batch=3, learning_rate=1e-2, accumulation=2)
    # Other weights in each process: the first one's must win.
    weights = train(tiny.Fit(noise=0.0, seed=rank), tiny.Points(), how, out / "fit",
                    validation=tiny.Points()).state_dict()
    torch.save(weights, out / f"fit-{rank}.pt")

    settings, data, composites = tiny.tiny_composites()
    short = TrainingSettings(steps=2, batch=1, learning_rate=1e-3)
    train(tiny.autoencoder_objective(settings, data), composites, short, out / "autoencoder")
    train(tiny.denoiser_objective(settings), tiny.Latents(), short, out / "denoiser")

    said = {}
    try:
        train(tiny.Fit(seed=0), tiny.Points(), how, out / "stopped", stop=lambda: rank == 1)
    except TrainingStopped as stopped:
        said["stopped"] = stopped.step
    try:
        train(NotFiniteInOne(seed=0), tiny.Points(), how, out / "diverged")
    except TrainingError as error:
        said["diverged"] = str(error)
    (out / f"said-{rank}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
