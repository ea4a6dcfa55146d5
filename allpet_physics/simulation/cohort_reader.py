"""Reading a cohort: choose by region, tracer and part; get studies, task pairs and prompts."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allpet_physics.errors import InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.simulation.cohort import KIND
from allpet_physics.simulation.split import SPLITS, check_split
from allpet_physics.simulation.study import Study
from allpet_physics.simulation.study_settings import REGION_WORDS, StudySettings, frame_number, prompt_text
from allpet_physics.simulation.tracer_names import parse_tracer


@contextlib.contextmanager
def whole_store():
    """Say of a store whose parts are cut off or altered what is wrong with it, while it is read.

    Raises
    ------
    InputError
        In place of what zarr raises.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, RuntimeError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"the store must be whole, but a part of it cannot be read ({type(error).__name__}: {reason});"
                         " see which with allpet info --verify, and simulate it again.") from None


@dataclass(frozen=True, eq=False)
class Cohort:
    """Some or all slices of a stored cohort; nothing large is read before it is asked for.

    Attributes
    ----------
    group : zarr.Group
        The store, see `allpet_physics.simulation.cohort` for its arrays.
    card : dict
    samples : ndarray of int, shape (n,)
        Numbers of the chosen slices in the store.
    tracers : tuple of str
        The chosen tracers.
    patients, regions, splits : ndarray, shape (n,)
        Patient's number, region's name and part's name of each chosen slice.
    """

    group: object
    card: dict
    samples: np.ndarray
    tracers: tuple[str, ...]
    patients: np.ndarray
    regions: np.ndarray
    splits: np.ndarray

    def __len__(self) -> int:
        """Return the number of chosen slices."""
        return len(self.samples)

    @property
    def geometry(self) -> ParallelGeometry:
        """The geometry of all slices."""
        return ParallelGeometry(**self.card["parameters"]["geometry"])

    @property
    def settings(self) -> StudySettings:
        """How patients were scanned."""
        return StudySettings.from_dict(self.card["parameters"]["settings"])

    @property
    def classes(self) -> dict[str, int]:
        """Number of sinograms (of one frame) by prompt, such as "brain with 18F-FDG"."""
        regions = [r for r in self.card["parameters"]["regions"] if (self.regions == r).any()]
        return {prompt_text(r, t): int((self.regions == r).sum()) for r in regions for t in self.tracers}

    def select(self, *, region: str | None = None, tracer=None, split: str | None = None) -> "Cohort":
        """Return the slices of a region and a part, with the named tracers.

        Parameters
        ----------
        region : str, optional
            "head" (or "brain"), "chest", "abdomen".
        tracer : str or sequence of str, optional
        split : {"train", "validation", "test"}, optional

        Raises
        ------
        InputError
            A name that the cohort does not have; the message lists what it has. No slice that fits.
        """
        keep = np.ones(len(self), bool)
        if region is not None:
            name = {word: r for r, word in REGION_WORDS.items()}.get(region, region)
            keep &= self.regions == _known("region", name, self.card["parameters"]["regions"])
        if split is not None:
            keep &= self.splits == _known("split", split, SPLITS)
        tracers = self.tracers
        if tracer is not None:
            asked = [tracer] if isinstance(tracer, str) else list(tracer)
            tracers = tuple(_known("tracer", parse_tracer(t).name, self.tracers) for t in asked)
        if not keep.any():
            wanted = ", ".join(f"{n} {v}" for n, v in (("region", region), ("split", split)) if v is not None)
            raise InputError(f"the cohort must hold slices of {wanted or 'any kind'}, but holds none; it has "
                             f"{self.card['parameters']['n_patients']} patients.")
        return dataclasses.replace(self, samples=self.samples[keep], tracers=tracers, patients=self.patients[keep],
                                   regions=self.regions[keep], splits=self.splits[keep])

    def prompts(self, index, tracer: str, frame: str = "first") -> np.ndarray:
        """Return counts of chosen slices, int64, shape (angles, bins) or (n, angles, bins) for a list or slice."""
        with whole_store():
            counts = self.group["prompts"].oindex[self.samples[index], self._stored(tracer), frame_number(frame)]
        return counts.astype(np.int64)

    def prompt(self, index: int, tracer: str) -> str:
        """Return the wording of a class, such as "brain with 18F-FDG"."""
        return prompt_text(str(self.regions[index]), self.card["parameters"]["tracers"][self._stored(tracer)])

    def study(self, index: int) -> Study:
        """Return the study of one chosen slice: all that was simulated, as `simulate_study` gives it."""
        return self._read([int(self.samples[index])])

    def patient_study(self, patient: int) -> Study:
        """Return the study of all chosen slices of one patient."""
        rows = self.samples[self.patients == patient]
        if not len(rows):
            raise InputError(f"patient must be one of the chosen, {', '.join(map(str, np.unique(self.patients)[:12]))}"
                             f"{' ...' if len(np.unique(self.patients)) > 12 else ''}, but was {patient!r}.")
        return self._read([int(r) for r in rows])

    @whole_store()
    def _read(self, rows: list[int]) -> Study:
        parameters, first = self.card["parameters"], rows[0]
        tracers = [parameters["tracers"].index(t) for t in self.tracers]

        def scans(name, dtype):
            return np.stack([self.group[name][row][tracers] for row in rows]).astype(dtype)

        def maps(name, dtype):
            return np.stack([self.group[name][row] for row in rows]).astype(dtype)

        lesion_organ = self.group["lesion_organ"][first]
        n_lesions = int(np.count_nonzero(lesion_organ))
        region, patient = int(self.group["region"][first]), int(self.group["patient"][first])
        lesion_uptake = self.group["lesion_uptake"][first][tracers][..., :n_lesions]
        details = {"patient": patient, "age": float(self.group["age"][first]),
                   "sex": "male" if self.group["male"][first] else "female",
                   "lesions": [{"organ": parameters["organs"][n]} for n in lesion_organ[:n_lesions]]}
        return Study(
            self.geometry, self.settings, parameters["regions"][region], self.tracers,
            scans("prompts", np.int64), scans("line_integrals", np.float32), self.group["level"][first][tracers],
            maps("attenuation", np.float32), scans("activity", np.float32), maps("mu", np.float32),
            maps("labels", np.uint8), maps("lesion_map", np.uint8), self.group["uptake"][first][tracers],
            lesion_uptake, (parameters["seed"], patient), tuple(int(self.group["slice"][r]) for r in rows), details)

    def _stored(self, tracer: str) -> int:
        name = _known("tracer", parse_tracer(tracer).name, self.tracers)
        return self.card["parameters"]["tracers"].index(name)


