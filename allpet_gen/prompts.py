"""Prompts: which tracer, which region, which task; in words and as token numbers."""

import re
import unicodedata
from dataclasses import dataclass

from allpet_physics.errors import InputError
from allpet_physics.simulation.study_settings import REGION_WORDS
from allpet_physics.simulation.tracer_names import TRACERS, parse_tracer

#: Token 0 of each kind means "not said": classifier-free guidance subtracts it.
NULL = 0
TASKS = ("generation", "low-dose", "attenuation-correction", "delayed-frame", "tracer-separation", "tracer-conversion")
#: Words of each kind in the order of their tokens; weights of a network depend on it, so it only grows at the end.
VOCABULARY = {
    "tracer": ("18F-FDG", "18F-DOPA", "68Ga-PSMA"),
    "region": ("head", "chest", "abdomen"),
    "task": TASKS,
}
_REGION_ALIASES = {word: region for region, word in REGION_WORDS.items()} | {
    "head": "head", "thorax": "chest", "lung": "chest", "lungs": "chest", "liver": "abdomen", "belly": "abdomen"}
_TASK_ALIASES = {"generate": "generation", "low dose": "low-dose", "attenuation correction": "attenuation-correction",
                 "delayed frame": "delayed-frame", "tracer separation": "tracer-separation",
                 "tracer conversion": "tracer-conversion"} | {task: task for task in TASKS}
#: Stands for a prompt that names neither region nor tracer.
_ANYTHING = "anything"
_FILLERS = {_ANYTHING, "with", "of", "a", "an", "the", "in", "and", "for", "pet", "scan", "sinogram", "sinograms",
            "tracer", "region", "task"}


@dataclass(frozen=True)
class Prompt:
    """What is asked of a generator; a part that is None is left to the model.

    Parameters
    ----------
    tracer : str, optional
        Any spelling that `parse_tracer` knows.
    region : {"head", "chest", "abdomen"}, optional
        "brain" and "thorax" are understood.
    task : str
        One of `TASKS`.

    Raises
    ------
    InputError
        A name that is not known; the message lists those that are.
    """

    tracer: str | None = None
    region: str | None = None
    task: str = "generation"

    def __post_init__(self):
        if self.tracer is not None:
            object.__setattr__(self, "tracer", parse_tracer(self.tracer).name)
        if self.region is not None:
            object.__setattr__(self, "region", _known("region", self.region, _REGION_ALIASES))
        object.__setattr__(self, "task", _known("task", self.task, _TASK_ALIASES))

    @classmethod
    def parse(cls, text) -> "Prompt":
        """Return the prompt that a wording means, such as "brain with 18F-FDG" or "low-dose chest, FDG".

        Order, case and words such as "with" do not matter. "anything" leaves region and tracer to the model.

        Parameters
        ----------
        text : str or Prompt

        Raises
        ------
        InputError
            A word that is not known, a kind that is named twice, nothing said at all; the message lists what is known.
        """
        if isinstance(text, cls):
            return text
        if not isinstance(text, str):
            raise InputError(f'prompt must be words such as "brain with 18F-FDG", but was {type(text).__name__}.')
        rest, found = _plain(text), {}
        for words, task in sorted(_TASK_ALIASES.items(), key=lambda item: -len(item[0])):
            rest, times = re.subn(rf"(?<![\w-]){words}(?![\w-])", " ", rest)
            if times:
                _put(found, "task", task, text)
        for word in _words(rest):
            if word in _FILLERS:
                continue
            if word in _REGION_ALIASES:
                _put(found, "region", _REGION_ALIASES[word], text)
                continue
            try:
                name = parse_tracer(word).name
            except InputError:
                raise InputError(f"prompt must say what to draw in known words, but {word!r} of {text!r} is unknown; "
                                 f"known are the regions {', '.join(REGION_WORDS.values())}, the tracers "
                                 f"{', '.join(TRACERS)} and the tasks {', '.join(TASKS)}.") from None
            _put(found, "tracer", name, text)
        if not {"tracer", "region"} & set(found) and _ANYTHING not in _words(rest):
            raise InputError(f"prompt must name a region ({', '.join(REGION_WORDS.values())}), a tracer "
                             f"({', '.join(TRACERS)}) or both, but was {text!r}.")
        return cls(**found)

    def tokens(self) -> tuple[int, int, int]:
        """Return the token numbers of tracer, region and task, in this order; `NULL` for what is not said."""
        parts = {"tracer": self.tracer, "region": self.region, "task": self.task}
        return tuple(NULL if parts[kind] is None else words.index(parts[kind]) + 1
                     for kind, words in VOCABULARY.items())

    def __str__(self) -> str:
        region = REGION_WORDS.get(self.region, self.region)
        words = " with ".join(part for part in (region, self.tracer) if part) or _ANYTHING
        return words if self.task == "generation" else f"{self.task}: {words}"


def _plain(text: str) -> str:
    """Return lower case without superscripts, special hyphens, repeated spaces and the hyphen of "FDG-PET"."""
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", unicodedata.normalize("NFKC", text))
    return re.sub(r"-pet\b", " pet", " ".join(text.lower().split()))


def _words(text: str) -> list[str]:
    """Split at spaces and punctuation, and join the nuclide of "18f fdg" or "f-18 fdg" to what follows."""
    words = [w for w in (w.strip(".!?\"'") for w in re.split(r"[\s,;:/()]+", text)) if w]
    joined = []
    while words:
        word = words.pop(0)
        if re.fullmatch(r"\[?(\d+[a-z]{1,2}|[a-z]{1,2}-?\d+)\]?", word) and words:
            word += "-" + words.pop(0)
        joined.append(word)
    return joined


def _put(found: dict, kind: str, value: str, text: str) -> None:
    if found.get(kind, value) != value:
        raise InputError(f"prompt must name one {kind}, but {text!r} names {found[kind]} and {value}; "
                         "ask for them one after the other.")
    found[kind] = value


def _known(kind: str, value, aliases: dict) -> str:
    if not isinstance(value, str) or value.lower() not in aliases:
        known = ", ".join(VOCABULARY[kind])
        raise InputError(f"{kind} must be one of {known}, but was {value!r}.")
    return aliases[value.lower()]
