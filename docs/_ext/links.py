"""Make links work on the site that were written for the forge, and names in docstrings that were written for Python.

Pages link to files of the repository, as a forge shows them. On the site such a link leads to the page that the file
became, if it became one; else it stays what it is, and Sphinx lets the reader download that very file. So the pages
themselves need no second kind of link.
"""

import inspect
import os
import re
from importlib import import_module

from made_pages import HERE, brought_pages
from sphinx.util.nodes import make_refnode

_LINK = re.compile(r"(^```.*?^```|`[^`\n]*`)|(\]\(\s*)([^\s)#:]+)(#[^\s)]*)?", re.MULTILINE | re.DOTALL)


def relink(app, docname: str, source: list[str]) -> None:
    """Rewrite a page's relative links from where it was written to where it stands."""
    brought = brought_pages()
    if docname.startswith("made/") and docname not in brought:
        return
    origin = brought.get(docname, HERE / f"{docname}.md").parent
    here = (HERE / docname).parent
    pages = {path.resolve(): HERE / f"{name}{path.suffix}" for name, path in brought.items()}

    def rewritten(match) -> str:
        code, opening, target, fragment = match.groups()
        if code is not None or not (origin / target).is_file():
            return match[0]
        path = (origin / target).resolve()
        return f"{opening}{os.path.relpath(pages.get(path, path), here)}{fragment or ''}"

    source[0] = _LINK.sub(rewritten, source[0])


def resolve(app, env, node, contnode):
    """Find what Python finds under a name in the module that mentions it, and link to where it is documented.

    A name of another package, a private one, a constant or a field is real but may have no entry: it stays text,
    without a warning. What Python does not find, and a function or class of ours that has no entry, is left to Sphinx,
    which warns.
    """
    if node.get("refdomain") != "py":
        return None
    found = _find(node["reftarget"], node.get("py:module"), node.get("py:class"))
    if found is None:
        return None
    name, value = found
    entry = env.get_domain("py").objects.get(name)
    if entry is not None:
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, name)
    private = any(part.startswith("_") for part in name.split("."))
    ours = name.startswith("allpet_") and (inspect.isroutine(value) or inspect.isclass(value) or
                                           inspect.ismodule(value))
    return None if ours and not private else contnode


def _find(target: str, module: str | None, owner: str | None) -> tuple[str, object] | None:
    """Return the full name and the value of what `target` means in a module and class, or nothing."""
    inside = [".".join(filter(None, parts)) for parts in ((module, owner, target), (module, target)) if module]
    for name in [target, *inside] if "." in target else [*inside, f"builtins.{target}", target]:
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            try:
                value = import_module(".".join(parts[:cut]))
            except ImportError:
                continue
            try:
                for part in parts[cut:]:
                    value = getattr(value, part)
            except AttributeError:
                break
            return _own_name(value) or name, value
    return None


def _own_name(value) -> str | None:
    if inspect.ismodule(value):
        return value.__name__
    value = getattr(value, "fget", value)
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return f"{module}.{name}" if module and name else None


def parsable(app, what, name, obj, options, signature, result):
    """Write a default that Python cannot parse, such as a dataclass's ``<factory>``, as ``...``.

    Sphinx would else cut the signature at every comma, those of types included.
    """
    return (re.sub(r"= ?<[^<>]*>", "= ...", signature), result) if signature else None


def setup(app):
    """Register with Sphinx."""
    app.connect("autodoc-process-signature", parsable)
    app.connect("source-read", relink)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
