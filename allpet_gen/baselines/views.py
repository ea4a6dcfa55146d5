"""What the baselines of the generator are trained on: views of sinograms with their prompts, drawn on the fly."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.utils.data import Dataset

from allpet_gen.count_scaling import CountScaling
from allpet_gen.data import ClassSet, apply_view, draw_view, view_numbers
from allpet_gen.prompts import NULL

_VIEW = 1  # as of `CompositeDataset`: a sinogram has the same view in the same epoch


class ViewDataset(Dataset):
    """Item (epoch, index) is a view of sinogram `index`, with its prompt and what was done to it.

    The views are those that the generator's autoencoder is shown, sinogram by sinogram and epoch by epoch. An item has
    ``x`` (1, angle, bin), roots of counts in the range of `CountScaling`; ``tokens`` (3,) and ``view`` (3,), as
    `SinogramDenoiser` is told them.

    Parameters
    ----------
    data : ClassSet
    scale : float
        Of `CountScaling`.
    augmentation : mapping
        Section of the settings.
    seed : int
    """

    def __init__(self, data: ClassSet, scale: float, augmentation: Mapping, seed: int):
        self.data, self.scaling, self.augmentation, self.seed = data, CountScaling(scale), augmentation, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key
        rng = np.random.Generator(np.random.Philox(key=[self.seed, _VIEW], counter=[0, 0, epoch, index]))
        turn, mirrored = draw_view(rng, self.augmentation, self.data.geometry)
        counts = apply_view(self.data.counts[index], turn, mirrored, self.data.geometry).astype(np.float32)
        return {"x": torch.from_numpy(self.scaling.encode(np.ascontiguousarray(counts)))[None],
                "tokens": torch.from_numpy(self.data.tokens[index]),
                "view": torch.tensor(view_numbers(turn, mirrored, self.data.geometry))}


def without_some_words(tokens: torch.Tensor, chance: float, generator: torch.Generator) -> torch.Tensor:
    """Return tokens (n, 3) with each word dropped by a chance, and all three by the same chance besides.

    So the generator's denoiser is trained, and a prompt may leave out the tracer or the region.
    """
    n, device = len(tokens), generator.device
    dropped = torch.rand(n, 3, generator=generator, device=device) < chance
    dropped = dropped | (torch.rand(n, 1, generator=generator, device=device) < chance)
    return tokens.masked_fill(dropped.to(tokens.device), NULL)
