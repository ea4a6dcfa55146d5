"""What importing the generator costs and needs: no torch until a name is used, one sentence where it is absent."""

import json
import subprocess
import sys

import pytest

import allpet_gen

#: Makes packages as absent as if they had never been installed, then runs the rest of the program.
HIDE = """
import json, sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *args: None if name.partition(".")[0] in {hidden!r} else find(name, *args)
"""
GENERATOR = ["torch", "diffusers", "accelerate", "safetensors"]


def run(program, hidden=()):
    """Run a program in a fresh interpreter where some packages are absent; return what it prints as JSON."""
    done = subprocess.run([sys.executable, "-c", HIDE.format(hidden=list(hidden)) + program], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_hiding_works():
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        run("import torch", ["torch"])


def test_importing_the_generator_loads_no_torch_and_prints_nothing():
    loaded = run("import allpet_gen; print(json.dumps(sorted(sys.modules)))")
    assert "allpet_gen" in loaded
    assert not {name.partition(".")[0] for name in loaded} & {*GENERATOR, "allpet_physics", "numpy"}


def test_what_needs_no_torch_works_without():
    result = run("""
import numpy as np
import allpet_gen.count_scaling, allpet_gen.prompts, allpet_gen.symmetry
p = np.arange(6.0).reshape(2, 3)
scaling = allpet_gen.count_scaling.CountScaling(4.0)
print(json.dumps([allpet_gen.prompts.Prompt.parse("brain with 18F-FDG").tokens(),
                  scaling.decode(scaling.encode(p)).sum(), allpet_gen.symmetry.rotate_sinogram(p, 1).tolist(),
                  "torch" in sys.modules]))""", GENERATOR)
    assert result[0] == [1, 1, 1]
    assert result[1] == pytest.approx(15)
    assert result[2:] == [[[5, 4, 3], [0, 1, 2]], False]


def test_the_physics_never_imports_torch():
    loaded = run("""
import importlib, pkgutil, allpet_physics
for module in pkgutil.walk_packages(allpet_physics.__path__, "allpet_physics."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps(sorted(sys.modules)))""", [*GENERATOR, "astra", "dask", "zarr", "highdicom"])
    assert "allpet_physics.radon" in loaded
    assert not {name.partition(".")[0] for name in loaded} & {*GENERATOR, "allpet_gen"}


@pytest.mark.parametrize("absent", [GENERATOR, ["diffusers"]], ids=lambda names: names[0])
def test_without_torch_there_is_one_sentence(absent):
    said = run("""
import allpet_gen
from allpet_physics.errors import InputError
said = {}
for name in allpet_gen.__all__:
    try:
        getattr(allpet_gen, name)
    except InputError as error:
        said[name] = str(error)
print(json.dumps(said))""", absent)
    assert list(said) == allpet_gen.__all__
    for message in said.values():
        assert f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed" in message
        assert 'pip install ".[gen]" -c constraints.txt in the source folder of allpet' in message
        assert "\n" not in message


def test_public_names_are_what_they_say():
    assert set(allpet_gen.__all__) <= set(dir(allpet_gen))
    for name in ("Prompt", "CountScaling", "SinogramAutoencoder", "SinogramDenoiser"):
        assert getattr(allpet_gen, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Dreams'"):
        print(allpet_gen.Dreams)
