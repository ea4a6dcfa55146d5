"""The record of how a result was made: digests of the inputs, versions, what was used; nothing that names a patient."""

import hashlib
import platform
from importlib import metadata
from pathlib import Path

import numpy as np

from allpet_physics._command_line import base_name, version

_PACKAGES = ("numpy", "scipy", "numba", "nibabel", "pydicom", "highdicom", "matplotlib")


def versions() -> dict[str, str]:
    """Return the versions of allpet, Python and the packages that results may depend on, of those installed."""
    found = {"allpet": version(), "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def digest(path) -> dict:
    """Return a file's SHA-256, or for a folder the number of files below it and the SHA-256 of their sorted digests.

    The digest of a folder depends on what its files hold, not on their names or order. Of the path only the last
    part is kept, as given: folder names often carry patients' names.
    """
    path = Path(path)
    if path.is_dir():
        files = [p for p in path.rglob("*") if p.is_file()]
        joined = "".join(sorted(_sha256(p) for p in files))
        return {"name": base_name(path), "files": len(files), "sha256": hashlib.sha256(joined.encode()).hexdigest()}
    return {"name": base_name(path), "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value):
    """Return `value` in types that JSON knows: arrays become lists, paths their last part, NaN and Inf text."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, Path):
        return base_name(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
