"""Records of benchmarks, JSON files: read with one clear sentence where there is none, and written whole or not."""

import contextlib
import json
import os
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path


def read_record(parser: ArgumentParser, name: str, path: Path) -> dict:
    """Return a record; where it cannot be read, the script ends and says which argument it was."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"{name} must be a record of a benchmark, but {str(path)!r} cannot be read as one ({error}).")
    if not isinstance(found, dict):
        parser.error(f"{name} must be a record of a benchmark, but {str(path)!r} holds no object.")
    return found


def record_to_renew(parser: ArgumentParser, name: str, path: Path | None) -> dict:
    """Return the record that a run goes on with; an empty one if there is none yet."""
    return read_record(parser, name, path) if path is not None and path.exists() else {}


def write_page(parser: ArgumentParser, path: Path, make: Callable[[], str]) -> None:
    """Write the page that `make` returns; the script ends where its records lack a part, or it cannot be written."""
    try:
        text = make()
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, RuntimeError) as error:
        parser.error("records must be whole and of one version, but one of them lacks a part or has another "
                     f"({type(error).__name__}: {error}).")
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        parser.error(f"out must be a file that can be written, but {str(path)!r} is none ({error}).")


def write_record(path: Path | None, record: dict, **how) -> None:
    """Write a record, in one line for each value unless asked otherwise; nowhere, if there is no path."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(record, **({"indent": 1} | how)) + "\n", encoding="utf-8")
    os.replace(partial, path)
