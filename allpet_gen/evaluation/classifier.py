r"""A small network that names tracer and region of a count sinogram, to ask whether a prompt was obeyed.

It sees the images of `allpet_gen.evaluation.shape_images`: no totals, and more noise in training.

Tracers overlap: a slice through organs that take up two tracers alike belongs to either. So the share of prompts that a
generator obeys means something only beside the classifier's accuracy for real sinograms of held-out patients.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from allpet_gen.evaluation._checks import as_batch, same_shape
from allpet_gen.evaluation.shape_images import augmented_images, shape_images, summed_counts, turned_images
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError

_BATCH = 64
#: Rows and columns of the grid on which the network keeps places apart.
_CELLS = 4
_NAME = "classifier"


class SinogramClassifier(nn.Module):
    """Four convolutions and two heads.

    Parameters
    ----------
    tracers, regions : sequence of str
        The classes in the order of the heads' outputs.
    arc : float
        Of the sinograms, π or 2π.
    width : int
        Channels of the first convolution.

    Attributes
    ----------
    history : list of dict
        What training measured in each epoch.
    """

    def __init__(self, tracers, regions, *, arc: float = np.pi, width: int = 24):
        super().__init__()
        self.tracers, self.regions = tuple(map(str, tracers)), tuple(map(str, regions))
        self.arc, self.width, self.history = float(arc), int(width), []
        layers, inputs = [], 1
        for outputs, stride in ((width, 2), (2 * width, 2), (4 * width, 2), (4 * width, 1)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
            inputs = outputs
        self.body = nn.Sequential(*layers)
        self.hidden = nn.Linear(inputs * _CELLS**2, 64)
        self.heads = nn.ModuleList([nn.Linear(64, len(self.tracers)), nn.Linear(64, len(self.regions))])

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        """Return the 64 features before the heads, of images ``(batch, row, col)`` as `shape_images` gives them."""
        # The largest value in each cell of a coarse grid: what there is, and about where.
        cells = functional.adaptive_max_pool2d(self.body(x[:, None]), _CELLS)
        return functional.silu(self.hidden(functional.dropout(cells.flatten(1), 0.2, self.training)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores of tracers (batch, tracers) and of regions (batch, regions)."""
        y = self.latents(x)
        return tuple(head(y) for head in self.heads)


@dataclass(frozen=True)
class Prediction:
    """Named classes and their probabilities.

    Attributes
    ----------
    tracer, region : ndarray of str, shape (n,)
    tracer_probability, region_probability : ndarray of float64, shape (n, classes)
        In the order of the classifier's `tracers` and `regions`.
    """

    tracer: np.ndarray
    region: np.ndarray
    tracer_probability: np.ndarray
    region_probability: np.ndarray

    @property
    def joint(self) -> np.ndarray:
        """Probabilities of all pairs of tracer and region, shape (n, tracers · regions), each row of sum 1."""
        pairs = self.tracer_probability[:, :, None] * self.region_probability[:, None, :]
        return pairs.reshape(len(pairs), -1)


