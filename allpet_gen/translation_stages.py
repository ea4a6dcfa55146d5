"""The training of translations, from a store to a folder: a bridge, or one of the baselines, for any set of tasks."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from allpet_gen.baselines.cyclegan import CycleGANObjective
from allpet_gen.bridge_schedule import latent_statistics
from allpet_gen.bridge_scheduler import BridgeScheduler
from allpet_gen.pair_statistics import measured_latents, measured_scales, measured_starts
from allpet_gen.pairs import (
    PairDataset,
    PairSet,
    load_pair_set,
    pair_origin,
    read_pair_set,
    save_pair_set,
)
from allpet_gen.synthetic_pairs import draw_synthetic_pairs, join_pairs, synthetic_origin
from allpet_gen.tasks import DOSE_FACTORS, TASKS
from allpet_gen.training import TrainingSettings, train
from allpet_gen.translation_objectives import BridgeObjective, RegressionObjective, Translation
from allpet_gen.translator import SinogramTranslator
from allpet_physics.errors import InputError

METHODS = ("bridge", "unet", "cyclegan")
#: Where a translation starts: at the source moved near the target, eq. (X2), or at the source itself.
STARTS = ("fitted", "source")
#: What one channel's mean and deviation are measured on.
_MEASURED = 600


def read_pair_sets(cohort, settings: Mapping, out, progress: Callable = iter) -> tuple[PairSet, PairSet]:
    """Return the pairs for training and validation; they are kept in `out`, for making them takes minutes.

    Kept ones that are of another store or of other settings are made again. Where ``synthetic.per_region`` is above 0,
    pairs of drawn sinograms join those for training, see `allpet_gen.synthetic_pairs`.
    """
    per_region = settings["data"]["per_region"]
    held = max(1, settings["training"]["validation"] // 15)
    sets = []
    for split, n in (("train", per_region), ("validation", held)):
        path = Path(out) / f"pairs-{split}.npz"
        pairs = load_pair_set(path) if path.is_file() else None
        if pairs is None or pairs.origin != pair_origin(cohort, n, split):
            pairs = read_pair_set(cohort, n, split, progress)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_pair_set(pairs, path)
        sets.append(pairs)
    if settings["synthetic"]["per_region"]:
        sets[0] = join_pairs(sets[0], _synthetic_pairs(settings["synthetic"], sets[0], Path(out), progress))
    return sets[0], sets[1]


def _synthetic_pairs(settings: Mapping, like: PairSet, out: Path, progress: Callable) -> PairSet:
    path = out / "pairs-synthetic.npz"
    pairs = load_pair_set(path) if path.is_file() else None
    if pairs is None or pairs.origin != synthetic_origin(settings, like):
        pairs = draw_synthetic_pairs(settings, like, progress)
        save_pair_set(pairs, path)
    return pairs


def new_translator(pairs: PairSet, tasks, settings: Mapping, method: str = "bridge") -> SinogramTranslator:
    """Return an untrained network for some tasks; its weights follow from the seed, its scales from the pairs.

    With ``data.start`` at "fitted", slopes and offsets of where it starts are measured too, for CycleGAN without pairs.

    Raises
    ------
    InputError
        Another start than "fitted" or "source".
    """
    if settings["data"]["start"] not in STARTS:
        raise InputError(f"data.start must be one of {', '.join(STARTS)}, but was {settings['data']['start']!r}.")
    scale, targets = measured_scales(pairs, tasks)
    geometry, views = pairs.geometry.to_dict(), settings["augmentation"]
    network = settings["network"] | {"rotation_deg": float(views["rotation_deg"]), "mirrored": views["mirror"] > 0}

    def built(center: float, deviation: float, starts=None) -> SinogramTranslator:
        torch.manual_seed(settings["training"]["seed"])
        return SinogramTranslator(geometry, scale, targets, center, deviation, starts=starts, **network)

    raw = built(0.0, 1.0)
    z = measured_latents(raw, _dataset(pairs, raw, settings), _MEASURED)["target"]
    # Rounded: sums of another number of threads differ in their last bits, and a resumed training must not.
    standard = [float(f"{value:.6g}") for value in (z.double().mean(), z.double().std())]
    if settings["data"]["start"] == "source":
        return built(*standard)
    plain = built(*standard)
    return built(*standard, measured_starts(plain, _dataset(pairs, plain, settings), paired=method != "cyclegan"))


def new_scheduler(network: SinogramTranslator, pairs: PairSet, settings: Mapping) -> BridgeScheduler:
    """Return a bridge whose preconditioning is measured on the pairs."""
    z = measured_latents(network, _dataset(pairs, network, settings), _MEASURED)
    return BridgeScheduler(**settings["bridge"], **latent_statistics(z["target"], z["source"]))


def new_objective(method: str, network: SinogramTranslator, pairs: PairSet, settings: Mapping) -> Translation:
    """Return what a method minimises.

    Raises
    ------
    InputError
        An unknown method.
    """
    if method == "bridge":
        return BridgeObjective(network, settings["told"], new_scheduler(network, pairs, settings))
    if method == "unet":
        return RegressionObjective(network, settings["told"])
    if method == "cyclegan":
        torch.manual_seed(settings["training"]["seed"] + 1)  # of the way back and of the discriminators
        return CycleGANObjective(network, settings["told"], settings["cyclegan"])
    raise InputError(f"method must be one of {', '.join(METHODS)}, but was {method!r}.")


def train_translation(method: str, sets: tuple[PairSet, PairSet], tasks, settings: Mapping, out,
                      **options) -> Translation:
    """Train a method for some tasks and return its objective with the averaged weights.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    sets : (PairSet, PairSet)
        For training and validation.
    tasks : sequence of str
    settings : mapping
        Of ``read_settings(..., family="translation-")``.
    out : path-like
        Checkpoints and logs go to ``<out>/<method>-training``.
    **options
        Of `allpet_gen.training.train`.

    Raises
    ------
    InputError
        An unknown method or task, a task of two tracers for a store of one.
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, but was {method!r}.")
    how = TrainingSettings.of(settings["training"], method)
    network = new_translator(sets[0], tasks, settings, method)
    if settings["training"]["initial"]:
        begin_from(network, settings["training"]["initial"])
    objective = new_objective(method, network, sets[0], settings)
    datasets = [_dataset(pairs, network, settings) for pairs in sets]
    return train(objective, datasets[0], how, Path(out) / f"{method}-training", validation=datasets[1], **options)


