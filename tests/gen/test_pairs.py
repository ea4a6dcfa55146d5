"""Pairs for training: they are what was simulated, follow from their key alone, and survive the disk or are refused."""

import dataclasses

import numpy as np
import pytest
import torch

from allpet_gen import pairs as pairs_module
from allpet_gen.data import view_numbers
from allpet_gen.pair_statistics import measured_latents, measured_scales, measured_starts
from allpet_gen.pairs import (
    PairDataset,
    draw_pair,
    load_pair_set,
    pair_origin,
    read_pair_set,
    save_pair_set,
)
from allpet_gen.source_attention import source_attention
from allpet_gen.symmetry import mirror_sinogram, rotate_sinogram
from allpet_gen.tasks import DOSE_FACTORS, TASKS, dose_number, task_tokens
from allpet_gen.translator import SLOTS, SinogramTranslator, slots_used
from allpet_physics.errors import InputError
from allpet_physics.simulation.cohort import cohort_parameters, write_cohort
from allpet_physics.simulation.cohort_reader import read_cohort

from .translation_helpers import GEOMETRY, UPRIGHT, batch_of, pair_dataset, random_pairs, tiny_translator

SPLIT = {"train": [0, 1, 2, 3], "validation": [4, 5], "test": []}
PAIRS = random_pairs()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort") / "store"
    write_cohort(path, cohort_parameters(6, size=16, n_slices=2, regions=("head", "chest"), tracers=("FDG", "PSMA"),
                                         split=SPLIT))
    return read_cohort(path)


@pytest.fixture(scope="module")
def read(cohort):
    return read_pair_set(cohort, 3)


def rng(seed=0):
    return np.random.default_rng(seed)


def same_sets(first, second):
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b, field.name


# From the store

def test_every_region_has_its_number_of_training_slices(read):
    assert read.regions.tolist().count("head") == read.regions.tolist().count("chest") == 3
    assert set(read.patients) <= set(SPLIT["train"])
    assert read.tracers == ("18F-FDG", "68Ga-PSMA")


def test_scans_are_those_of_the_studies(cohort, read):
    part = cohort.select(split="train")
    for index, patient in enumerate(read.patients):
        study = part.patient_study(int(patient))
        own = [k for k in range(len(study)) if np.array_equal(study.prompts[k], read.counts[index])]
        assert len(own) == 1
        for t, tracer in enumerate(read.tracers):
            for f, frame in enumerate(("first", "delayed")):
                scan = study.scan(tracer, frame)
                np.testing.assert_array_equal(read.expected[index, t, f], scan.expected[own[0]])
                np.testing.assert_array_equal(read.unattenuated[index, t, f], study.unattenuated(tracer, frame)[own[0]])
                attention = source_attention(scan.prompts[own[0]], read.geometry)
                np.testing.assert_allclose(read.attention[index, t, f] / 255, attention, atol=0.5 / 255 + 1e-6)
        assert read.regions[index] == study.region


def test_counts_are_poisson_around_their_expectation(read):
    expected = read.expected.astype(np.float64)
    known = expected > 5
    score = (read.counts - expected)[known] / np.sqrt(expected[known])
    assert abs(score.mean()) < 4 / np.sqrt(score.size)
    assert score.std() == pytest.approx(1, abs=4 / np.sqrt(score.size))


def test_attenuation_takes_counts_away(read):
    assert (read.unattenuated.sum((-2, -1)) > 1.5 * read.expected.sum((-2, -1))).all()


def test_other_parts_have_other_patients_and_too_few_slices_are_refused(cohort):
    assert set(read_pair_set(cohort, 2, "validation").patients) == {4, 5}
    with pytest.raises(InputError, match="must hold 5 train sinograms of each class, but has 4 of the head"):
        read_pair_set(cohort, 5)


@pytest.mark.parametrize("task", TASKS)
def test_a_pair_is_the_one_of_the_simulation(cohort, read, task):
    """With measured targets, but for the attenuation-free one, which is expected in both."""
    study = cohort.select(split="train").patient_study(int(read.patients[0]))
    k = next(k for k in range(len(study)) if np.array_equal(study.prompts[k], read.counts[0]))
    for seed in range(6):
        drawn = draw_pair(read, task, 0, rng(seed), "counts")
        tracers = [read.tracers[n - 1] if n else None for n in
                   ({1: 1, 3: 2}[n] if n else 0 for n in (drawn.tokens[0], drawn.tokens[3]))]
        assert drawn.tokens == task_tokens(task, tracers[0], str(read.regions[0]), tracers[1])
        found = []
        for frame in ("first", "delayed"):
            pair = study.pair(task, tracer=tracers[0], other=tracers[1], frame=frame,
                              dose_factor=drawn.dose_factor or 10)
            target = pair.target[k] if task == "tracer-separation" else pair.target[k][None]
            source = np.array_equal(pair.source[k], drawn.source) or task == "low-dose"
            found.append(source and np.array_equal(target, drawn.targets))
        assert any(found)


