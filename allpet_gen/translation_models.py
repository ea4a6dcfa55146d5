"""Trained translations by name or folder, whatever their method."""

from pathlib import Path

from allpet_gen._pretrained import model_folder, pipeline_class
from allpet_gen.baselines.unet import UNetPipeline
from allpet_gen.translation_pipelines import SinogramBridgePipeline, TranslationPipeline
from allpet_gen.translation_stages import METHODS
from allpet_physics.errors import InputError

_CLASSES = {known.__name__: known for known in (SinogramBridgePipeline, UNetPipeline)}


def load_translation(name) -> tuple[TranslationPipeline, Path]:
    """Return the pipeline of a translation and the folder that it was loaded from.

    Parameters
    ----------
    name : str or path
        A bridge that comes with the package, the folder of a model, or the ``--out`` of a training of one method.

    Raises
    ------
    InputError
        None of these; a folder of several methods; a model of another kind; whatever `from_pretrained` refuses.
    """
    folder = translation_folder(name)
    return _CLASSES[pipeline_class(folder)].from_pretrained(folder), folder


def translation_folder(name) -> Path:
    """Return the folder that `load_translation` loads from, without loading anything.

    Raises
    ------
    InputError
        As `load_translation`.
    """
    folder = Path(name)
    within = [method for method in METHODS if pipeline_class(folder / method) in _CLASSES]
    if len(within) > 1 and pipeline_class(folder) is None:
        raise InputError(f"model must be one trained network, but {str(name)!r} holds {', '.join(within)}; give the "
                         f"folder of one, such as {folder / within[0]}.")
    if within and pipeline_class(folder) is None:
        folder = folder / within[0]
    folder = model_folder(folder, "SinogramBridgePipeline")
    if pipeline_class(folder) not in _CLASSES:
        raise InputError(f"model must be one of translations, which allpet train --task makes, but {str(name)!r} is "
                         f"one for {pipeline_class(folder)}.")
    return folder


def is_bridge(pipe: TranslationPipeline) -> bool:
    """Return whether a pipeline draws samples."""
    return isinstance(pipe, SinogramBridgePipeline)