def read_cohort(path, *, region: str | None = None, tracer=None, split: str | None = None,
                incomplete: bool = False) -> Cohort:
    """Open a cohort for reading, all of it or what is chosen.

    Parameters
    ----------
    path : path-like
        A store that ``allpet simulate`` wrote.
    region, tracer, split
        As in `Cohort.select`.
    incomplete : bool
        Whether to open one that is not complete yet; the samples that are absent are left out.

    Raises
    ------
    InputError
        No store, one of another kind, one that is not complete; a store in which a patient's slices stand on both
        sides of the split; what `Cohort.select` refuses.
    """
    from allpet_physics.io import store

    group = store.open_store(path, incomplete=incomplete)
    card = dict(group.attrs["allpet"])
    if card["kind"] != KIND:
        raise InputError(f"the store must be a cohort, but holds {card['kind']}.")
    samples = np.arange(card["n_samples"])
    if incomplete:
        from allpet_physics.io._card import finished_shards

        done = sorted(finished_shards(Path(path).absolute(), card))
        samples = samples[np.isin(samples // card["samples_per_shard"], done)]
    patients, splits = group["patient"][:][samples], group["split"][:][samples]
    check_split(patients, splits)
    regions = np.array(card["parameters"]["regions"])[group["region"][:][samples]]
    cohort = Cohort(group, card, samples, tuple(card["parameters"]["tracers"]), patients, regions,
                    np.array(SPLITS)[splits])
    return cohort.select(region=region, tracer=tracer, split=split)


def _known(name: str, value, known):
    if value not in known:
        raise InputError(f"{name} must be one of the cohort's, {', '.join(known)}, but was {value!r}.")
    return value
