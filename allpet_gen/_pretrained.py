"""Loading of trained pipelines by name or folder, with clear words for whatever is wrong with the files."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import torch

from allpet_physics._record import digest
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

#: Of the layout and the meaning of the files of a model; raised when an older model would be read wrongly.
MODEL_FORMAT = 1
CARD = "allpet.json"
#: What the folders of shipped models begin with, by the class of their pipeline.
KINDS = MappingProxyType({"SinogramGenerationPipeline": "", "SinogramBridgePipeline": "bridge-",
                          "UNetPipeline": "unet-", "VAEPipeline": "vae-", "GANPipeline": "gan-",
                          "SGMPipeline": "sgm-"})


def shipped_models(kind: str = "SinogramGenerationPipeline") -> tuple[str, ...]:
    """Return the names of the models of a kind that come with the package."""
    found = [path for path in _shipped().glob("*/") if pipeline_class(path) == kind]
    return tuple(sorted(path.name.removeprefix(KINDS[kind]) for path in found))


def model_folder(name, kind: str = "SinogramGenerationPipeline") -> Path:
    """Return the folder of a shipped model of a kind, or the user's own.

    Raises
    ------
    InputError
        Neither a name nor a folder with a model.
    """
    names = shipped_models(kind)
    folder = _shipped() / f"{KINDS[kind]}{name}" if str(name) in names else Path(str(name))
    if not (folder / "model_index.json").is_file():
        raise InputError(f"model must be one of {', '.join(names) or '(none is shipped)'}, or a folder that "
                         f"save_pretrained or allpet train wrote, but was {str(name)!r}.")
    return folder


def pipeline_class(folder: Path) -> str | None:
    """Return the name of the class of the pipeline in a folder; None where there is none, or none that can be read."""
    try:
        return json.loads((Path(folder) / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


class PretrainedPipeline:
    """``from_pretrained`` and ``save_pretrained`` of our pipelines, on top of diffusers'.

    Attributes
    ----------
    card : dict
        What is known of the model besides its networks, such as what measured sinograms are like; see `model_card`.
    """

    card: Mapping = MappingProxyType({})

    @classmethod
    def from_pretrained(cls, name="small", **options):
        """Load a shipped model by name, or one from a folder.

        Parameters
        ----------
        name : str or path
        **options
            Of diffusers' ``from_pretrained``, such as ``dtype`` (float32 by default, however the weights are stored);
            nothing is ever downloaded.

        Raises
        ------
        InputError
            No such model, or one of another kind; files that are absent, cut short, of another network or of another
            version.
        """
        from safetensors import SafetensorError

        known = [base.__name__ for base in cls.__mro__]
        folder = model_folder(name, next(base for base in known if base in KINDS))
        found = pipeline_class(folder)
        if found is not None and found not in known:
            raise _other_kind(name, cls.__name__, found)
        card = read_card(folder)
        try:
            with _quiet():
                # Pickled weights could run code; they are never read.
                pipe = super().from_pretrained(str(folder), **{"dtype": torch.float32, **options,
                                                               "local_files_only": True, "use_safetensors": True})
                _require_weights({k: v for k, v in pipe.components.items() if k not in options}, folder)
        except InputError:
            raise
        except (SafetensorError, OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError, AttributeError,
                ImportError) as error:
            raise _not_loadable(folder, error) from None
        pipe.card = card
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def save_pretrained(self, folder, *, card: Mapping | None = None, **options) -> None:
        """Write the model to a folder, as diffusers does, with its card and the version of its format.

        Parameters
        ----------
        folder : path-like
        card : mapping, optional
            Replaces the card of the pipeline.
        **options
            Of diffusers' ``save_pretrained``.
        """
        if card is not None:
            self.card = dict(card)
        super().save_pretrained(str(folder), **options)
        text = json.dumps({**self.card, "format": MODEL_FORMAT}, indent=1, ensure_ascii=False)
        (Path(folder) / CARD).write_text(text + "\n", encoding="utf-8")

    def save_into(self, folder, *, card: Mapping) -> None:
        """Make a folder one that `from_pretrained` loads, or leave it as it was; other files in it stay."""
        folder = Path(folder)
        partial = folder / ".pipeline"
        shutil.rmtree(partial, ignore_errors=True)
        self.save_pretrained(partial, card=card)
        # model_index.json comes last: with it the folder is a model.
        for entry in sorted(partial.iterdir(), key=lambda path: path.name == "model_index.json"):
            if (folder / entry.name).is_dir():
                shutil.rmtree(folder / entry.name)
            entry.replace(folder / entry.name)
        partial.rmdir()


def read_card(folder: Path) -> dict:
    """Return the card of the model in a folder.

    Raises
    ------
    InputError
        None there, one that cannot be read, or one of another format.
    """
    path = Path(folder) / CARD
    if not path.exists():
        raise InputError(f"the model {folder} must have a card, {CARD}, but has none; copy the whole folder again, or "
                         "train it again.")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        found = card["format"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"the model {folder} must have a card, {CARD}, that says its format, but this one cannot be "
                         f"read ({type(error).__name__}); copy it again, or train it again.") from None
    if found != MODEL_FORMAT:
        raise InputError(f"the model {folder} must be of format {MODEL_FORMAT}, but is of {found!r}; use the version "
                         "of allpet that made it, or train it again.")
    return card


def generator_limits(folder: Path) -> tuple[ParallelGeometry, int]:
    """Return the geometry of the generator in a folder, and its most sampling steps, without reading any weights.

    Raises
    ------
    InputError
        A folder of another kind of model, of another format, or without these files.
    """
    found, wanted = pipeline_class(folder), "SinogramGenerationPipeline"
    if found in KINDS and found != wanted:
        raise _other_kind(folder, wanted, found)
    read_card(folder)
    try:
        autoencoder, scheduler = (json.loads((Path(folder) / name).read_text(encoding="utf-8"))
                                  for name in ("autoencoder/config.json", "scheduler/scheduler_config.json"))
        return ParallelGeometry(**autoencoder["geometry"]), int(scheduler["num_train_timesteps"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _not_loadable(folder, error) from None


def network_geometry(folder: Path) -> ParallelGeometry:
    """Return the geometry of a model whose one network is ``network``, without reading any weights.

    Raises
    ------
    InputError
        A model of another format, or without the file that says it.
    """
    read_card(folder)
    try:
        config = json.loads((Path(folder) / "network" / "config.json").read_text(encoding="utf-8"))
        return ParallelGeometry(**config["geometry"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _not_loadable(folder, error) from None


def model_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that a pipeline is loaded from, by its path in the folder."""
    folder = Path(folder)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    parts = [name for name, value in index.items() if isinstance(value, list)]
    found = [folder / "model_index.json", folder / CARD]
    found += [path for part in parts for path in sorted((folder / part).glob("*"))
              if path.suffix in (".json", ".safetensors")]
    return {path.relative_to(folder).as_posix(): digest(path)["sha256"] for path in found}


