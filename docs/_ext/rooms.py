"""Which packages and modules the reference shows, found by looking, so that a new module needs no entry anywhere."""

import ast
import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Packages that the reference leaves out: the command line has pages of its own, the models have their cards.
_LEFT_OUT = {"commands", "pretrained"}


def packages() -> list[str]:
    """Return the names of all packages, each before its own."""
    found = []
    for top in ("allpet_physics", "allpet_gen"):
        inner = pkgutil.iter_modules([str(ROOT / top)])
        found += [top, *(f"{top}.{each.name}" for each in inner if each.ispkg and each.name not in _LEFT_OUT)]
    return found


def modules(package: str) -> list[str]:
    """Return the full names of a package's public modules; packages are not among them."""
    found = pkgutil.iter_modules([str(ROOT.joinpath(*package.split(".")))])
    return [f"{package}.{each.name}" for each in found if not each.ispkg and not each.name.startswith("_")]


def summary(text: str | None) -> str:
    """Return a docstring's first paragraph on one line."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def docstring(module: str) -> str:
    """Return a module's docstring without importing it."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def exported(package: str) -> dict[str, object]:
    """Return the names that a package offers in its ``__all__``, without its submodules."""
    package = import_module(package)
    found = {name: getattr(package, name) for name in getattr(package, "__all__", ())}
    return {name: value for name, value in found.items() if not inspect.ismodule(value)}


def home(package: str, name: str, value) -> str:
    """Return the module that defines what a package exports; for a constant, the module that assigns it."""
    if getattr(value, "__module__", "").startswith("allpet") and hasattr(value, "__qualname__"):
        return value.__module__
    for module in modules(package):
        if _assigns(module, name):
            return module
    raise LookupError(f"no module of {package} defines {name}")


def _assigns(module: str, name: str) -> bool:
    tree = ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
    targets = [node.targets if isinstance(node, ast.Assign) else [node.target] for node in tree.body
               if isinstance(node, ast.Assign | ast.AnnAssign)]
    return any(isinstance(target, ast.Name) and target.id == name for group in targets for target in group)
