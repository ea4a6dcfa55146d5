"""What the labels of TotalSegmentator (v2, task "total") and FreeSurfer are called, and which organ each becomes."""

import re

_SIDES = ("left", "right")

#: TotalSegmentator v2 "total", in the order of its numbers from 1 (class map of the project's documentation).
TOTALSEGMENTATOR_V2: dict[int, str] = dict(enumerate((
    "spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas", "adrenal_gland_right",
    "adrenal_gland_left", "lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right",
    "lung_middle_lobe_right", "lung_lower_lobe_right", "esophagus", "trachea", "thyroid_gland", "small_bowel",
    "duodenum", "colon", "urinary_bladder", "prostate", "kidney_cyst_left", "kidney_cyst_right", "sacrum",
    "vertebrae_S1", *(f"vertebrae_L{i}" for i in range(5, 0, -1)), *(f"vertebrae_T{i}" for i in range(12, 0, -1)),
    *(f"vertebrae_C{i}" for i in range(7, 0, -1)), "heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk",
    "subclavian_artery_right", "subclavian_artery_left", "common_carotid_artery_right", "common_carotid_artery_left",
    "brachiocephalic_vein_left", "brachiocephalic_vein_right", "atrial_appendage_left", "superior_vena_cava",
    "inferior_vena_cava", "portal_vein_and_splenic_vein",
    *(f"iliac_{v}_{s}" for v in ("artery", "vena") for s in _SIDES),
    *(f"{b}_{s}" for b in ("humerus", "scapula", "clavicula", "femur", "hip") for s in _SIDES), "spinal_cord",
    *(f"gluteus_{m}_{s}" for m in ("maximus", "medius", "minimus") for s in _SIDES),
    *(f"{m}_{s}" for m in ("autochthon", "iliopsoas") for s in _SIDES), "brain", "skull",
    *(f"rib_{s}_{i}" for s in _SIDES for i in range(1, 13)), "sternum", "costal_cartilages"), start=1))

#: Patterns (of the whole lower-case name) and the organ they become; the first that fits counts. "kidney", "stomach",
#: "bowel_tube" and "brain" are split further (see `allpet_physics.simulation.label_filling`).
_TOTAL_RULES = (
    (r"kidney_cyst.*", "lesion_cold"), (r"kidney.*", "kidney"), (r"adrenal_gland.*", "adrenal"), (r"lung_.*", "lung"),
    (r"esophagus", "oesophagus"), (r"trachea", "airway"), (r"thyroid_gland", "thyroid"),
    (r"small_bowel|colon", "bowel_tube"), (r"urinary_bladder", "bladder"), (r"sacrum|hip_.*", "pelvis_bone"),
    (r"vertebrae_.*", "vertebra"), (r"heart|atrial_appendage.*|heart_(atrium|ventricle).*", "blood_pool"),
    (r"heart_myocardium", "heart_muscle"), (r"pulmonary_(vein|artery)", "pulmonary_vessel"),
    (r"brachiocephalic_trunk|subclavian_artery.*|common_carotid.*|iliac_artery.*", "aorta"),
    (r"brachiocephalic_vein.*|superior_vena_cava|inferior_vena_cava|portal_vein.*|iliac_vena.*", "vena_cava"),
    (r"humerus.*", "arm_bone"), (r"clavicula.*", "clavicle"), (r"scapula.*", "scapula"), (r"femur.*", "femur"),
    (r"gluteus_.*|autochthon.*|iliopsoas.*|costal_cartilages", "muscle"), (r"rib_.*", "rib"), (r"brain", "brain"),
    (r"(spleen|gallbladder|liver|stomach|pancreas|duodenum|prostate|aorta|spinal_cord|skull|sternum)", r"\1"),
)

#: FreeSurfer's name of a structure and its numbers on the left and on the right (FreeSurferColorLUT).
_FREESURFER_PAIRS = (
    ("Cerebral-White-Matter", 2, 41), ("Cerebral-Cortex", 3, 42), ("Lateral-Ventricle", 4, 43),
    ("Inf-Lat-Vent", 5, 44), ("Cerebellum-White-Matter", 7, 46), ("Cerebellum-Cortex", 8, 47), ("Thalamus", 10, 49),
    ("Caudate", 11, 50), ("Putamen", 12, 51), ("Pallidum", 13, 52), ("Hippocampus", 17, 53), ("Amygdala", 18, 54),
    ("Accumbens-area", 26, 58), ("VentralDC", 28, 60), ("vessel", 30, 62), ("choroid-plexus", 31, 63))
#: FreeSurfer's numbers of what is not cortical; parcellations of the cortex are found by their range.
FREESURFER: dict[int, str] = {
    0: "Unknown", 14: "3rd-Ventricle", 15: "4th-Ventricle", 16: "Brain-Stem", 24: "CSF", 72: "5th-Ventricle",
    77: "WM-hypointensities", 80: "non-WM-hypointensities", 85: "Optic-Chiasm", 130: "AirCavity", 165: "Skull",
    172: "Vermis", 174: "Pons", 251: "CC_Posterior", 252: "CC_Mid_Posterior", 253: "CC_Central", 254: "CC_Mid_Anterior",
    255: "CC_Anterior", 257: "CSF-ExtraCerebral", 258: "Head-ExtraCerebral",
    **{left: f"Left-{name}" for name, left, _ in _FREESURFER_PAIRS},
    **{right: f"Right-{name}" for name, _, right in _FREESURFER_PAIRS},
}

_FREESURFER_RULES = (
    (r"unknown|background|ctx-.*unknown", "air"),
    (r"cerebellum-white-matter", "cerebellum_white"), (r"cerebellum-.*|vermis.*", "cerebellum"),
    (r"cerebral-white-matter|wm-.*|cc_.*|.*wm-hypointensities|optic-chiasm|fornix", "brain_white"),
    (r"ctx.*|cerebral-cortex|hippocampus|amygdala|pallidum|claustrum.*", "brain_grey"),
    (r"thalamus.*", "thalamus"), (r"caudate|accumbens-area", "caudate"), (r"putamen", "putamen"),
    (r"brain-?stem|ventraldc|pons|midbrain|medulla|scp", "brainstem"),
    (r".*ventricle|inf-lat-vent|choroid-plexus|csf.*|vessel", "csf"),
    (r"skull", "skull"), (r"aircavity", "airway"), (r"head-extracerebral", "scalp"),
)


def totalsegmentator_organ(name: str) -> str | None:
    """Return the organ that a name of TotalSegmentator becomes, or None."""
    return _match(_TOTAL_RULES, name.strip().lower())


def freesurfer_organ(name: str) -> str | None:
    """Return the organ that a name of FreeSurfer becomes, or None."""
    return _match(_FREESURFER_RULES, re.sub(r"^(left|right)-", "", name.strip().lower()))


def freesurfer_name(number: int) -> str | None:
    """Return FreeSurfer's name of a number, parcellations (``ctx``, ``wm``) by their range, or None."""
    if number in FREESURFER:
        return FREESURFER[number]
    if 1000 <= number < 3000 or 11100 <= number < 12300:
        return f"ctx-{number}"
    return f"wm-{number}" if 3000 <= number < 5003 or 13100 <= number < 14300 else None


def _match(rules, name):
    for pattern, organ in rules:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(organ)
    return None
