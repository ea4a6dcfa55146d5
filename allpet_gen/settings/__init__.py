"""The sizes of the generator, one settings file each, and how they are read."""

import copy
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from allpet_gen.training_settings import TrainingSettings, device_precision
from allpet_physics.errors import InputError

SIZES = ("tiny", "small", "medium", "base")
#: Baselines of the generator: each has a section of its own, and one of its training.
BASELINES = ("vae", "gan", "sgm")
#: Bounds of the numbers that no other part checks before long work begins, ends included.
_BOUNDS = {
    "data.per_class": (1, math.inf), "cohort.size": (16, math.inf), "cohort.patients": (1, math.inf),
    "cohort.slices": (1, 255), "cohort.seed": (0, math.inf), "augmentation.rotation_deg": (0, 180),
    "augmentation.mirror": (0, 1), "augmentation.views": (1, math.inf), "autoencoder_loss.kl": (0, math.inf),
    "autoencoder_loss.spectral": (0, math.inf), "autoencoder_loss.consistency": (0, math.inf),
    "autoencoder_loss.adversarial": (0, math.inf), "diffusion.steps": (1, math.inf), "diffusion.null_prompt": (0, 1),
    "diffusion.min_snr_gamma": (0, math.inf), "autoencoder.patch": (1, math.inf), "data.per_region": (1, math.inf),
    "synthetic.per_region": (0, math.inf), "synthetic.seed": (0, math.inf),
    "network.patch": (1, math.inf), "told.gate_strength": (0, math.inf), "told.gated": (0, 1),
    "told.null_prompt": (0, 1), "autoencoder.latent_channels": (1, math.inf),
} | {f"{network}.{name}": (1, math.inf) for network in ("autoencoder", "denoiser", "network", *BASELINES)
     for name in ("layers_per_block", "norm_num_groups", "token_dim", "attention_head_dim", "latent_dim", "patch",
                  "discriminator_features")
} | {f"{baseline}.null_prompt": (0, 1) for baseline in BASELINES[1:]} | {
    "vae.kl": (0, math.inf), "vae.kl_warmup": (0, math.inf), "gan.r1": (0, math.inf),
    "gan.mode_seeking": (0, math.inf)}
#: Bounds that are left out themselves, below and above.
_BETWEEN = {"gan.r1_share": (0, 1 + 1e-9), "gan.discriminator_rate": (0, 100), "sgm.noise_share": (0, 100)}
#: What a baseline uses of the generator's networks.
_USES = {"sgm": {"denoiser"}}
_BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


def read_settings(config="small", changes: Mapping | None = None, family: str = "",
                  automatic: str | None = None) -> dict:
    """Return the settings of a size or of a file of one's own, with some of them changed.

    Parameters
    ----------
    config : str or path
        One of `SIZES`, or a TOML file with the same sections; what a file leaves out is as in ``small``.
    changes : mapping, optional
        New values by dotted name, such as ``{"training.denoiser.steps": 100}``.
    family : {"", "translation-"}
        The generator's settings, or those of bridges and baselines.
    automatic : str, optional
        What a precision "auto" stands for; by default for that of `device_precision`.

    Returns
    -------
    dict
        Sections as dictionaries, in plain types; a precision "auto" is settled.

    Raises
    ------
    InputError
        An unknown size, a file that cannot be read, a name that no section has, a value of another type or out of
        range, widths that are no multiples of groups and heads.
    """
    settings = _packaged(f"{family}small")
    if str(config) in SIZES:
        settings = _packaged(f"{family}{config}")
    else:
        _update(settings, _read(config), f"{config}: ")
    for name, value in (changes or {}).items():
        nested: dict = {}
        inner = nested
        *sections, last = name.split(".")
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
        _update(settings, nested)
    _check(settings)
    if settings["training"]["precision"] == "auto":
        settings["training"]["precision"] = automatic or device_precision()
    return settings


def settings_of(settings: Mapping, method: str) -> dict:
    """Return the settings of the generator's family that the training of one method depends on.

    Parameters
    ----------
    settings : mapping
        Of `read_settings`.
    method : {"generator", "vae", "gan", "sgm"}
        Sections of the others are left out; a baseline keeps of the generator's what it uses too.
    """
    others = {name for name in BASELINES if name != method}
    if method in BASELINES:
        others |= {"autoencoder", "autoencoder_loss", "diffusion", "masks"} | ({"denoiser"} - _USES.get(method, set()))
    kept = {name: value for name, value in settings.items() if name not in others}
    of_training = {*others, *({"autoencoder", "denoiser"} if method in BASELINES else ())}
    kept["training"] = {name: value for name, value in settings["training"].items() if name not in of_training}
    return kept


