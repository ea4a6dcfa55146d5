"""What is installed, how many threads there are, and whether projectors and FBP give the analytic answer here."""

import importlib.util
import os
import platform
import time
from importlib import metadata

import numpy as np

from allpet_physics._record import versions
from allpet_physics.geometry import ParallelGeometry

#: Optional packages: what they are for, and the extra that brings them.
EXTRAS = {"astra": ("ASTRA as second projector", "astra"), "highdicom": ("DICOM segmentations", "seg"),
          "dask": ("many processes", "scale"), "zarr": ("large stores", "scale"),
          "torch": ("generated sinograms", "gen"), "diffusers": ("generated sinograms", "gen"),
          "sphinx": ("building the documentation", "docs")}
_DISTRIBUTIONS = {"astra": "astra-toolbox"}
#: Largest error of each self-test; the errors of a right installation are less than half of these.
_LIMITS = {"rectangle": 1e-10, "strip": 1e-2, "joseph": 2e-2, "fbp": 1e-3, "adjoint": 1e-12}


def diagnose() -> dict:
    """Return versions, threads, extras and the self-test, ready for JSON; ``["healthy"]`` says whether it passed."""
    tests = self_test()
    return {"healthy": all(test["passed"] for test in tests), "versions": versions(),
            "system": f"{platform.system()} {platform.machine()}", "threads": threads(), "extras": extras(),
            "self_test": tests}


def threads() -> dict:
    """Return how many processors and threads there are and which layer Numba runs them on."""
    import numba

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        layer = numba.threading_layer()
    except ValueError:  # no parallel kernel has run yet in this process
        layer = "not started"
    return {"processors": usable, "numba_threads": numba.get_num_threads(), "layer": layer}


def extras() -> dict[str, dict]:
    """Return for each optional package whether it is there, its version, and how to install it."""
    found = {}
    for module, (purpose, extra) in EXTRAS.items():
        present = importlib.util.find_spec(module) is not None
        found[module] = {"present": present, "for": purpose}
        if present:
            try:
                found[module]["version"] = metadata.version(_DISTRIBUTIONS.get(module, module))
            except metadata.PackageNotFoundError:
                found[module]["version"] = "unknown"
        else:
            found[module]["install"] = f'pip install ".[{extra}]" in the source folder of allpet'
    return found


def self_test() -> list[dict]:
    r"""Compare the projectors and FBP with the closed forms of a disc and a rectangle.

    The strip model is compared with the bin-averaged projection of the disc, Joseph with its line integrals, both as
    root-mean-square difference over the root mean square of the truth; the image of the disc is anti-aliased, and
    what remains is its pixels. A rectangle of whole pixels has no such rest: there the strip model is exact to
    rounding. FBP takes the exact sinogram and is compared in its mean over the inner disc. The adjoint error is that
    of `adjoint_error` in float64.

    Returns
    -------
    list of dict
        ``name``, ``error``, ``limit``, ``passed``, ``seconds`` (the first includes compiling), or the exception as
        ``problem``.
    """
    from allpet_physics.simulation.phantom import Phantom
    from allpet_physics.simulation.shapes import Rectangle, disc

    geometry = ParallelGeometry(n_angles=180, n_bins=193, bin_mm=2.0, image_shape=(128, 128), pixel_mm=2.0)
    centre, radius, value = (21.0, -13.0), 71.0, 2.5
    phantom = Phantom((disc(*centre, radius, value),))
    rectangle = Phantom((Rectangle(10.0, -6.0, 40.0, 28.0, value=value),))

    def projector(model, exact, shape=phantom):
        from allpet_physics.radon import RadonOperator

        found = RadonOperator(geometry, model=model)(shape.image(geometry, supersampling=16))
        truth = shape.sinogram(geometry, exact)
        return np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2))

    def fbp_of_disc():
        from allpet_physics.fbp import fbp

        image = fbp(phantom.sinogram(geometry, "bin"), geometry)
        inner = np.hypot(geometry.x[None] - centre[0], geometry.y[:, None] - centre[1]) < 0.8 * radius
        return abs(image[inner].mean() / value - 1)

    def adjoint():
        from allpet_physics.operators import adjoint_error
        from allpet_physics.radon import RadonOperator

        rng = np.random.default_rng(0)
        return max(adjoint_error(RadonOperator(geometry, model=model), rng) for model in ("strip", "joseph"))

    return [_outcome("rectangle", "strip projector against a rectangle of whole pixels",
                     lambda: projector("strip", "bin", rectangle)),
            _outcome("strip", "strip projector against the disc's bin means", lambda: projector("strip", "bin")),
            _outcome("joseph", "Joseph projector against the disc's line integrals",
                     lambda: projector("joseph", "line")),
            _outcome("fbp", "FBP of the exact disc, mean inside", fbp_of_disc),
            _outcome("adjoint", "adjoint of both projectors", adjoint)]


def _outcome(key: str, name: str, measure) -> dict:
    start = time.perf_counter()
    try:
        error = float(measure())
    except Exception as problem:  # a broken installation fails in any way; the report is the point
        return {"name": name, "error": None, "limit": _LIMITS[key], "passed": False,
                "seconds": round(time.perf_counter() - start, 3), "problem": f"{type(problem).__name__}: {problem}"}
    return {"name": name, "error": error, "limit": _LIMITS[key], "passed": bool(error <= _LIMITS[key]),
            "seconds": round(time.perf_counter() - start, 3)}