def train_classifier(counts, tracer_labels, region_labels, validation_counts, validation_tracers, validation_regions, *,
                     seed: int = 0, epochs: int = 20, patience: int = 5, learning_rate: float = 2e-3, width: int = 24,
                     arc: float = np.pi, device: str = "cpu",
                     progress: Callable[[dict], None] | None = None) -> SinogramClassifier:
    """Train a classifier and return it as it was in its best epoch on the validation data.

    Validation patients must not be among the training patients, and must not be those on which the accuracy is
    reported: the best epoch is chosen by them.

    Parameters
    ----------
    counts, validation_counts : array_like, shape (n, angles, bins)
        Whole counts, not expectations: training thins them.
    tracer_labels, region_labels, validation_tracers, validation_regions : array_like of str, shape (n,)
    seed : int
        Of weights, order, thinning and turns; no global seed is touched.
    epochs, patience : int
        At most so many passes; training ends after `patience` of them without a lower validation loss.
    learning_rate : float
        Of AdamW at the start; it falls to zero along a cosine.
    width : int
        A multiple of 8.
    arc : float
        π or 2π.
    device : str
    progress : callable, optional
        Called after each epoch with a dict of ``epoch``, ``epochs``, ``loss``, ``validation_loss``,
        ``tracer_accuracy``, ``region_accuracy``.

    Raises
    ------
    InputError
        Shapes that do not fit, counts that are no whole numbers, labels of another length, a single class of both
        kinds, validation labels that do not occur in training.
    """
    data = []
    for prefix, array, labels in (("", counts, (tracer_labels, region_labels)),
                                  ("validation_", validation_counts, (validation_tracers, validation_regions))):
        batch = as_batch(f"{prefix}counts", array, minimum=32)
        if (batch != np.floor(batch)).any():
            raise InputError(f"{prefix}counts must be whole numbers, since training thins them; draw Poisson counts of "
                             "expected values first.")
        names = [_labels(f"{prefix}{kind}", given, len(batch)) for kind, given in
                 zip(("tracer_labels", "region_labels") if not prefix else ("tracers", "regions"), labels, strict=True)]
        data.append((summed_counts(batch).astype(np.int64), names))
    same_shape("counts", data[0][0], "validation_counts", data[1][0])
    classes = [np.unique(names) for names in data[0][1]]
    if max(map(len, classes)) < 2:
        raise InputError("tracer_labels or region_labels must name at least two classes, but each named one.")
    targets = [[_numbers(kind, names, known) for kind, names, known in
                zip(("tracers", "regions"), part[1], classes, strict=True)] for part in data]
    epochs, patience = as_positive_int("epochs", epochs), as_positive_int("patience", patience)
    if as_positive_int("width", width) % 8:
        raise InputError(f"width must be a multiple of 8, but was {width}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(as_positive_int("seed", seed, minimum=0))
        return _fit(data, targets, classes, np.random.default_rng(seed), epochs=epochs, patience=patience, width=width,
                    learning_rate=as_positive_float("learning_rate", learning_rate), arc=arc, device=device,
                    progress=progress)


def _fit(data, targets, classes, rng, *, epochs, patience, learning_rate, width, arc, device, progress):
    (counts, _), (validation, _) = data
    model = SinogramClassifier(*classes, arc=arc, width=width).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    n_steps = -(-len(counts) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * n_steps)
    goals = [[torch.from_numpy(t) for t in part] for part in targets]
    validation = torch.from_numpy(shape_images(validation, arc))
    best, weights, waited = np.inf, None, 0
    for epoch in range(1, epochs + 1):
        model.train()
        order, total = rng.permutation(len(counts)), 0.0
        for start in range(0, len(order), _BATCH):
            rows = order[start:start + _BATCH]
            x = torch.from_numpy(augmented_images(counts[rows], arc, rng)).to(device)
            loss = sum(functional.cross_entropy(score, goal[rows].to(device), label_smoothing=0.02)
                       for score, goal in zip(model(x), goals[0], strict=True))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        scores = _scores(model, validation)
        held = float(sum(functional.cross_entropy(s, g) for s, g in zip(scores, goals[1], strict=True)))
        accuracy = [float((s.argmax(1) == g).double().mean()) for s, g in zip(scores, goals[1], strict=True)]
        model.history.append({"epoch": epoch, "epochs": epochs, "loss": total / len(counts), "validation_loss": held,
                              "tracer_accuracy": accuracy[0], "region_accuracy": accuracy[1]})
        if progress is not None:
            progress(dict(model.history[-1]))
        waited = 0 if held < best else waited + 1
        if held < best:
            best, weights = held, {k: v.detach().clone() for k, v in model.state_dict().items()}
        if waited >= patience:
            break
    if weights is not None:  # None if the loss was never finite; the history shows it
        model.load_state_dict(weights)
    return model.eval()


def predict(classifier: SinogramClassifier, counts) -> Prediction:
    """Return tracer and region of count sinograms (n, angles, bins), counts or expected counts.

    Probabilities are means over five turns within those of training.

    Raises
    ------
    InputError
        A batch as `train_classifier` refuses it.
    """
    turned = turned_images(summed_counts(as_batch("counts", counts, minimum=32)), classifier.arc)
    scores = [_scores(classifier, torch.from_numpy(x)) for x in turned]
    tracer, region = (np.mean([s.double().softmax(1).numpy() for s in head], axis=0)
                      for head in zip(*scores, strict=True))
    return Prediction(np.array(classifier.tracers)[tracer.argmax(1)], np.array(classifier.regions)[region.argmax(1)],
                      tracer, region)


class ClassifierFeatures:
    """The 64 features before the heads of a trained classifier, as an extractor of `allpet_gen.evaluation.features`."""

    name = "classifier features"

    def __init__(self, classifier: SinogramClassifier):
        self.classifier = classifier

    def __call__(self, batch) -> np.ndarray:
        """Return features of non-negative arrays (n, angles, bins), shape (n, 64), float64."""
        x = torch.from_numpy(shape_images(summed_counts(as_batch("batch", batch, minimum=32)), self.classifier.arc))
        return _in_batches(self.classifier, self.classifier.latents, x)[0].double().numpy()


def save_classifier(classifier: SinogramClassifier, folder) -> Path:
    """Write ``classifier.safetensors`` and ``classifier.json`` to a folder, each beside and then renamed."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    card = {"tracers": classifier.tracers, "regions": classifier.regions, "arc": classifier.arc,
            "width": classifier.width, "history": classifier.history}
    part = folder / f"{_NAME}.part"
    save_file({k: v.detach().cpu().contiguous() for k, v in classifier.state_dict().items()}, part)
    os.replace(part, folder / f"{_NAME}.safetensors")
    part.write_text(json.dumps(card, indent=1), encoding="utf-8")
    os.replace(part, folder / f"{_NAME}.json")
    return folder


def load_classifier(folder, *, device: str = "cpu") -> SinogramClassifier:
    """Return a classifier that `save_classifier` wrote.

    Raises
    ------
    InputError
        No such files, or files that do not belong together.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        card = json.loads((folder / f"{_NAME}.json").read_text(encoding="utf-8"))
        weights = load_file(folder / f"{_NAME}.safetensors")
        model = SinogramClassifier(card["tracers"], card["regions"], arc=card["arc"], width=card["width"])
        model.load_state_dict(weights)
    except Exception as error:
        raise InputError(f"folder must hold {_NAME}.json and {_NAME}.safetensors as save_classifier writes them, but "
                         f"{folder} did not ({type(error).__name__}); train or copy the classifier again.") from error
    model.history = card.get("history", [])
    return model.to(device).eval()


def _scores(model: SinogramClassifier, x: torch.Tensor) -> list[torch.Tensor]:
    return _in_batches(model, model, x)


def _in_batches(model: SinogramClassifier, function, x: torch.Tensor) -> list[torch.Tensor]:
    """Return what a function of the network returns, joined over batches, on the CPU."""
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        parts = [function(x[i:i + 4 * _BATCH].to(device)) for i in range(0, len(x), 4 * _BATCH)]
    parts = [p if isinstance(p, tuple) else (p,) for p in parts]
    return [torch.cat(column).cpu() for column in zip(*parts, strict=True)]


def _labels(name: str, labels, n: int) -> np.ndarray:
    labels = np.asarray(labels).astype(str)
    if labels.shape != (n,):
        raise InputError(f"{name} must name one class for each of {n} sinograms, but its shape was {labels.shape}.")
    return labels


def _numbers(kind: str, names: np.ndarray, known: np.ndarray) -> np.ndarray:
    strange = np.setdiff1d(names, known)
    if strange.size:
        raise InputError(f"validation_{kind} must be among those of training, {', '.join(known)}, but held "
                         f"{', '.join(strange[:5])}.")
    return np.searchsorted(known, names)
