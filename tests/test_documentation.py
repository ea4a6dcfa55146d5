"""The documentation site builds without a warning, has a page for every public name and command, and no dead link."""

import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sphinx.util.inventory import InventoryFile

import allpet_gen
import allpet_physics
from allpet_physics.cli import cli

ROOT = Path(__file__).resolve().parents[1]


class Page(HTMLParser):
    """The identifiers of a page and where its links and pictures lead."""

    def __init__(self, path):
        super().__init__()
        self.identifiers, self.targets = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.identifiers.add(value)
            elif name in ("href", "src") and value:
                self.targets.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html",
               "-d", folder / "doctrees", ROOT / "docs", folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def documented(site):
    """The full names that the site's inventory holds, with their pages."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    return {name: item.uri.partition("#")[0] for kind, items in inventory.items() if kind.startswith("py:")
            for name, item in items.items()}


def defined(module, name):
    """Return under which full name a public name is documented: where it is defined."""
    value = getattr(import_module(module), name)
    if type(value).__name__ == "module":
        return value.__name__
    full = f"{value.__module__}.{value.__qualname__}"
    return f"{module}.{name}" if "._" in value.__module__ else full


def public_modules(package):
    """Return the public modules below a package that is no command line, and the package itself."""
    found = [package.__name__]
    for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        parts = each.name.split(".")
        if "commands" not in parts and not any(part.startswith("_") for part in parts):
            found.append(each.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("module", ["allpet_physics", "allpet_physics.io", "allpet_physics.simulation", "allpet_gen"])
def test_every_name_that_a_package_offers_has_a_page_and_is_listed(module, site, documented):
    listed = Page(site / "made" / "api" / f"{module}.html").targets
    names = import_module(module).__all__
    assert names
    for name in names:
        value = getattr(import_module(module), name)
        if not callable(value) and not hasattr(value, "__path__") and type(value).__name__ != "module":
            continue  # a constant: its module's page shows it
        full = defined(module, name)
        assert full in documented, f"{module}.{name} has no entry"
        assert (site / documented[full]).is_file()
        if type(value).__name__ != "module":
            assert any(target.endswith(f"#{full}") for target in listed), f"{module}'s page does not list {name}"


@pytest.mark.slow
def test_every_public_module_has_a_page_and_so_has_what_it_defines(documented):
    for package in (allpet_physics, allpet_gen):
        for module in public_modules(package):
            assert module in documented, f"{module} has no page"
            for name, value in vars(import_module(module)).items():
                own = getattr(value, "__module__", None) == module and hasattr(value, "__qualname__")
                if own and not name.startswith("_") and value.__doc__:
                    assert f"{module}.{name}" in documented, f"{module}.{name} has no entry"


@pytest.mark.slow
def test_every_command_has_a_page_with_its_options(site):
    names = cli.list_commands(None)
    assert {"simulate", "train", "translate"} <= set(names)
    for name in names:
        page = (site / "made" / "commands" / f"{name}.html").read_text(encoding="utf-8")
        options = [option for parameter in cli.get_command(None, name).params for option in parameter.opts
                   if option.startswith("--")]
        assert options
        for option in options:
            assert option in page, f"allpet {name}'s page does not show {option}"


@pytest.mark.slow
def test_every_numbered_equation_is_on_the_page_of_the_maths(site):
    page = (site / "made" / "maths.html").read_text(encoding="utf-8")
    numbers = {number for path in [*ROOT.glob("allpet_*/**/*.py")]
               for number in re.findall(r"\\tag\{([^}]+)\}", path.read_text(encoding="utf-8"))}
    assert {"PB1", "A1", "HL1"} <= numbers
    for number in numbers:
        assert rf"\tag{{{number}}}" in page, f"equation {number} is missing"


@pytest.mark.slow
def test_mathjax_can_number_every_equation(site):
    for path in site.glob("made/**/*.html"):
        for block in re.findall(r'<div class="math[^>]*>(.*?)</div>', path.read_text(encoding="utf-8"), re.DOTALL):
            assert not (r"\tag" in block and r"\begin{split}" in block), f"{path.name}: no \\tag within split: {block}"


@pytest.mark.slow
def test_every_internal_link_leads_somewhere(site):
    ours = [path for path in site.rglob("*.html") if "_static" not in path.parts]  # there are templates of the theme
    pages = {path.resolve(): Page(path) for path in ours}
    assert len(pages) > 100
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            found = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            where = f"{path.relative_to(site.resolve())}: {target}"
            assert found.is_file(), f"{where} leads nowhere"
            if parts.fragment and found in pages:
                assert unquote(parts.fragment) in pages[found].identifiers, f"{where} has no such place"
