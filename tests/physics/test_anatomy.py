"""Random patients: deterministic, different, plausible, consistent in 3D, with lesions where they belong."""

import json

import numpy as np
import pytest

from allpet_physics.errors import InputError
from allpet_physics.simulation.anatomy import REGIONS, Patient, draw_patient
from allpet_physics.simulation.lesions import LesionSpec
from allpet_physics.simulation.organ_sizes import SIZES, draw_sizes
from allpet_physics.simulation.organs import ORGAN_NUMBER, ORGANS

#: An activity-like value for some organs; anything else has 1.
VALUES = {"air": 0, "airway": 0, "bowel_gas": 0, "lung": 0.4, "fat": 0.3, "skin": 0.5, "muscle": 0.7, "brain_grey": 8,
          "brain_white": 2.2, "csf": 0.4, "caudate": 8, "putamen": 9, "thalamus": 8, "cerebellum": 7, "skull": 0.6,
          "scalp": 0.5, "heart_muscle": 6, "blood_pool": 1.7, "aorta": 1.7, "liver": 2.2, "spleen": 1.9,
          "kidney_cortex": 3, "kidney_pelvis": 8, "bladder": 10, "bowel": 1.6, "vertebra": 1.4, "lesion_hot": 8,
          "lesion_cold": 0.3}
UPTAKE = np.array([VALUES.get(organ.name, 1.0) for organ in ORGANS], np.float32)


def centroid(patient, organ):
    """Return mean (row, col) of an organ relative to that of the body, in mm."""
    body, mask = np.nonzero(patient.labels), np.nonzero(patient.mask(organ))
    return [(np.mean(m) - np.mean(b)) * patient.pixel_mm for m, b in zip(mask[1:], body[1:], strict=True)]


@pytest.mark.parametrize("region", REGIONS)
def test_the_same_seed_gives_the_same_patient_and_another_a_different_one(region):
    a, b, c = (draw_patient((7, i), region, 64, 2) for i in (3, 3, 4))
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.texture, b.texture)
    assert a.to_dict() == b.to_dict()
    assert (a.labels != c.labels).mean() > 0.02
    generator = draw_patient(np.random.default_rng((7, 3)), region, 64, 2)
    np.testing.assert_array_equal(a.labels, generator.labels)


@pytest.mark.parametrize("region", REGIONS)
def test_a_patient_is_the_same_at_another_size(region):
    coarse, fine = (draw_patient((1, 5), region, n, 1, lesions=0) for n in (128, 384))
    agree = fine.labels[:, 1::3, 1::3] == coarse.labels
    assert agree[coarse.labels > 0].mean() > 0.995


def test_no_two_of_100_patients_are_alike():
    images = {region: [] for region in REGIONS}
    for i in range(102):
        region = REGIONS[i % 3]
        patient = draw_patient((0, i), region, 64, 1)
        images[region].append((UPTAKE[patient.labels] * patient.texture)[0].ravel())
    for stack in images.values():
        correlation = np.corrcoef(np.array(stack))
        np.fill_diagonal(correlation, -1)
        assert correlation.max() < 0.98


@pytest.mark.parametrize(("region", "level", "organs"), [
    ("head", 6, "scalp skull csf brain_grey brain_white caudate putamen thalamus"),
    ("head", -33, "cerebellum brainstem eye brain_grey airway skull muscle fat skin"),
    ("head", -85, "parotid vertebra spinal_cord muscle airway skull"),
    ("chest", 0, "lung heart_muscle blood_pool aorta vertebra rib sternum oesophagus muscle fat skin"),
    ("chest", 85, "lung aorta vena_cava airway vertebra rib sternum scapula"),
    ("abdomen", 40, "liver spleen stomach_wall stomach_content aorta vena_cava vertebra spinal_cord rib muscle fat"),
    ("abdomen", 0, "liver kidney_cortex kidney_pelvis bowel aorta vena_cava vertebra"),
    ("abdomen", -225, "bladder pelvis_bone femur muscle fat bowel"),
])
def test_a_slice_shows_the_organs_of_its_height(region, level, organs):
    seen = [set(draw_patient((2, i), region, 256, 3, level_mm=level, lesions=0).organs) for i in range(6)]
    for organ in organs.split():
        assert sum(organ in present for present in seen) >= 5, organ