def begin_from(network: SinogramTranslator, name) -> None:
    """Give a network the weights of a trained one.

    Parameters
    ----------
    network : SinogramTranslator
    name : str or path
        Of `allpet_gen.translation_models.load_translation`.

    Raises
    ------
    InputError
        A model whose network has other layers; whatever loading refuses.
    """
    from allpet_gen.translation_models import load_translation

    found = load_translation(name)[0].network
    try:
        network.load_state_dict(found.state_dict())
    except RuntimeError:
        raise InputError(f"training.initial must be a model with the layers of network in the settings, but {name!r} "
                         "has others; set network to its widths, or leave training.initial empty.") from None


def save_translation(objective: Translation, method: str, folder, card: Mapping) -> None:
    """Make a folder one that `SinogramBridgePipeline` or `UNetPipeline` loads; other files in it stay.

    Parameters
    ----------
    objective : Translation
        Of `train_translation`.
    method : str
        One of `METHODS`.
    folder : path-like
    card : mapping
        Of `new_translation_card`; the model says from it what it was trained on.
    """
    from allpet_gen.baselines.unet import UNetPipeline
    from allpet_gen.translation_pipelines import SinogramBridgePipeline

    network = objective.network.cpu()
    pipeline = SinogramBridgePipeline(network, objective.scheduler) if method == "bridge" else UNetPipeline(network)
    said = {name: card[name] for name in ("method", "tasks", "tracers", "regions")}
    if any(TASKS[task].dose for task in card["tasks"]):
        said["dose_factors"] = list(DOSE_FACTORS)
    pipeline.save_into(folder, card=said)


def _dataset(pairs: PairSet, network: SinogramTranslator, settings: Mapping) -> PairDataset:
    scales = {task: network.target_scale(task) for task in network.tasks}
    return PairDataset(pairs, network.tasks, scales, settings["augmentation"], settings["training"]["seed"],
                       settings["data"]["target"])
