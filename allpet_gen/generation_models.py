"""Trained generators by name or folder: the latent diffusion model, or one of its baselines."""

from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from allpet_gen._pretrained import generator_limits, model_folder, network_geometry, pipeline_class, shipped_models
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

#: Where the class of each pipeline is, by its name.
_MODULES = MappingProxyType({"SinogramGenerationPipeline": "allpet_gen.pipelines",
                             "VAEPipeline": "allpet_gen.baselines.vae", "GANPipeline": "allpet_gen.baselines.gan",
                             "SGMPipeline": "allpet_gen.baselines.sgm"})
#: Baselines, by the folder in the ``--out`` of their training.
METHODS = ("vae", "gan", "sgm")


class Limits(NamedTuple):
    """What can be asked of a generator, as known without its weights."""

    geometry: ParallelGeometry
    baseline: type | None  #: The class of a baseline's pipeline, None for the latent diffusion model.
    most_steps: int | None  #: Of the latent diffusion model.


def load_generator(name):
    """Return the pipeline of a generator or of a baseline.

    Parameters
    ----------
    name : str or path
        A generator that comes with the package, the folder of a model, or the ``--out`` of a training of one method.

    Raises
    ------
    InputError
        None of these; a folder of several baselines; a model of another kind; whatever `from_pretrained` refuses.
    """
    folder = generator_folder(name)
    return _class_of(folder).from_pretrained(folder)


def generator_folder(name) -> Path:
    """Return the folder that `load_generator` loads from, without loading anything.

    Raises
    ------
    InputError
        As `load_generator`.
    """
    folder = Path(str(name))
    if pipeline_class(folder) is None and str(name) not in shipped_models():
        within = [method for method in METHODS if pipeline_class(folder / method) in _MODULES]
        if len(within) > 1:
            raise InputError(f"model must be one trained network, but {str(name)!r} holds {', '.join(within)}; give "
                             f"the folder of one, such as {folder / within[0]}.")
        if within:
            return folder / within[0]
    return model_folder(name)


def limits(folder: Path) -> Limits:
    """Return what can be asked of the generator in a folder, without reading any weights.

    Raises
    ------
    InputError
        A folder of another kind of model, of another format, or without what describes its network.
    """
    if pipeline_class(folder) in _MODULES and pipeline_class(folder) != "SinogramGenerationPipeline":
        return Limits(network_geometry(folder), _class_of(folder), None)
    geometry, most = generator_limits(folder)  # which refuses models of other kinds
    return Limits(geometry, None, most)


def _class_of(folder: Path) -> type:
    """Return the class of the pipeline in a folder; the generator's, which says what is wrong, for an unknown one."""
    name = pipeline_class(folder)
    name = name if name in _MODULES else "SinogramGenerationPipeline"
    return getattr(import_module(_MODULES[name]), name)