# What is drawn

def test_low_doses_are_binomial():
    scores, factors = [], set()
    counts = PAIRS.counts[2].astype(float)
    for seed in range(300):
        drawn = draw_pair(PAIRS, "low-dose", 2, rng(seed))
        at = [place for place in np.ndindex(3, 2) if np.array_equal(PAIRS.expected[2][place], drawn.targets[0])]
        assert len(at) == 1
        full, share = counts[at[0]], 1 / drawn.dose_factor
        assert (drawn.source <= full).all()
        assert not drawn.source[full == 0].any()
        known = full > 0
        scores.append((drawn.source - full * share)[known] / np.sqrt(full * share * (1 - share))[known])
        factors.add(drawn.dose_factor)
    scores = np.concatenate(scores)
    assert factors == set(DOSE_FACTORS)
    assert abs(scores.mean()) < 4 / np.sqrt(scores.size)
    assert scores.var() == pytest.approx(1, abs=0.02)


def test_a_mixture_counts_both_tracers():
    orders = set()
    for seed in range(40):
        drawn = draw_pair(PAIRS, "tracer-separation", 1, rng(seed))
        ((t, other, frame),) = [(a, b, f) for a in range(3) for b in range(3) for f in range(2)
                                if np.array_equal(PAIRS.expected[1, [a, b], f], drawn.targets)]
        np.testing.assert_array_equal(drawn.source, PAIRS.counts[1, t, frame].astype(int) + PAIRS.counts[1, other,
                                                                                                          frame])
        np.testing.assert_array_equal(drawn.attention, PAIRS.attention[1, [t, other], frame].max(0))
        np.testing.assert_array_equal(draw_pair(PAIRS, "tracer-separation", 1, rng(seed), "counts").targets,
                                      PAIRS.counts[1, [t, other], frame])
        assert drawn.tokens[0] == t + 1
        assert drawn.tokens[3] == other + 1
        orders.add((t, other))
    assert len(orders) == 6


@pytest.mark.parametrize("target", ["expected", "counts"])
def test_targets_are_noise_free_or_measured(target):
    truth = getattr(PAIRS, target)
    for seed in range(8):
        for task in ("low-dose", "delayed-frame", "tracer-conversion", "attenuation-correction"):
            drawn = draw_pair(PAIRS, task, 4, rng(seed), target)
            of = PAIRS.unattenuated if task == "attenuation-correction" else truth
            t = drawn.tokens[3 if task == "tracer-conversion" else 0] - 1
            frames = (1,) if task == "delayed-frame" else (0, 1)
            assert any(np.array_equal(of[4, t, f], drawn.targets[0]) for f in frames)
            if task == "delayed-frame":
                np.testing.assert_array_equal(drawn.source, PAIRS.counts[4, t, 0])


def test_counts_of_16_bits_do_not_overflow_in_a_mixture():
    full = dataclasses.replace(PAIRS, counts=np.full_like(PAIRS.counts, 65535))
    assert (draw_pair(full, "tracer-separation", 0, rng()).source == 2 * 65535).all()


# Items

@pytest.fixture(scope="module")
def network():
    return tiny_translator(PAIRS)


def test_items_follow_from_seed_epoch_and_index_alone(network):
    views = {"rotation_deg": 45.0, "mirror": 0.5}
    dataset, again = (pair_dataset(PAIRS, network, views, seed=5) for _ in range(2))
    first = dataset[3, 8]
    for key in ((0, 1), (3, 7), (4, 8)):
        assert not torch.equal(again[key]["source"], first["source"])
    assert all(torch.equal(value, first[name]) for name, value in again[3, 8].items())
    assert not torch.equal(pair_dataset(PAIRS, network, views, seed=6)[3, 8]["source"], first["source"])


