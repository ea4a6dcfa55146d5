"""What networks of translations are told of their pairs before they are trained: scales, latents, where to start."""

import numpy as np
import torch

from allpet_gen.count_scaling import CountScaling
from allpet_gen.pairs import PairDataset, PairSet
from allpet_gen.tasks import TASKS
from allpet_gen.translator import SLOTS, SinogramTranslator, refuse_unknown_tasks


def measured_scales(pairs: PairSet, tasks) -> tuple[float, dict[str, float]]:
    """Return c and the c_k of `SinogramTranslator` for some training pairs, by `CountScaling.from_counts`."""
    step = max(1, len(pairs) // 300)  # spread over all, some are enough
    source = CountScaling.from_counts(pairs.counts[::step]).scale
    free = CountScaling.from_counts(pairs.unattenuated[::step]).scale
    return source, {task: source if TASKS[task].attenuated else free for task in refuse_unknown_tasks(tasks)}


def measured_latents(network: SinogramTranslator, dataset: PairDataset, n: int = 600) -> dict[str, torch.Tensor]:
    """Return z of targets and sources of pairs spread over all tasks, by "target" and "source", used slots alone."""
    every = np.linspace(0, len(dataset) - 1, min(n, len(dataset))).astype(int)
    batch = torch.utils.data.default_collate([dataset[0, int(k)] for k in every])
    source = network.start(network.encode_source(batch["source"], batch["gain"]), batch["used"], batch["tokens"],
                           batch["numbers"])
    target = network.encode_target(batch["targets"], batch["scale"], batch["used"])
    used = batch["used"].repeat_interleave(network.config.patch**2, dim=1).bool()
    return {"target": target[used], "source": source[used]}


def measured_starts(network: SinogramTranslator, dataset: PairDataset, n: int = 1200, *,
                    paired: bool = True) -> dict[str, list]:
    r"""Return slope and offset of eq. (X2) by task, rows (ℓ, a, b), measured on pairs spread over all tasks.

    .. math:: a = \frac{\mathrm{cov}(z_x, z_y)}{\mathrm{var}(z_x)}, \quad b = \bar z_y - a\,\bar z_x \tag{X3}

    comes nearest to the target; without pairs, :math:`a = \sigma(z_y)/\sigma(z_x)` has its mean and its deviation.
    """
    every = np.linspace(0, len(dataset) - 1, min(n, len(dataset))).astype(int)
    sums: dict[tuple, list] = {}
    for k in every:
        item = dataset[0, int(k)]
        batch = {name: value[None] for name, value in item.items()}
        source = network.encode_source(batch["source"], batch["gain"]).double()
        y = network.encode_target(batch["targets"], batch["scale"], batch["used"]).double()
        y = y.unflatten(1, (SLOTS, -1))[:, batch["used"][0].bool()]
        x = source[:, None].expand_as(y)
        key = dataset.tasks[int(k) // len(dataset.pairs)], round(float(item["numbers"][3]), 9)
        moments = torch.stack([x.mean(), y.mean(), (x * x).mean(), (y * y).mean(), (x * y).mean()])
        had = sums.setdefault(key, [0, torch.zeros(5, dtype=torch.float64)])
        had[0], had[1] = had[0] + 1, had[1] + moments
    out: dict[str, list] = {}
    for (task, level), (count, total) in sorted(sums.items()):
        x, y, xx, yy, xy = (total / count).tolist()
        slope = (xy - x * y) / (xx - x * x) if paired else ((yy - y * y) / (xx - x * x)) ** 0.5
        # Rounded: sums of another number of threads differ in their last bits.
        out.setdefault(task, []).append([level, float(f"{slope:.5g}"), float(f"{y - slope * x:.5g}")])
    for task, rows in out.items():
        if TASKS[task].dose:
            rows.insert(0, [0.0, 1.0, 0.0])
    return out
