"""Counts of a cohort as an array that stays in its store: one sinogram is read when it is asked for."""

from pathlib import Path

import numpy as np


class StoredCounts:
    """Prompts of the first frame of chosen slices and tracers, shape (n, angle, bin), read lazily.

    It travels to another process as a path and some numbers, whatever the size of the counts.

    Parameters
    ----------
    cohort : Cohort
        In a folder of this machine.
    samples : ndarray of int, shape (n,)
        Numbers of slices in the store.
    tracers : ndarray of int, shape (n,)
        Number of each item's tracer in the store.
    """

    def __init__(self, cohort, samples, tracers):
        prompts = cohort.group["prompts"]
        self.path = Path(cohort.group.store.root)
        self.samples, self.tracers = np.asarray(samples), np.asarray(tracers)
        self.shape = (len(self.samples), *prompts.shape[-2:])
        self.dtype = np.dtype(prompts.dtype)
        self._prompts = prompts

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_prompts": None}

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def nbytes(self) -> int:
        """Bytes of all counts in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(self, index) -> np.ndarray:
        if isinstance(index, (int, np.integer)):
            return self._read(index)
        chosen = np.arange(len(self))[index]
        return np.stack([self._read(i) for i in chosen]) if len(chosen) else np.empty((0, *self.shape[1:]), self.dtype)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _read(self, index: int) -> np.ndarray:
        if self._prompts is None:
            from allpet_physics.io import store

            self._prompts = store.open_store(self.path)["prompts"]
        from allpet_physics.simulation.cohort_reader import whole_store

        with whole_store():
            return self._prompts[int(self.samples[index]), int(self.tracers[index]), 0]
