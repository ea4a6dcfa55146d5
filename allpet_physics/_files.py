"""Files that appear whole or not at all: written beside their place, then renamed into it."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from allpet_physics.errors import InputError


@contextlib.contextmanager
def staged(folder: str | os.PathLike, names: Sequence[str], *, overwrite: bool = False):
    """Yield a hidden folder to write into; its files move to `folder` together when the block ends without an error.

    The hidden folder lies inside `folder`, so that a file's own name (which some formats repeat in their header) is
    already the final one and the move is a rename. `folder` is created if needed, and removed again when the block
    fails. An error, Ctrl-C included, leaves nothing behind.

    Parameters
    ----------
    folder : path-like
    names : sequence of str
        Every name that the block may write. They are moved in this order: put the file that vouches for the others
        last. With `overwrite`, files of these names from an earlier run that this run does not write are removed.
    overwrite : bool
        Whether existing files are replaced.

    Raises
    ------
    InputError
        A file of one of the names exists, and `overwrite` is false.
    OSError
        The folder cannot be written; raised before the block begins.
    """
    folder = Path(folder)
    refuse_existing(folder, names, overwrite)
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    staging = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = _hidden_folder(folder)
        yield staging
        with uninterrupted():
            written = [name for name in names if (staging / name).exists()]
            for name in reversed(names):
                if overwrite and (name not in written or name == names[-1]):
                    (folder / name).unlink(missing_ok=True)
            for name in written:
                os.replace(staging / name, folder / name)
            missing = []
    finally:
        with uninterrupted():
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
            for path in missing:
                with contextlib.suppress(OSError):
                    path.rmdir()


def refuse_existing(folder: str | os.PathLike, names: Sequence[str], overwrite: bool) -> None:
    """Raise InputError when a file of one of the names exists and must not be replaced, or a folder does."""
    folders = [name for name in names if (Path(folder) / name).is_dir()]
    if folders:
        raise InputError(f"{folders[0]} in {str(folder)!r} is a folder, which a file cannot replace; choose another "
                         "--out.")
    existing = [name for name in names if os.path.lexists(Path(folder) / name)]
    if existing and not overwrite:
        raise InputError(f"{', '.join(existing)} exist{'s' * (len(existing) == 1)} in {str(folder)!r} already; pass "
                         "--overwrite to replace, or choose another --out.")


def refuse_replacing(folder: str | os.PathLike, names: Sequence[str], inputs: Mapping[str, Path | None]) -> None:
    """Raise InputError when a file of one of the names is one that the command reads, whatever path leads to it.

    Parameters
    ----------
    folder, names
        What would be written.
    inputs : mapping of str to path or None
        What is read, by what it is called in the message; files that do not exist cannot be lost.
    """
    for what, path in inputs.items():
        for name in names:
            place = Path(folder) / name
            if path is not None and path.exists() and place.exists() and place.samefile(path):
                raise InputError(f"{name} in {str(folder)!r} is {what} itself, which this command reads and would "
                                 "replace; choose another --out.")


def refuse_unwritable(folder: str | os.PathLike) -> None:
    """Raise OSError when files cannot be made in a folder, or in the nearest one above it that exists.

    Permissions alone do not tell (a read-only disk, the root user), so an empty folder is made there and removed.
    """
    folder = Path(folder).absolute()
    nearest = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
    if not nearest.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(nearest))
    with uninterrupted():
        _hidden_folder(nearest).rmdir()


def _hidden_folder(folder: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=".allpet-", dir=folder))
    except OSError as error:  # its file name is that of the hidden folder, which nobody asked for
        raise OSError(error.errno, f"no file can be made there ({error.strerror})", str(folder)) from None


@contextlib.contextmanager
def uninterrupted():
    """Hold Ctrl-C back until the block has ended, then let it through."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending = []
    previous = signal.signal(signal.SIGINT, lambda *_: pending.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pending:
        raise KeyboardInterrupt
