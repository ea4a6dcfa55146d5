r"""What to compare of a sinogram or an image: pluggable extractors with one call shape.

An extractor is any callable ``extractor(batch) -> features`` that takes non-negative arrays ``(n, rows, columns)`` and
returns float64 ``(n, d)``; a `name` attribute, if it has one, is reported. Four kinds are here:

* `RandomCNN`: an untrained convolutional network with fixed random weights. It needs no data and no download, so its
  figures can be compared between places; it is less sensitive than a trained one.
* `ScriptedFeatures`: a trained network from a file that the caller has, such as Inception's.
* `EncoderFeatures`: the latents of an encoder that the caller has.
* `StatisticsFeatures` (from `allpet_gen.evaluation.statistics_features`): named statistics with equations.

A figure belongs to its extractor: distances of different extractors cannot be compared, and none of them is the FID of
the literature, which compares photographs by a network that was trained on photographs.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from allpet_gen.evaluation._checks import in_parts
from allpet_gen.evaluation.statistics_features import StatisticsFeatures
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import InputError

__all__ = ["EncoderFeatures", "Extractor", "RandomCNN", "ScriptedFeatures", "StatisticsFeatures"]

#: The call shape of all extractors.
Extractor = Callable[[np.ndarray], np.ndarray]
#: Channels of the stages of the random network; mean and deviation of each make 2 · 64 features.
_WIDTHS = (8, 16, 16, 24)
_BLUR = np.array([1.0, 3.0, 3.0, 1.0]) / 8


class RandomCNN:
    r"""Features of an untrained network: seeded random filters, averaged over the picture at four resolutions.

    With :math:`x_0 = \sqrt{n/c}` and one scale c for everything,

    .. math:: y_l = \max(W_l * x_{l-1} + b_l, 0), \qquad x_l = (B * y_l)\!\downarrow_2, \tag{F1}

    where W are 3 × 3 filters drawn from N(0, 2/fan-in), b from N(0, 0.1²) and B is the binomial filter (1, 3, 3, 1)/8
    in both directions, which keeps the halving from aliasing. Borders are mirrored. The features are mean and standard
    deviation over the picture of each channel of each :math:`y_l`, 128 in all, for any size from 32 × 32 on.

    Parameters
    ----------
    scale : float
        c > 0: counts that become 1, such as ``CountScaling.from_counts(training).scale``. Never one scale per image.
    seed : int
        Another seed is another metric.
    batch_size : int
        Items that are in work at once.
    device : str
        Where torch computes. Weights are drawn by numpy: they are the same everywhere.

    References
    ----------
    Zhang 2019, arXiv 1904.11486 (anti-aliased downsampling); Naeem et al. 2020, arXiv 2002.09797, section 5 (random
    embeddings for evaluation far from photographs).
    """

    def __init__(self, scale: float, *, seed: int = 0, batch_size: int = 64, device: str = "cpu"):
        self.scale = as_positive_float("scale", scale)
        self.seed = as_positive_int("seed", seed, minimum=0)
        self.batch_size = as_positive_int("batch_size", batch_size)
        self.device = torch.device(device)
        self.name = f"random-cnn (untrained, seed {self.seed})"
        self.n_features = 2 * sum(_WIDTHS)
        rng = np.random.default_rng(self.seed)
        self._layers = []
        for inputs, outputs in zip((1, *_WIDTHS[:-1]), _WIDTHS, strict=True):
            weight = rng.standard_normal((outputs, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
            self._layers.append((self._tensor(weight), self._tensor(0.1 * rng.standard_normal(outputs))))
        self._blur = self._tensor(np.outer(_BLUR, _BLUR)[None, None])

    def __call__(self, batch) -> np.ndarray:
        """Return the features of non-negative arrays (n, rows, columns), shape (n, 128), float64.

        Raises
        ------
        InputError
            Another shape, under 32 rows or columns, NaN, Inf, negative values, empty or constant items.
        """
        return in_parts(self._features, batch, self.batch_size, minimum=32)

    @torch.inference_mode()
    def _features(self, batch: np.ndarray) -> np.ndarray:
        x = (self._tensor(batch) / self.scale).sqrt()[:, None]
        out = []
        for weight, bias in self._layers:
            x = functional.relu(functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), weight, bias))
            flat = x.flatten(2).double()
            out += [flat.mean(-1), flat.std(-1, correction=0)]
            blur = self._blur.expand(x.shape[1], 1, 4, 4)
            x = functional.conv2d(functional.pad(x, (1, 2, 1, 2), mode="reflect"), blur, stride=2, groups=x.shape[1])
        return torch.cat(out, dim=1).cpu().numpy()

    def _tensor(self, array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self.device)


class ScriptedFeatures:
    r"""Features of a trained network from a TorchScript file of the caller's, such as Inception's for FID.

    The network is given pictures of three equal channels and whole grey values,

    .. math:: g = \big\lfloor 255\,\min(\sqrt{n/c}, 1) + \tfrac12\big\rfloor, \tag{F2}

    as the Inception files of other evaluations expect. Where its ``forward`` has an argument ``return_features``, that
    is set: such files give probabilities otherwise.

    Parameters
    ----------
    path : path-like
        Of ``torch.jit.save``; (m, 3, rows, columns) to (m, d) or (m, d, h, w), which is averaged over its cells.
    scale : float
        c > 0: counts that become white, and all above.
    size : int, optional
        Pictures are resized to so many rows and columns, for networks that do not do so themselves.
    dtype : {"uint8", "float32"}
        Of the grey values.
    batch_size : int
    device : str

    Raises
    ------
    InputError
        A file that is not there or is no TorchScript or has no ``forward``, another dtype.
    """

    def __init__(self, path, scale: float, *, size: int | None = None, dtype: str = "uint8", batch_size: int = 32,
                 device: str = "cpu"):
        if dtype not in ("uint8", "float32"):
            raise InputError(f'dtype must be "uint8" or "float32", but was {dtype!r}.')
        self.scale, self.dtype = as_positive_float("scale", scale), getattr(torch, dtype)
        self.size = None if size is None else as_positive_int("size", size)
        self.batch_size, self.device = as_positive_int("batch_size", batch_size), torch.device(device)
        self.name = f"network of {Path(path).name}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript itself: files of others are in it
                self._network = torch.jit.load(str(path), map_location=self.device).eval()
                names = [argument.name for argument in self._network.forward.schema.arguments]
        except (OSError, RuntimeError, ValueError, AttributeError) as error:
            reason = str(error).strip().splitlines()[0].partition(". ")[0]
            raise InputError(f"path must be a TorchScript file (torch.jit.save), but {str(path)!r} cannot be read as "
                             f"one ({reason}).") from None
        self._asked = {"return_features": True} if "return_features" in names else {}

    def __call__(self, batch) -> np.ndarray:
        """Return the features of non-negative arrays (n, rows, columns), shape (n, d), float64.

        Raises
        ------
        InputError
            A batch as `RandomCNN` refuses it; a network that cannot take such pictures, or returns something else than
            finite features of each.
        """
        return in_parts(self._features, batch, self.batch_size)

    @torch.inference_mode()
    def _features(self, batch: np.ndarray) -> np.ndarray:
        grey = torch.from_numpy(np.minimum(np.sqrt(batch / self.scale), 1)).float().to(self.device)[:, None]
        if self.size is not None:
            grey = functional.interpolate(grey, (self.size, self.size), mode="bilinear", antialias=True)
        pictures = (255 * grey + 0.5).floor().to(self.dtype).expand(-1, 3, -1, -1)
        try:
            out = self._network(pictures, **self._asked)
        except (RuntimeError, torch.jit.Error) as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"path must be a network of pictures of shape {tuple(pictures.shape)}, but it failed "
                             f"({reason}); one that resizes them itself, or another size or dtype, may do.") from None
        return latents_of(out, len(batch), 1, "the network of path")


class EncoderFeatures:
    """The latents of an encoder, averaged over cells of a coarse grid.

    Parameters
    ----------
    encode : callable
        Takes counts as float32 numpy ``(m, rows, columns)`` and returns latents as array or tensor, ``(m, channels, h,
        w)`` or ``(m, d)``, or an object whose ``mean`` is that. Whatever the network needs (scaling, channels, device)
        is the callable's affair.
    grid : int
        Latents ``(m, channels, h, w)`` are averaged over grid × grid cells, so that d = channels · grid².
    batch_size : int
    name : str
        For reports.
    """

    def __init__(self, encode: Callable, *, grid: int = 4, batch_size: int = 32, name: str = "autoencoder latents"):
        if not callable(encode):
            raise InputError(f"encode must be a callable that takes counts, but was {type(encode).__name__}.")
        self.encode, self.name = encode, name
        self.grid = as_positive_int("grid", grid)
        self.batch_size = as_positive_int("batch_size", batch_size)

    def __call__(self, batch) -> np.ndarray:
        """Return the latents of non-negative arrays (n, rows, columns), shape (n, d), float64.

        Raises
        ------
        InputError
            A batch as `RandomCNN` refuses it; an encoder that returns another number of items, another number of axes,
            NaN or Inf.
        """
        return in_parts(self._latents, batch, self.batch_size)

    @torch.inference_mode()
    def _latents(self, batch: np.ndarray) -> np.ndarray:
        out = self.encode(batch)
        if not isinstance(out, (np.ndarray, torch.Tensor)):
            out = getattr(out, "mean", None)  # of a distribution; an array's `mean` is a method
        return latents_of(out, len(batch), self.grid, "encode")


def latents_of(out, n: int, grid: int, name: str) -> np.ndarray:
    """Return what a network gave for n items as a table of float64, maps averaged over grid × grid cells.

    Raises
    ------
    InputError
        Another number of items or of axes, NaN or Inf.
    """
    if not isinstance(out, (np.ndarray, torch.Tensor)) or out.ndim not in (2, 4) or len(out) != n:
        was = tuple(out.shape) if hasattr(out, "shape") else type(out).__name__
        raise InputError(f"{name} must return latents of shape ({n}, channels, h, w) or ({n}, features) for {n} "
                         f"sinograms, but returned {was}.")
    latents = torch.as_tensor(out).detach().double()
    if latents.ndim == 4:
        latents = functional.adaptive_avg_pool2d(latents, grid)
    latents = latents.flatten(1).cpu().numpy()
    if not np.isfinite(latents).all():
        raise InputError(f"{name} must return finite latents, but some were NaN or Inf.")
    return latents