def test_left_is_right_and_front_is_up():
    for i in range(6):
        abdomen = draw_patient((4, i), "abdomen", 128, 5, level_mm=45, slice_mm=8, lesions=0)
        assert centroid(abdomen, "liver")[1] < -15
        assert centroid(abdomen, "spleen")[1] > 50
        assert centroid(abdomen, "vertebra")[0] > 20
        chest = draw_patient((4, i), "chest", 128, 3, level_mm=0, slice_mm=8, lesions=0)
        assert centroid(chest, "heart_muscle")[1] > 10
        assert centroid(chest, "sternum")[0] < -40
        head = draw_patient((4, i), "head", 128, 3, level_mm=-38, lesions=0)
        assert centroid(head, "cerebellum")[0] > 20


@pytest.mark.parametrize("region", REGIONS)
def test_neighbouring_slices_differ_little_and_distant_ones_more(region):
    near, far = [], []
    for i in range(6):
        patient = draw_patient((5, i), region, 96, 9, slice_mm=2.0, lesions=0)
        body = (patient.labels > 0).any(axis=0)
        changed = [np.mean((patient.labels[0] != patient.labels[k])[body]) for k in (1, 4, 8)]
        near.append(changed[0])
        far.append(changed[2])
        assert changed[0] < changed[2]
    assert np.mean(near) < (0.18 if region == "head" else 0.1)
    assert np.mean(far) > 2 * np.mean(near)


def test_drawn_sizes_keep_to_their_table():
    for region, rows in SIZES.items():
        for sex in ("male", "female"):
            rng = np.random.default_rng(1)
            drawn = [draw_sizes(rng, region, sex) for _ in range(300)]
            for name, row in rows.items():
                values = np.array([d[name] for d in drawn])
                assert row.low <= values.min()
                assert values.max() <= row.high
                mean = getattr(row, sex)
                # Limits may cut one tail off: a quarter of the standard deviation moves the mean.
                assert values.mean() == pytest.approx(mean, abs=0.4 * row.sd), (region, name)
                assert 0.6 * row.sd < values.std() < 1.15 * row.sd


def test_sizes_in_the_picture_are_the_drawn_ones():
    errors = []
    for i in range(8):
        head = draw_patient((6, i), "head", 256, 9, slice_mm=5, level_mm=14, lesions=0)
        columns = np.flatnonzero(head.labels.any(axis=(0, 1)))
        errors.append(np.ptp(columns) * head.pixel_mm - head.parameters["sizes"]["head_breadth_mm"])
    # A turned head is wider than its breadth; ears are below these slices.
    assert np.abs(np.mean(errors)) < 8
    assert np.std(errors) < 9
    errors = []
    for i in range(5):
        patient = draw_patient((6, i), "abdomen", 192, 46, slice_mm=4, level_mm=-5, lesions=0)
        half = patient.labels.shape[2] // 2
        for side in (slice(None, half), slice(half, None)):
            kidney = patient.mask("kidney")[:, :, side].any(axis=(1, 2))
            length = np.ptp(np.flatnonzero(kidney)) * patient.slice_mm + patient.slice_mm
            errors.append(length - patient.parameters["sizes"]["kidney_length_mm"])
    assert np.abs(np.mean(errors)) < 10


def test_organs_have_about_the_volumes_of_the_reference_adult():
    # ICRP publication 89: mean of the reference man's and woman's masses in g, taken as mL.
    reference = {"abdomen": {"liver": 1600, "spleen": 140, "kidney": 290}, "head": {"brain": 1375}}
    for region, organs in reference.items():
        stacks = [draw_patient((15, i), region, 96, 50, slice_mm=5, level_mm=10, lesions=0) for i in range(8)]
        for organ, volume in organs.items():
            drawn = [p.mask(organ).sum() * p.pixel_mm**2 * p.slice_mm / 1000 for p in stacks]
            if organ == "brain":  # without the fluid around it
                drawn = [d - p.mask("csf").sum() * p.pixel_mm**2 * p.slice_mm / 1000
                         for d, p in zip(drawn, stacks, strict=True)]
            assert 0.65 < np.mean(drawn) / volume < 1.4, organ
            assert np.std(drawn) / np.mean(drawn) > 0.04, organ


def test_arms_lie_beside_the_trunk_or_are_absent():
    from scipy import ndimage

    for region in ("chest", "abdomen"):
        for i in range(4):
            down, up = (draw_patient((8, i), region, 128, 1, arms=arms, lesions=0) for arms in ("down", "up"))
            assert down.arms == "down"
            assert up.arms == "up"
            assert down.mask("arm_bone").any()
            assert not up.mask("arm_bone").any()
            edges = np.concatenate([down.labels[:, 0].ravel(), down.labels[:, :, 0].ravel(),
                                    down.labels[:, -1].ravel(), down.labels[:, :, -1].ravel()])
            assert not edges.any()
            assert ndimage.label(up.labels[0] > 0)[1] == 1