def parse_change(text: str) -> tuple[str, object]:
    """Return name and value of a change written as ``name=value``; the value as in TOML, or a bare word.

    Raises
    ------
    InputError
        No equals sign, or nothing before it.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise InputError("a setting must be given as name=value, such as training.denoiser.steps=100, but was "
                         f"{text!r}.")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def differences(was: Mapping, now: Mapping, path: str = "") -> dict[str, tuple]:
    """Return by dotted name the old and the new value of every setting that differs."""
    found = {}
    for name in dict.fromkeys([*was, *now]):
        old, new = was.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differences(old, new, f"{path}{name}.")
        elif old != new:
            found[f"{path}{name}"] = (old, new)
    return found


def _packaged(size: str) -> dict:
    return tomllib.loads((files(__name__) / f"{size}.toml").read_text(encoding="utf-8"))


def _read(config) -> dict:
    known = f"config must be one of {', '.join(SIZES)}, or a TOML file, but"
    if not isinstance(config, (str, os.PathLike)):
        raise InputError(f"{known} was {config!r}.")
    path = Path(config)
    if not path.is_file():
        raise InputError(f"{known} {str(path)!r} is neither a size nor a file.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{known} {str(path)!r} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # no TOML, or no text
        raise InputError(f"{known} {str(path)!r} is none: {error}.") from None


def _update(settings: dict, new: Mapping, where: str = "", path: str = "") -> None:
    """Put new values into settings; errors begin with `where` the values come from."""
    for name, value in new.items():
        if name not in settings:
            raise InputError(f"{where}settings must be among {', '.join(f'{path}{known}' for known in settings)}, "
                             f"but {path}{name} was given.")
        old = settings[name]
        if isinstance(old, dict):
            if not isinstance(value, Mapping):
                raise InputError(f"{where}{path}{name} must be a section, but was {value!r}.")
            _update(old, value, where, f"{path}{name}.")
        else:
            settings[name] = _alike(old, value, f"{where}{path}{name}")


def _alike(old, value, what: str):
    """Return a value in the type of the one that it replaces."""
    if isinstance(old, list) and isinstance(value, Sequence) and not isinstance(value, str) and len(value):
        return [_alike(old[0], item, what) for item in value]
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(old) or isinstance(old, list):
        raise InputError(f"{what} must be like {old!r}, but was {value!r}.")
    return copy.deepcopy(value)


def _check(settings: Mapping) -> None:
    for name, (low, high) in _BOUNDS.items():
        section, key = name.split(".")
        if key not in settings.get(section, ()):
            continue  # of the other family
        value = settings[section][key]
        if not (low <= value <= high and math.isfinite(value)):
            limits = f"from {low} to {high}" if math.isfinite(high) else f"{low} or more"
            raise InputError(f"{name} must be {limits}, but was {value}.")
    for name, (low, high) in _BETWEEN.items():
        section, key = name.split(".")
        if section in settings and not low < settings[section][key] < high:
            raise InputError(f"{name} must be above {low} and at most {round(high)}, but was {settings[section][key]}.")
    for part in ("autoencoder", "denoiser", "network", "vae", "gan"):
        if part in settings:
            _check_widths(part, settings[part])
    _check_training(settings["training"])
    if "diffusion" in settings:
        _check_generator(settings)


def _check_generator(settings: Mapping) -> None:
    diffusion = settings["diffusion"]
    if diffusion["beta_schedule"] not in _BETA_SCHEDULES:
        raise InputError(f"diffusion.beta_schedule must be one of {', '.join(_BETA_SCHEDULES)}, but was "
                         f"{diffusion['beta_schedule']!r}.")
    if not 0 < diffusion["beta_start"] <= diffusion["beta_end"] < 1:
        raise InputError("diffusion.beta_start and beta_end must be in (0, 1), the first the smaller, but were "
                         f"{diffusion['beta_start']} and {diffusion['beta_end']}.")
    for name in ("n_blocks", "block_px"):
        values = settings["masks"][name]
        if len(values) != 2 or not 1 <= values[0] <= values[1]:
            raise InputError(f"masks.{name} must be two whole numbers >= 1, the first the smaller, but was {values}.")


def _check_widths(part: str, network: Mapping) -> None:
    """Refuse widths of levels that groups and heads do not divide, in the names that the settings have for them."""
    widths = network["block_out_channels"]
    wanted = [("norm_num_groups", widths, "")]
    if "attention_levels" in network:
        attends = network["attention_levels"]
        if len(attends) != len(widths):
            raise InputError(f"{part}.attention_levels must have one entry for each of {part}.block_out_channels, but "
                             f"had {len(attends)} for {len(widths)}.")
        # The middle block attends too, at the width of the last level.
        attending = [width for width, yes in zip(widths, attends, strict=True) if yes] + widths[-1:]
        wanted += [("attention_head_dim", attending, " (the number of heads) where a level attends and at the last")]
    for name, of, where in wanted:
        if any(width < 1 or width % network[name] for width in of):
            raise InputError(f"{part}.block_out_channels must be positive multiples of {part}.{name}, "
                             f"{network[name]}{where}, but were {', '.join(map(str, widths))}.")


def _check_training(training: Mapping) -> None:
    """Refuse what `TrainingSettings` refuses, with the section in front of the name."""
    for stage in (name for name, value in training.items() if isinstance(value, Mapping)):
        try:
            TrainingSettings.of(training, stage)
        except InputError as error:
            section = f"training.{stage}" if str(error).partition(" ")[0] in training[stage] else "training"
            raise InputError(f"{section}.{error}") from None
