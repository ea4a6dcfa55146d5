"""A cohort of six patients and settings for translations of it, small enough to be trained on in seconds."""

from click.testing import CliRunner

from allpet_physics.cli import cli
from allpet_physics.simulation.cohort import cohort_parameters, write_cohort

SPLIT = {"train": [0, 1, 2], "validation": [3, 4, 5]}


def write_store(path, size: int, tracers=("FDG", "PSMA"), seed: int = 0):
    """Write a cohort with one slice of each patient; return its folder."""
    write_cohort(path, cohort_parameters(6, size=size, n_slices=1, tracers=tracers, split=SPLIT, seed=seed))
    return path


def quick(size: int, steps: int) -> list[str]:
    """Return options of ``allpet train --task`` for such a cohort."""
    changes = [f"cohort.size={size}", "cohort.patients=6", "cohort.slices=1", "data.per_region=1",
               "training.validation=15", "network.block_out_channels=[16,16]", "network.attention_head_dim=2"]
    changes += [f"training.{method}.{name}={value}" for method in ("bridge", "unet", "cyclegan")
                for name, value in (("steps", steps), ("batch", 4))]
    return ["--config", "tiny", *(word for change in changes for word in ("--set", change))]


def allpet(*arguments):
    """Run a command of allpet in this process."""
    return CliRunner().invoke(cli, [str(a) for a in arguments])
