"""A pipeline of random weights, small enough to draw from in an instant; its sinograms mean nothing."""

import numpy as np
import torch

from allpet_gen.autoencoder import SinogramAutoencoder
from allpet_gen.denoiser import SinogramDenoiser
from allpet_gen.objectives import noise_schedule
from allpet_gen.pipelines import SinogramGenerationPipeline
from allpet_gen.samplers import SinogramDDIMScheduler
from allpet_physics.geometry import ParallelGeometry

GEOMETRY = ParallelGeometry(32, 32, 20.8, (32, 32), 20.8)


def tiny_pipeline(seed: int = 0) -> SinogramGenerationPipeline:
    """Return an untrained pipeline of 32 angles x 32 bins whose denoiser minds the prompt."""
    torch.manual_seed(seed)
    autoencoder = SinogramAutoencoder(GEOMETRY.to_dict(), 400.0, patch=2, block_out_channels=(16, 32),
                                      latent_channels=4, norm_num_groups=8, mid_attention=False,
                                      latent_mean=[0.1, -0.2, 0.3, 0.0], latent_std=[0.9, 1.1, 1.0, 0.8])
    denoiser = SinogramDenoiser(autoencoder.latent_shape, GEOMETRY.arc, block_out_channels=(32, 32),
                                attention_levels=(False, True), token_dim=16, attention_head_dim=2, norm_num_groups=8)
    scheduler = SinogramDDIMScheduler.from_config(noise_schedule(
        {"steps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
         "zero_terminal_snr": True}).config)
    pipe = SinogramGenerationPipeline(autoencoder.eval(), denoiser.eval(), scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def disc(radius_mm: float = 80.0) -> np.ndarray:
    """Return a disc in the middle of the image as a region."""
    return np.hypot(GEOMETRY.x, GEOMETRY.y[:, None]) < radius_mm