def test_women_and_men_differ_where_they_should():
    chest = {sex: [draw_patient((9, i), "chest", 96, 1, sex=sex, level_mm=0) for i in range(6)]
             for sex in ("female", "male")}
    assert sum(p.mask("breast").any() for p in chest["female"]) >= 4
    assert not any(p.mask("breast").any() for p in chest["male"])


@pytest.mark.parametrize("region", REGIONS)
def test_lesions_replace_only_the_organ_they_are_in(region):
    found = 0
    for i in range(12):
        with_lesions, without = (draw_patient((10, i), region, 128, 3, lesions=n) for n in (4, 0))
        covered = np.zeros(without.labels.shape, bool)
        for lesion in with_lesions.lesions:
            assert lesion.mask.any()
            assert (without.labels[lesion.mask] == ORGAN_NUMBER[lesion.organ]).all()
            assert (with_lesions.labels[lesion.mask] == ORGAN_NUMBER[f"lesion_{lesion.kind}"]).all()
            assert not (covered & lesion.mask).any()
            covered |= lesion.mask
            found += 1
        np.testing.assert_array_equal(with_lesions.labels[~covered], without.labels[~covered])
        np.testing.assert_array_equal(with_lesions.organ_labels(), without.labels)
    assert found > 25


def test_a_lesion_that_is_asked_for_has_its_size_and_kind():
    spec = LesionSpec("liver", "cold", 30.0, uptake_factor=0.5)
    volumes = []
    for i in range(6):
        patient = draw_patient((11, i), "abdomen", 128, 21, slice_mm=3, level_mm=50, lesions=[spec])
        lesion, = patient.lesions
        assert (lesion.kind, lesion.organ, lesion.uptake_factor) == ("cold", "liver", 0.5)
        volumes.append(lesion.mask.sum() * patient.pixel_mm**2 * patient.slice_mm)
    assert 0.5 < np.mean(volumes) / (np.pi / 6 * 30**3) < 1.3


def test_lymph_nodes_lie_in_fat_near_the_aorta():
    patient = draw_patient((12, 0), "abdomen", 128, 3, level_mm=-20, lesions=[LesionSpec("node", "hot", 12.0)] * 3)
    aorta = np.argwhere(patient.mask("aorta"))[:, 1:].mean(axis=0)
    for lesion in patient.lesions:
        assert lesion.organ == "fat"
        assert np.linalg.norm((np.array(lesion.centre[1:]) - aorta) * patient.pixel_mm) < 75


def test_attenuation_follows_the_table_and_bone_lesions_stay_bone():
    patient = draw_patient((13, 1), "abdomen", 128, 3, level_mm=-100,
                           lesions=[LesionSpec("pelvis_bone", "hot", 14.0), LesionSpec("muscle", "hot", 14.0)])
    mu = patient.mu_map()
    assert mu.dtype == np.float32
    assert (mu[patient.labels == 0] == 0).all()
    assert 0.0085 < mu[patient.mask("fat")].mean() < 0.0094
    in_bone, in_muscle = patient.lesions
    np.testing.assert_array_equal(mu[in_bone.mask], mu[patient.mask("pelvis_bone")][0])
    assert mu[in_muscle.mask].max() < 0.0101


def test_a_patient_is_described_in_json_and_has_texture_of_mean_one():
    patient = draw_patient((14, 0), "chest", 64, 2)
    text = json.dumps(patient.to_dict())
    assert json.loads(text)["parameters"]["sizes"]["lv_wall_mm"] > 0
    assert patient.texture[patient.labels > 0].mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("changes", "message"), [
    ({"region": "leg"}, "region"), ({"arms": "left"}, "arms"), ({"size": 8}, "size"), ({"fov_mm": 300}, "fov_mm"),
    ({"level_mm": 900}, "level_mm"), ({"lesions": -1}, "lesions"), ({"lesions": ["liver"]}, "lesions"),
    ({"lesions": [LesionSpec("putamen")]}, "putamen"), ({"sex": "x"}, "sex"),
])
def test_wrong_settings_are_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        draw_patient(0, **{"region": "chest", "size": 32, "n_slices": 1, **changes})


def test_wrong_lesions_and_patients_are_refused():
    with pytest.raises(InputError, match="kind"):
        LesionSpec("liver", "warm")
    with pytest.raises(InputError, match="organ"):
        LesionSpec("livver")
    with pytest.raises(InputError, match="organ numbers"):
        Patient(np.full((1, 4, 4), 250, np.uint8), 1.0, 1.0, "head", None, {})
    with pytest.raises(InputError, match="texture"):
        Patient(np.zeros((1, 4, 4), np.uint8), 1.0, 1.0, "head", None, {}, (), np.ones((1, 4, 5), np.float32))