def test_an_epoch_has_every_task_of_every_slice(network):
    dataset = pair_dataset(PAIRS, network)
    assert len(dataset) == 5 * len(PAIRS)
    for index in range(len(dataset)):
        item, task = dataset[0, index], list(TASKS)[index // len(PAIRS)]
        assert item["used"].tolist() == slots_used(task)
        assert item["scale"] == network.target_scale(task)
        factor = item["gain"].item()
        assert factor in (DOSE_FACTORS if task == "low-dose" else (1,))
        assert item["numbers"].tolist() == pytest.approx([0, 0, 0, dose_number(task, factor if factor > 1 else None)])
        region = str(PAIRS.regions[index % len(PAIRS)])
        tracer, other = (PAIRS.tracers[n - 1] if n else None for n in item["tokens"][[0, 3]].tolist())
        assert tuple(item["tokens"].tolist()) == task_tokens(task, tracer, region, other)
        assert item["targets"].shape == (SLOTS, *GEOMETRY.sinogram_shape)
        assert bool(item["targets"][1].any()) == (task == "tracer-separation")
        assert item["attention"].shape == (1, *GEOMETRY.sinogram_shape)
        assert 0 <= item["attention"].min() < item["attention"].max() <= 1
        assert all(value.dtype == torch.float32 for name, value in item.items() if name != "tokens")


def test_views_turn_and_mirror_source_targets_and_attention_alike(network):
    upright, seen = pair_dataset(PAIRS, network), pair_dataset(PAIRS, network, {"rotation_deg": 60.0, "mirror": 0.5})
    told = set()
    for index in range(0, 30, 2):
        plain, item = upright[1, index], seen[1, index]
        cos, sin, mirrored, dose = item["numbers"].tolist()
        turn = round(np.arctan2(sin, 1 + cos) / (np.pi / 16))
        assert item["numbers"][:3].tolist() == pytest.approx(view_numbers(turn, bool(mirrored), GEOMETRY))
        assert dose == plain["numbers"][3]
        for name in ("source", "targets", "attention"):
            moved = mirror_sinogram(plain[name], GEOMETRY.arc) if mirrored else plain[name]
            assert torch.equal(item[name], rotate_sinogram(moved, turn, GEOMETRY.arc)), name
        for name in ("gain", "scale", "used", "tokens"):
            assert torch.equal(item[name], plain[name])
        told.add((turn, mirrored))
    assert {mirrored for _, mirrored in told} == {0, 1}
    assert len({turn for turn, _ in told}) > 4


def test_unknown_tasks_targets_and_absent_tracers_are_refused():
    scales = dict.fromkeys(TASKS, 1.0)
    for arguments, message in (((["sharpen"], scales), "task must be one of low-dose"),
                               (([], scales), "tasks must name at least one"),
                               ((["low-dose"], scales, UPRIGHT, 0, "images"), "target must be one of expected, counts, "
                                                                              "but was 'images'")):
        with pytest.raises(InputError, match=message):
            PairDataset(PAIRS, *(arguments if len(arguments) > 2 else (*arguments, UPRIGHT, 0)))
    alone = random_pairs(tracers=("18F-FDG",))
    for task in ("tracer-separation", "tracer-conversion"):
        with pytest.raises(InputError, match=f"{task} needs a store of two tracers at least, but this one has 18F-FDG"):
            PairDataset(alone, ["low-dose", task], scales, UPRIGHT, 0)
    assert len(PairDataset(alone, ["low-dose", "delayed-frame"], scales, UPRIGHT, 0)) == 2 * len(alone)


# Scales

def test_targets_without_attenuation_have_a_scale_of_their_own():
    scale, targets = measured_scales(PAIRS, TASKS)
    assert {task: value == scale for task, value in targets.items()} == {
        task: row.attenuated for task, row in TASKS.items()}
    assert targets["attenuation-correction"] > 2 * scale
    counts = PAIRS.counts[PAIRS.counts > 0]
    assert (counts <= scale).mean() == pytest.approx(0.9999, abs=1e-3)
    assert list(measured_scales(PAIRS, ["delayed-frame"])[1]) == ["delayed-frame"]


def test_latents_are_measured_where_slots_are_used(network):
    dataset = pair_dataset(PAIRS, network)
    found = measured_latents(network, dataset, 600)
    bins = GEOMETRY.n_angles * GEOMETRY.n_bins
    assert found["target"].shape == found["source"].shape
    assert found["target"].numel() == 6 * len(PAIRS) * bins  # tracer separation has two
    batch = batch_of(dataset)
    z = network.encode_target(batch["targets"], batch["scale"], batch["used"])
    assert found["target"].double().sum().item() == pytest.approx(z.double().sum().item(), rel=1e-5)
    assert measured_latents(network, dataset, 3)["target"].numel() == 3 * bins  # the first, the middle, the last


# The file

def test_a_file_gives_back_the_set(read, tmp_path):
    path = tmp_path / "pairs.npz"
    for pairs in (read, PAIRS):
        save_pair_set(pairs, path)
        same_sets(load_pair_set(path), pairs)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pairs.npz"]


def test_a_file_that_is_cut_short_or_none_is_refused(tmp_path):
    path = tmp_path / "pairs.npz"
    save_pair_set(PAIRS, path)
    whole = path.read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 1
    np.savez(tmp_path / "other.npz", counts=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    for content in (whole[:-10], whole[:len(whole) // 2], whole[:3], b"", b"no pairs at all", bytes(middle),
                    (tmp_path / "other.npz").read_bytes(), (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"pairs.npz' must be a file of pairs, but cannot be read .*delete it"):
            load_pair_set(path)
    with pytest.raises(InputError, match="must be a file of pairs"):
        load_pair_set(tmp_path / "absent.npz")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "pairs.npz"
    save_pair_set(PAIRS, path)

    def breaks(file, **_):
        file.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(pairs_module.np, "savez", breaks)
    with pytest.raises(OSError, match="full"):
        save_pair_set(random_pairs(seed=1), path)
    same_sets(load_pair_set(path), PAIRS)


def test_the_origin_tells_stores_parts_numbers_and_tracers_apart(cohort, read):
    assert read.origin == pair_origin(cohort, 3)
    card = dict(cohort.card, note="another store")
    others = [pair_origin(*arguments) for arguments in (
        (cohort, 2), (cohort, 3, "validation"), (cohort.select(tracer="FDG"), 3), (cohort.select(region="head"), 3),
        (dataclasses.replace(cohort, card=card), 3))]
    assert len({read.origin, *others}) == 6


@torch.no_grad()
def test_the_fitted_start_is_the_line_that_comes_nearest_to_the_target():
    """Equation (X3): with pairs the residual is uncorrelated with the source; without, mean and deviation agree."""
    network = tiny_translator(PAIRS)
    dataset = pair_dataset(PAIRS, network)
    plain = errors_of_start(network, dataset)
    config = {name: value for name, value in network.config.items() if name[0] != "_"}
    for paired in (True, False):
        starts = measured_starts(network, dataset, len(dataset), paired=paired)
        assert list(starts) == sorted(TASKS)
        assert starts["low-dose"][0] == [0.0, 1.0, 0.0]  # a dose that was not lowered is left as it is
        assert {round(level, 6) for level, *_ in starts["low-dose"]} <= {
            round(dose_number("low-dose", f), 6) for f in DOSE_FACTORS} | {0.0}
        fitted = SinogramTranslator(**config | {"starts": starts})
        for task, (x, y) in sources_and_targets(fitted, dataset).items():
            if task != "low-dose":  # a row for each dose: not of one line
                torch.testing.assert_close(x.mean(), y.mean(), rtol=0, atol=2e-3)
                if paired:
                    assert abs(float(((y - x) * (x - x.mean())).mean())) < 2e-3
                else:
                    torch.testing.assert_close(x.std(), y.std(), rtol=2e-3, atol=0)
        if paired:
            assert all(error <= plain[task] for task, error in errors_of_start(fitted, dataset).items())


def sources_and_targets(network, dataset):
    """Return starts and targets of a dataset's first epoch by task, used slots alone."""
    found = {}
    for k in range(len(dataset)):
        batch = {name: value[None] for name, value in dataset[0, k].items()}
        source = network.encode_source(batch["source"], batch["gain"])
        start = network.start(source, batch["used"], batch["tokens"], batch["numbers"])
        target = network.encode_target(batch["targets"], batch["scale"], batch["used"])
        used = batch["used"].repeat_interleave(network.config.patch**2, dim=1).bool()
        found.setdefault(dataset.tasks[k // len(dataset.pairs)], []).append((start[used], target[used]))
    return {task: tuple(torch.cat(parts).double() for parts in zip(*rows, strict=True)) for task, rows in found.items()}


def errors_of_start(network, dataset):
    return {task: float((x - y).square().mean()) for task, (x, y) in sources_and_targets(network, dataset).items()}
