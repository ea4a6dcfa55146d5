"""One sentence for whoever lacks torch, instead of a traceback from the depth of an import."""

from importlib.util import find_spec

from allpet_physics.errors import InputError

_NEEDED = ("torch", "diffusers", "accelerate", "safetensors")


def require_torch() -> None:
    """Raise an `InputError` that names the extra to install when a package of the generator is absent."""
    absent = [name for name in _NEEDED if find_spec(name) is None]
    if absent:
        raise InputError(f"the generator needs {', '.join(_NEEDED)}, but {', '.join(absent)} "
                         f"{'is' if len(absent) == 1 else 'are'} not installed; run: "
                         'pip install ".[gen]" -c constraints.txt in the source folder of allpet.')
