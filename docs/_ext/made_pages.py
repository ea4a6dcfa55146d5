"""Write the pages that follow from the code into docs/made: the API, the commands, and what lies outside docs.

Sphinx reads files of its source folder alone, so these have to lie there while it builds; git ignores them.
"""

import sys
from pathlib import Path

import nbformat
import rooms
from rooms import ROOT

HERE = ROOT / "docs"
MADE = HERE / "made"
#: Pages of the repository that lie outside docs: where they lie, and what they are called on the site.
BROUGHT = {"CONVENTIONS.md": "conventions", "CHANGELOG.md": "changelog"}
NOT_STORED = """*Stored without outputs; the tests run it from top to bottom. To see its pictures, run it yourself:
{{download}}`{name} <../../../notebooks/{name}>`, with `pip install ".[all]" jupyterlab` in a clone.*"""

NOTEBOOKS = """They are stored without outputs; the tests run them from top to bottom. To read them with their
pictures, from a clone: ``pip install ".[all]" jupyterlab``, then ``jupyter lab notebooks``.
"""
API = """Each package offers names to import, and lies in rooms: modules of one subject each. A name is explained where
it is defined, with its equations, units and sources; import it from the package where that offers it.
"""


def brought_pages() -> dict[str, Path]:
    """Return where the pages brought from outside docs come from, by their names on the site."""
    found = {f"made/{name}": ROOT / path for path, name in BROUGHT.items()}
    for card in sorted(ROOT.glob("allpet_gen/pretrained/*/README.md")):
        found[f"made/cards/{card.parent.name}"] = card
    for notebook in sorted(ROOT.glob("notebooks/*.ipynb")):
        found[f"made/notebooks/{notebook.stem}"] = notebook
    return found


def write_pages(app) -> None:
    """Write every page whose text has changed, and remove those that nothing asks for any more."""
    pages = {}
    for name, path in brought_pages().items():
        text = path.read_text(encoding="utf-8")
        pages[f"{name}{path.suffix}"] = _with_note(text, path.name) if path.suffix == ".ipynb" else text
    for package in rooms.packages():
        pages[f"made/api/{package}.rst"] = _package_page(package)
        for module in rooms.modules(package):
            pages[f"made/api/{module}.rst"] = _module_page(package, module)
    listed = "".join(f"   {package}\n" for package in rooms.packages())
    pages["made/api/index.rst"] = (f"{_heading('API')}{API}\n" + _rows([
        (f":py:mod:`{package}`", rooms.summary(rooms.docstring(package))) for package in rooms.packages()])
        + f".. toctree::\n   :hidden:\n\n{listed}")
    names = "".join(f"   {path.stem}\n" for path in sorted(ROOT.glob("notebooks/*.ipynb")))
    pages["made/notebooks/index.rst"] = f"{_heading('Notebooks')}{NOTEBOOKS}\n.. toctree::\n   :maxdepth: 1\n\n{names}"
    pages |= _command_pages()
    kept = {HERE / name for name in pages}
    for path in sorted(MADE.rglob("*")):
        if path.is_file() and path not in kept and path.parent != MADE:
            path.unlink()
    for name, text in pages.items():
        write(HERE / name, text)


def write(path: Path, text: str) -> None:
    """Write a page unless it says this already, so that Sphinx reads again only what changed."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _with_note(text: str, name: str) -> str:
    notebook = nbformat.reads(text, as_version=4)
    note = nbformat.v4.new_markdown_cell(NOT_STORED.format(name=name), id="not-stored")
    notebook.cells.insert(1, note)
    return nbformat.writes(notebook)


def _heading(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n\n"


def _rows(entries: list[tuple[str, str]]) -> str:
    rows = "".join(f"   * - {left}\n     - {right}\n" for left, right in entries)
    return f".. list-table::\n   :widths: 30 70\n\n{rows}\n"


def _package_page(package: str) -> str:
    parts = [_heading(package), f".. automodule:: {package}\n   :members:\n   :ignore-module-all:\n\n"]
    by_home, here = {}, []
    for name, value in rooms.exported(package).items():
        home = rooms.home(package, name, value)
        if home == package:
            continue  # stands above
        if home.rsplit(".", 1)[-1].startswith("_"):
            here.append((name, "autoclass" if isinstance(value, type) else "autofunction"))
        else:
            by_home.setdefault(home, []).append((name, rooms.summary(value.__doc__) if callable(value) else ""))
    order = [module for module in rooms.modules(package) if module in by_home] + sorted(set(by_home) - set(
        rooms.modules(package)))
    if order:
        parts.append(_heading("Names to import from here", "-"))
    for module in order:
        entries = [(f":py:obj:`{name} <{module}.{name}>`", text) for name, text in sorted(by_home[module])]
        parts += [f".. currentmodule:: {module}\n\n", f":py:mod:`{module.rsplit('.', 1)[-1]} <{module}>`: "
                  f"{rooms.summary(rooms.docstring(module))}\n\n", _rows(entries)]
    parts += [f".. currentmodule:: {package}\n\n"]
    parts += [f".. {directive}:: {name}\n\n" for name, directive in here]
    parts += [_heading("Modules", "-")] if rooms.modules(package) else []
    for module in rooms.modules(package):
        parts += [f"* :py:mod:`{module}`: {rooms.summary(rooms.docstring(module))}\n"]
    entries = "".join(f"   {module.rsplit('.', 1)[-1]} <{module}>\n" for module in rooms.modules(package))
    parts += [f"\n.. toctree::\n   :hidden:\n\n{entries}"]
    return "".join(parts)


def _module_page(package: str, module: str) -> str:
    offered = sorted(name for name, value in rooms.exported(package).items()
                     if rooms.home(package, name, value) == module)
    line = f"``from {package} import {', '.join(offered)}``\n\n" if offered else ""
    return (f"{_heading(module)}{line}.. automodule:: {module}\n   :members:\n   :ignore-module-all:\n")


def _command_pages() -> dict[str, str]:
    from allpet_physics.cli import cli

    names = cli.list_commands(None)
    pages, rows = {}, []
    for name in names:
        command = cli.get_command(None, name)
        module = sys.modules[command.callback.__module__]
        attribute = next(key for key, value in vars(module).items() if value is command)
        pages[f"made/commands/{name}.rst"] = (f".. click:: {module.__name__}:{attribute}\n"
                                              f"   :prog: allpet {name}\n")
        rows.append((f":doc:`allpet {name} <{name}>`", command.get_short_help_str(200)))
    listed = "".join(f"   {name} <{name}>\n" for name in names)
    pages["made/commands/index.rst"] = (
        f"{_heading('Command line')}{cli.help}\n\n{_rows(rows)}"
        "Every command has ``--help`` with an example, ``--json`` for scripts and ``--quiet``. Exit codes: 0 done, 1 "
        "failed outside the\ninput (disk, permission), 2 usage, 3 geometry, 4 metadata, 5 empty result, 130 "
        f"interrupted.\n\n.. toctree::\n   :hidden:\n\n{listed}")
    return pages


def _example_as_code(app, ctx, lines) -> None:
    """Show the example that ends a command's help as code; sphinx-click makes a line block of it."""
    if "| Example:" in lines:
        first = lines.index("| Example:")
        last = next((i for i in range(first + 1, len(lines)) if not lines[i].startswith("|")), len(lines))
        code = [f"   {line[1:].strip()}" for line in lines[first + 1:last]]
        lines[first:last] = ["Example:", "", ".. code-block:: shell", "", *code, ""]


def setup(app):
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("sphinx-click-process-epilog", _example_as_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
