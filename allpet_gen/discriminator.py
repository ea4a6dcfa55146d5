"""The adversary of the autoencoder: judges patches, not whole sinograms."""

import torch
from torch import nn
from torch.nn import functional


class PatchDiscriminator(nn.Module):
    """Three strided convolutions and a judgement for each patch (Isola et al. 2017, arXiv 1611.07004).

    Parameters
    ----------
    channels : int
    width : int
        Of the first layer.
    """

    def __init__(self, channels: int, width: int = 32):
        super().__init__()
        layers, before = [], channels
        for factor in (1, 2, 4):
            layers += [nn.utils.parametrizations.spectral_norm(nn.Conv2d(before, width * factor, 4, 2, 1)),
                       nn.LeakyReLU(0.2)]
            before = width * factor
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a judgement per patch, high for what looks real."""
        return self.layers(x)


def hinge_loss(discriminator: nn.Module, real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """Return the hinge loss of the discriminator (Lim and Ye 2017, arXiv 1705.02894)."""
    return (functional.relu(1 - discriminator(real)) + functional.relu(1 + discriminator(made))).mean()
