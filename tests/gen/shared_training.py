"""What two processes that train together run, each in an interpreter of its own: see test_training."""

import json
import os
import sys
from pathlib import Path

import torch

from allpet_gen.training import TrainingError, TrainingSettings, TrainingStopped, train

from .training_helpers import (
    Fit,
    Latents,
    Points,
    autoencoder_objective,
    composite_dataset,
    denoiser_objective,
    random_class_set,
    tiny_settings,
)


class NotFiniteInOne(Fit):
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
    weights = train(Fit(noise=0.0, seed=rank), Points(), how, out / "fit", validation=Points()).state_dict()
    torch.save(weights, out / f"fit-{rank}.pt")

    settings, data = tiny_settings(), random_class_set()
    composites = composite_dataset(settings, data)
    short = TrainingSettings(steps=2, batch=1, learning_rate=1e-3)
    train(autoencoder_objective(settings, data), composites, short, out / "autoencoder")
    train(denoiser_objective(settings), Latents(), short, out / "denoiser")

    said = {}
    try:
        train(Fit(seed=0), Points(), how, out / "stopped", stop=lambda: rank == 1)
    except TrainingStopped as stopped:
        said["stopped"] = stopped.step
    try:
        train(NotFiniteInOne(seed=0), Points(), how, out / "diverged")
    except TrainingError as error:
        said["diverged"] = str(error)
    (out / f"said-{rank}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
