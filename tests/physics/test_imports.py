"""What importing costs, what it needs, and what it makes public."""

import json
import subprocess
import sys

import pytest

import allpet_physics

OPTIONAL = ["torch", "astra", "dask", "zarr", "highdicom", "diffusers", "accelerate", "skimage"]
HEAVY = ["numba", "scipy", "nibabel", "pydicom", "matplotlib", "tqdm", "click", "importlib.metadata"]

#: Makes packages unimportable, then runs the rest of the program.
BLOCK = f"""
import importlib.abc, json, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run_without_extras(program):
    """Run a program in a fresh interpreter where no extra can be imported; return what it prints as JSON."""
    done = subprocess.run([sys.executable, "-c", BLOCK + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_block_works():
    done = subprocess.run([sys.executable, "-c", BLOCK + "import skimage"], capture_output=True, text=True, check=False)
    assert "blocked" in done.stderr


def test_import_needs_no_extra_loads_nothing_heavy_and_prints_nothing():
    loaded = run_without_extras("import allpet_physics; print(json.dumps(sorted(sys.modules)))")
    assert "allpet_physics.radon" in loaded
    assert not set(loaded) & {*HEAVY, *OPTIONAL}


def test_import_takes_less_than_half_a_second():
    # Processor time of the whole process, interpreter start included.
    program = "import allpet_physics, time; print(time.process_time())"

    def seconds():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return float(done.stdout)

    seconds()
    assert min(seconds() for _ in range(5)) < 0.5  # other work on the machine only adds


def test_no_import_of_the_physics_and_no_help_imports_torch_even_where_it_is_installed():
    program = """
import json, pkgutil, sys
from importlib import import_module
import allpet_physics
for module in pkgutil.walk_packages(allpet_physics.__path__, "allpet_physics."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
from click.testing import CliRunner
from allpet_physics.cli import cli
print(CliRunner().invoke(cli, ["--help"]).output, file=sys.stderr)
print(json.dumps(sorted(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "train " in done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"torch", "diffusers", "accelerate", "safetensors", "tensorboard"}


def test_help_does_not_load_the_simulation():
    program = ("import json, sys; sys.argv = ['allpet', '--help']\nfrom allpet_physics.cli import main\n"
               "try:\n    main()\nfinally:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "allpet_physics.acquisition" in json.loads(done.stderr)
    assert "allpet_physics.simulation" not in json.loads(done.stderr)


def test_help_takes_less_than_half_a_second():
    program = ("import sys, time; sys.argv = ['allpet', '--help']\nfrom allpet_physics.cli import main\n"
               "try:\n    main()\nfinally:\n    print(time.process_time(), file=sys.stderr)")

    def seconds():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return float(done.stderr)

    seconds()
    assert min(seconds() for _ in range(5)) < 0.5  # other work on the machine only adds


def test_lazy_submodules_work_without_extras():
    names = run_without_extras("""
import allpet_physics
print(json.dumps([allpet_physics.io.read_pet.__name__, allpet_physics.simulation.demo_torso.__name__,
                  allpet_physics.conventions.sinogram_to_skimage.__name__]))""")
    assert names == ["read_pet", "demo_torso", "sinogram_to_skimage"]


def test_the_whole_chain_runs_without_extras():
    ratio = run_without_extras("""
import numpy as np
from allpet_physics import AcquisitionModel, ParallelGeometry, RadonOperator, fbp, osem, project_roi
geometry = ParallelGeometry(16, 16, 2.0, (16, 16), 2.0)
image = np.zeros((16, 16)); image[5:11, 5:11] = 1
A = RadonOperator(geometry)
counts = 1000 * A(image)
x = osem(AcquisitionModel(1000 * A), counts, n_iterations=1, n_subsets=1)
project_roi(image > 0, geometry)
fbp(counts, geometry)
print(json.dumps(float(A(x).sum() / A(image).sum())))""")
    assert ratio == pytest.approx(1, rel=1e-4)


def test_every_public_name_exists_and_is_documented():
    assert sorted(allpet_physics.__all__) == allpet_physics.__all__
    for name in allpet_physics.__all__:
        assert getattr(allpet_physics, name).__doc__, name
    assert set(allpet_physics.__all__) <= set(dir(allpet_physics))


def test_fbp_stays_the_function_when_its_module_is_imported():
    import importlib

    module = importlib.import_module("allpet_physics.fbp")
    assert allpet_physics.fbp is module.fbp


def test_unknown_names_are_refused_as_everywhere():
    with pytest.raises(AttributeError, match=r"allpet_physics.*no attribute 'osme'"):
        print(allpet_physics.osme)


def test_version_is_the_installed_one():
    from importlib.metadata import version

    assert allpet_physics.__version__ == version("allpet")


def test_a_missing_extra_is_named_with_its_installation():
    message = run_without_extras("""
from allpet_physics import InputError, ParallelGeometry, RadonOperator
try:
    RadonOperator(ParallelGeometry(4, 4, 1.0, (4, 4), 1.0), backend="astra")
except InputError as error:
    print(json.dumps(str(error)))""")
    assert 'pip install ".[astra]"' in message
