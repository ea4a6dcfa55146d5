"""What a generator returns: sinograms as counts, what they were drawn around, and their images."""

from dataclasses import dataclass, replace

import numpy as np

from allpet_gen._drawing_checks import Asked
from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry

#: What Poisson counts are drawn from is a stream of its own: the same expected counts, and so
#: the same latents, belong to a seed with and without noise.
_POISSON = 1
#: Full width at half maximum of the Gaussian after OSEM, as clinics smooth.
POST_FILTER_MM = 5.0


@dataclass(frozen=True, eq=False)
class GeneratedSinograms:
    """What was drawn.

    Attributes
    ----------
    sinograms : ndarray, shape (n, angle, bin)
        Counts, int64; or expected counts, float32, where no noise was asked.
    expected : ndarray of float32, shape (n, angle, bin)
        The expectation that the counts were drawn around.
    geometry : ParallelGeometry
    images : ndarray of float32 or None, shape (n, row, col)
        Reconstructed from `sinograms` without correction for attenuation, scatter or randoms, which a drawn sinogram
        holds like a measured one; in counts per mm.
    prompts : tuple of str
        Of each sinogram.
    seeds : tuple of int
        Of each sinogram.
    notes : tuple of str
        What was done beyond sampling: how the geometry was changed, how the image was made.
    """

    sinograms: np.ndarray
    expected: np.ndarray
    geometry: ParallelGeometry
    images: np.ndarray | None
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of sinograms."""
        return len(self.sinograms)

    def __getitem__(self, part: slice) -> "GeneratedSinograms":
        """Return some of the sinograms, chosen by a slice."""
        if not isinstance(part, slice):
            raise InputError(f"sinograms must be chosen by a slice, such as drawn[3:4], but the index was {part!r}.")
        images = None if self.images is None else self.images[part]
        return replace(self, sinograms=self.sinograms[part], expected=self.expected[part], images=images,
                       prompts=self.prompts[part], seeds=self.seeds[part])


def finished(expected: np.ndarray, asked: Asked, own: ParallelGeometry, noise: bool,
             reconstruct: str | None) -> GeneratedSinograms:
    """Return what was drawn: Poisson counts around expected ones, where noise is asked, and their images.

    Parameters
    ----------
    expected : ndarray of float32, shape (n, angle, bin)
        On the geometry that was asked for.
    asked : Asked
    own : ParallelGeometry
        Of the network.
    noise, reconstruct
        Of `SinogramGenerationPipeline`.
    """
    prompts, seeds, _, geometry = asked
    notes = []
    if geometry != own:
        from allpet_physics import describe_resampling

        notes.append(describe_resampling(own, geometry, kind="counts"))
    sinograms = expected
    if noise:
        sinograms = np.stack([np.random.default_rng([s, _POISSON]).poisson(e.astype(np.float64))
                              for s, e in zip(seeds, expected, strict=True)])
    images = None
    if reconstruct is not None:
        images, note = reconstruct_uncorrected(sinograms, geometry, reconstruct)
        notes.append(note)
    return GeneratedSinograms(sinograms, expected, geometry, images, tuple(map(str, prompts)), tuple(seeds),
                              tuple(notes))


def reconstruct_uncorrected(sinograms: np.ndarray, geometry: ParallelGeometry, method: str = "osem", *,
                            post_filter_mm: float = POST_FILTER_MM) -> tuple[np.ndarray, str]:
    """Return images of count sinograms without any correction, in counts per mm, and a sentence on how.

    Parameters
    ----------
    sinograms : ndarray, shape (n, angle, bin)
    geometry : ParallelGeometry
    method : {"osem", "fbp"}
        2 iterations of 16 subsets (fewer where there are fewer angles) and a Gaussian filter; FBP with a Hann window.
    post_filter_mm : float
        Full width at half maximum of the filter after OSEM, 0 for none.
    """
    from allpet_physics import AcquisitionModel, GaussianPSF, RadonOperator, fbp, osem

    data = np.asarray(sinograms, np.float32)
    if method == "fbp":
        return fbp(data, geometry, filter="hann"), "images: FBP with a Hann window, no corrections"
    subsets = max(n for n in (16, 8, 4, 2, 1) if (geometry.n_angles % n == 0 and geometry.n_angles // n >= 2) or n == 1)
    images = osem(AcquisitionModel(RadonOperator(geometry)), data, n_iterations=2, n_subsets=subsets)
    if post_filter_mm > 0:
        images = GaussianPSF(geometry, post_filter_mm)(images)
    return images, (f"images: OSEM, 2 iterations of {subsets} subsets, Gaussian filter of {post_filter_mm:g} mm, no "
                    "corrections")
