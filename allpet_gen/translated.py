"""What a translation returns: the estimate in counts, the samples and how far they spread, and how they were made."""

from dataclasses import dataclass

import numpy as np

from allpet_gen.translation_inputs import TranslationInputs, same_grid
from allpet_physics.counts import poisson_counts
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.resampling import describe_resampling, resample_sinogram

#: Poisson counts are drawn from streams of their own, so that the samples are the same with and without noise.
_SAMPLE, _POISSON = 0, 1
#: Part of an estimate that may lie beyond the caller's bins before a note says so.
_LOST = 1e-3


@dataclass(frozen=True, eq=False)
class TranslatedSinograms:
    """What was made of some sinograms. In the shapes below ``...`` is (angle, bin), or (2, angle, bin) for separation.

    Attributes
    ----------
    sinograms : ndarray, shape (n, ...)
        The estimate of the expected counts, float32, eq. (TE1); or Poisson counts around it, int64, where noise was
        asked.
    expected : ndarray of float32, shape (n, ...)
        The estimate in any case.
    samples : ndarray of float32 or None, shape (n, n_samples, ...)
        Samples of the posterior of the expected counts.
    spread : ndarray of float32 or None, shape (n, ...)
        Their standard deviation, with n_samples − 1 in the denominator; None for less than two.
    geometry : ParallelGeometry
        Of all of them: the one that the input was given with.
    task : str
    images : ndarray of float32 or None, shape (n, ...) with (row, col)
        Reconstructed from `sinograms`, in counts per mm.
    source_ratio : ndarray of float64 or None, shape (n,)
        For low dose and separation, whose source follows from the target: the counts of the source that the estimate
        implies (its own over the dose factor, the sum of both tracers) over those measured. NaN for empty slices.
    notes : tuple of str
        What was done beyond translating.
    """

    sinograms: np.ndarray
    expected: np.ndarray
    samples: np.ndarray | None
    spread: np.ndarray | None
    geometry: ParallelGeometry
    task: str
    images: np.ndarray | None
    source_ratio: np.ndarray | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.sinograms)

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the central interval of the samples for every bin, each of shape (n, ...).

        Of expected counts, not of counts; see `allpet_gen.evaluation.coverage.central_interval`.

        Raises
        ------
        InputError
            No samples were kept, or too few for the level: 19 at least for 0.9.
        """
        from allpet_gen.evaluation.coverage import central_interval

        if self.samples is None:
            raise InputError("samples must be there for an interval, but none were kept; call a bridge with "
                             "n_samples=19 or more and keep_samples=True.")
        return central_interval(self.samples, level=level)


class SampleStatistics:
    r"""Mean and deviation of samples that come one after the other (Welford 1962), and the samples where they are kept.

    A bridge says more than its samples n_s, s = 1 to S: at t = T it predicts the mean of the posterior at once, and
    does so for each sample, in the view that the sample has. With n̂_s, the counts of that prediction, the estimate is

    .. math:: \hat n = \frac1S \sum_s \big[(1 - w)\,\hat n_s + w\,n_s\big], \qquad w = \frac{S - 1}{4S}. \tag{TE1}

    Both means aim at the same. The first has no noise of sampling, but is the square of a mean root and so low by the
    root's variance; the second has neither fault once samples are many, but the errors of all steps. On validation
    patients a weight of 1/4 or so is as good as the better of the two, whatever the task. Where nothing is predicted,
    w = 1.

    Samples come in the network's geometry and are kept in the caller's. Where they are views of one answer and no
    samples (`spread` false), their deviation says nothing and is not returned.
    """

    def __init__(self, inputs: TranslationInputs, own: ParallelGeometry, n_samples: int, keep: bool,
                 spread: bool = True):
        self.inputs, self.own, self.n_samples, self.spread = inputs, own, n_samples, spread and n_samples > 1
        shape = (inputs.task.n_targets, *inputs.geometry.sinogram_shape)
        self.mean, self.squares, self.predicted = np.zeros((3, len(inputs.counts), *shape))
        self.samples = np.empty((len(inputs.counts), n_samples, *shape), np.float32) if keep else None
        self.weight = 1.0
        self._made = self._kept = 0.0

    def add(self, items: range, counts: np.ndarray, predicted: np.ndarray | None = None) -> None:
        """Take samples (batch, slot, angle, bin), and what was predicted at once, as many, or never.

        Item k is sample ``k % n_samples`` of slice ``k // n_samples``.
        """
        for item, values in zip(items, self._moved(counts), strict=True):
            i, s = divmod(item, self.n_samples)
            off = values - self.mean[i]
            self.mean[i] += off / (s + 1)
            self.squares[i] += off * (values - self.mean[i])
            if self.samples is not None:
                self.samples[i, s] = values
        if predicted is not None:
            self.weight = (self.n_samples - 1) / (4 * self.n_samples)
            for item, values in zip(items, self._moved(predicted), strict=True):
                self.predicted[item // self.n_samples] += values / self.n_samples

    def _moved(self, counts: np.ndarray) -> np.ndarray:
        """Return the slots that are used, in the caller's geometry."""
        counts = counts[:, :self.inputs.task.n_targets]
        self._made += counts.sum(dtype=np.float64)
        if not same_grid(self.own, self.inputs.geometry):
            counts = resample_sinogram(counts, self.own, self.inputs.geometry, kind="counts", max_lost=1.0)
        self._kept += counts.sum(dtype=np.float64)
        return counts

    def finish(self, *, noise: bool, seed: int, first_slice: int, reconstruct: str | None) -> TranslatedSinograms:
        """Return the result, with Poisson counts and images where they are asked."""
        inputs, task, notes = self.inputs, self.inputs.task, list(self.inputs.notes)
        if not same_grid(self.own, inputs.geometry):
            notes.append(f"estimate: {describe_resampling(self.own, inputs.geometry, kind='counts')}")
            if self._kept < (1 - _LOST) * self._made:
                notes.append(f"{1 - self._kept / self._made:.1%} of the estimate lay beyond the bins of the geometry")
        mean = (1 - self.weight) * self.predicted + self.weight * self.mean
        expected, ratio = mean.astype(np.float32), None
        if task.dose or task.n_targets == 2:
            ratio = _ratio_to(inputs.totals, task.means_of_source(mean, inputs.dose_factor).sum((1, 2)))
            notes.append(_about_ratio(ratio))
        sinograms = expected
        if noise:
            sinograms = np.stack([poisson_counts(mean, np.random.default_rng(_stream(seed, first_slice + i, _POISSON)))
                                  for i, mean in enumerate(expected)])
        images = None
        if reconstruct is not None:
            images, note = _images(sinograms, inputs.geometry, reconstruct)
            notes.append(note if task.attenuated else f"{note}, for the counts are corrected already")
        spread = (self.squares / (self.n_samples - 1)).astype(np.float32) ** 0.5 if self.spread else None
        arrays = {"sinograms": sinograms, "expected": expected, "samples": self.samples, "spread": spread,
                  "images": images}
        if task.n_targets == 1:
            arrays = {name: None if a is None else a.squeeze(-3) for name, a in arrays.items()}
        return TranslatedSinograms(**arrays, geometry=inputs.geometry, task=task.name, source_ratio=ratio,
                                   notes=tuple(notes))