def model_digest(folder: Path) -> str:
    """Return one SHA-256 of all files of `model_digests`."""
    return hashlib.sha256(json.dumps(model_digests(folder), sort_keys=True).encode()).hexdigest()


def _shipped() -> Path:
    return Path(str(files("allpet_gen"))) / "pretrained"


def _other_kind(name, wanted: str, found: str) -> InputError:
    return InputError(f"model must be one for {wanted}, but {str(name)!r} is one for {found}; load it with that, or "
                      "give another.")


def _not_loadable(folder: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"the model {folder} cannot be loaded: a file is absent, cut short or of another network "
                      f"({type(error).__name__}: {reason}); copy it again, or train it again.")


def _require_weights(networks: Mapping, folder: Path) -> None:
    """Refuse weights that are not the network's: diffusers leaves those that a file lacks as they were drawn."""
    from safetensors import safe_open

    for name, network in networks.items():
        if not hasattr(network, "state_dict"):
            continue
        found = set()
        for path in sorted((folder / name).glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                found |= set(file.keys())
        wanted = set(network.state_dict())
        if found != wanted:
            raise InputError(f"the model {folder} cannot be loaded: the weights of its {name} are of another network "
                             f"({len(wanted - found)} are absent, {len(found - wanted)} unknown); copy it again, or "
                             "train it again.")


class _quiet:
    """Silences diffusers' notes on loading, which are not the user's."""

    def __enter__(self):
        from diffusers.utils import logging

        self._level = logging.get_verbosity()
        logging.set_verbosity(logging.CRITICAL)  # what is wrong is said by our own error
        logging.disable_progress_bar()

    def __exit__(self, *_):
        from diffusers.utils import logging

        logging.set_verbosity(self._level)
        logging.enable_progress_bar()
