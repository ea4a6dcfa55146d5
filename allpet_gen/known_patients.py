"""Whom a model was trained on, by the card of its training: nobody of them can judge it."""

from collections.abc import Mapping

from allpet_gen._pretrained import model_folder
from allpet_gen.training_card import CARD, read_card, store_digest
from allpet_physics.errors import InputError


def training_card(folder) -> dict:
    """Return the card of the training of the model in a folder.

    Raises
    ------
    InputError
        None there, or one that does not say whom the model was trained on.
    """
    card = read_card(folder)
    if card is None:
        raise InputError(f"model must come with {CARD}, which says what patients it was trained on, but "
                         f"{str(folder)!r} has none; use the folder that allpet train wrote.")
    patients = card.get("patients")
    if not isinstance(patients, dict) or not isinstance(patients.get("train"), list):
        raise InputError(f"{CARD} in {str(folder)!r} must say what patients the model was trained on, but does not; "
                         "use the folder as allpet train wrote it.")
    return card


def known_patients(card: Mapping, cohort) -> set[int]:
    """Return the patients of a cohort that a model was trained on.

    Patients of a simulated cohort are known by its seed and their number: stores of one seed have the same ones, at
    whatever size. Of drawn pairs, whoever drew them and whoever made their targets count with theirs.

    Parameters
    ----------
    card : mapping
        Of `training_card`.
    cohort : Cohort
    """
    own = (cohort.card["kind"], cohort.card["parameters"]["seed"])
    same = (card["store"].get("sha256") == store_digest(cohort)
            or (card["store"].get("kind"), card["store"].get("seed")) == own)
    known = set(card["patients"]["train"]) if same else set()
    if card.get("sinograms", {}).get("drawn"):
        synthetic = card["settings"]["synthetic"]
        for name, kind in (("generator", "SinogramGenerationPipeline"), ("teacher", "SinogramBridgePipeline")):
            known |= known_patients(training_card(model_folder(synthetic[name], kind)), cohort)
    return known


def refuse_known_patients(card: Mapping, cohort, split: str) -> None:
    """Raise InputError if a model was trained on patients of a part of a cohort."""
    both = sorted(known_patients(card, cohort) & set(cohort.select(split=split).patients.tolist()))
    if both:
        raise InputError(f"the patients must be others than those of the training, but {len(both)} of the {split} "
                         f"part were trained on, such as {', '.join(map(str, both[:4]))}; choose --split test, or a "
                         "store of another seed.")