def sample_seed(seed: int, number: int, sample: int) -> int:
    """Return the seed of one sample of the slice of a number, the same on every machine."""
    return int(_stream(seed, number, _SAMPLE, sample).generate_state(1, np.uint64)[0]) >> 1


def _stream(seed: int, number: int, kind: int, sample: int = 0) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(kind, number, sample))


def _ratio_to(totals: np.ndarray, implied: np.ndarray) -> np.ndarray:
    return np.divide(implied, totals, out=np.full(len(totals), np.nan), where=totals > 0)


def _about_ratio(ratio: np.ndarray) -> str:
    known = ratio[np.isfinite(ratio)]
    if not known.size:
        return "the source has no counts to compare the estimate with"
    text = f"the estimate implies {known.mean():.4g} of the counts of the source"
    return text if known.size == 1 else f"{text} ({known.min():.4g} to {known.max():.4g} by slice)"


def _images(sinograms: np.ndarray, geometry: ParallelGeometry, method: str) -> tuple[np.ndarray, str]:
    from allpet_gen.generated import reconstruct_uncorrected

    images, note = reconstruct_uncorrected(sinograms.reshape(-1, *geometry.sinogram_shape), geometry, method)
    return images.reshape(*sinograms.shape[:-2], *geometry.image_shape), note
