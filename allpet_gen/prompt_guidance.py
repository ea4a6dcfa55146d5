"""How much a prompt steers a generator: the weights that are taken unless told otherwise, and how they are written."""

from collections.abc import Mapping

from allpet_physics.errors import InputError

#: How much a generator is guided by a prompt, and from which part of its steps on, unless told otherwise.
GUIDANCE, GUIDANCE_START = 3.0, 0.4
#: Words of a prompt that guidance may weigh one by one.
GUIDED_WORDS = ("region", "tracer")


def parse_guidance(text: str) -> float | dict[str, float]:
    """Return a weight of the whole prompt, such as "2", or weights of its words, such as "region=3,tracer=7".

    Raises
    ------
    InputError
        Anything else.
    """
    try:
        if "=" not in text:
            return float(text)
        pairs = [part.split("=") for part in text.split(",")]
        weights = {word.strip(): float(weight) for word, weight in pairs}
        if len(weights) < len(pairs):
            raise ValueError
        return weights
    except ValueError:
        raise InputError("guidance must be a number, or weights of words such as region=3,tracer=7, but was "
                         f"{text!r}.") from None


def guidance_words(guidance) -> str:
    """Return a guidance as `parse_guidance` reads it."""
    if isinstance(guidance, Mapping):
        return ",".join(f"{word}={weight:g}" for word, weight in guidance.items())
    return f"{guidance:g}"
