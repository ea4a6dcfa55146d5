"""allpet_gen: a latent diffusion model of PET count sinograms on top of `allpet_physics`.

Names are imported when they are used, so that ``import allpet_gen`` needs no torch.
"""

from importlib import import_module

_ROOMS = {
    "Prompt": "prompts",
    "CountScaling": "count_scaling",
    "SinogramAutoencoder": "autoencoder",
    "SinogramDenoiser": "denoiser",
    "SinogramGenerationPipeline": "pipelines",
    "SinogramBridgePipeline": "translation_pipelines",
    "translate_unsupervised": "unsupervised",
    "ProjectionLayer": "projection_layer",
    "BridgeScheduler": "bridge_scheduler",
    "RangeGuidance": "guidance",
    "PoissonGuidance": "guidance",
}
__all__ = list(_ROOMS)


def __getattr__(name: str):
    if name not in _ROOMS:
        raise AttributeError(f"module 'allpet_gen' has no attribute {name!r}")
    from allpet_gen._torch import require_torch

    require_torch()
    return getattr(import_module(f"allpet_gen.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
