r"""The page of the numbered equations, and equations whose numbers MathJax can show.

A docstring numbers an equation with ``\tag{PB3}``. The page is made from the docstrings each time, read without
importing anything.
"""

import ast
import inspect
import re
from collections import defaultdict
from dataclasses import dataclass

import rooms
from docutils import nodes
from made_pages import MADE, write
from rooms import ROOT

_TAG = re.compile(r"\\tag\{([^}]*)\}")
_INNER = re.compile(r"\\begin\{(\w+)\}.*?\\end\{\1\}", re.DOTALL)
_MARKS = re.compile(r"(?P<literal>``.*?``|`[^`]*`|\\.)|\||(?<![\w*])\*(?=\w)(?!.*\w\*)")
MATHS = """Every numbered equation of the docstrings, by the letters of its number. Letters are short and meet again in
other modules, so a number means the equation of the module that mentions it. (M2, M3) of the projected masks, and every
M that is mentioned without being listed here, is the paper's own, from the Methods of
[arXiv:2509.09130](https://arxiv.org/abs/2509.09130); [errata](../errata.md) says where we depart from them."""


@dataclass(frozen=True)
class Equation:
    """Numbered equations that stand together: their TeX, numbers, module, and the name that they belong to."""

    tex: str
    numbers: tuple[str, ...]
    module: str
    name: str

    @property
    def prefix(self) -> str:
        """The letters before the number."""
        return re.match(r"\D*", self.numbers[0])[0]

    @property
    def place(self) -> str:
        """Where it stands, as a link unless that is internal."""
        full = f"{self.module}.{self.name}".rstrip(".")
        role = "" if any(part.startswith("_") for part in full.split(".")) else "{py:obj}"
        return f"{role}`{full}`"


def numbered_equations() -> list[Equation]:
    """Return the numbered equations of all docstrings, by package, module and place."""
    found = []
    for path in sorted([*ROOT.glob("allpet_physics/**/*.py"), *ROOT.glob("allpet_gen/**/*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for name, text in _docstrings(ast.parse(path.read_text(encoding="utf-8"))):
            for tex in _blocks(text):
                numbers = tuple(n.strip() for tag in _TAG.findall(tex) for n in tag.split(","))
                if numbers:
                    found.append(Equation(tex, numbers, module, name))
    return found


def _docstrings(node, name=""):
    yield name, ast.get_docstring(node) or ""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}".lstrip("."))


def _blocks(text: str) -> list[str]:
    """Return the equations of the ``.. math::`` directives of a docstring, one entry for each."""
    found, lines = [], text.splitlines()
    for start, line in enumerate(lines):
        opening = re.match(r"(\s*)\.\. math::(.*)", line)
        if opening is None:
            continue
        deeper = re.compile(rf"{opening[1]}\s|\s*$")
        end = next((i for i in range(start + 1, len(lines)) if not deeper.match(lines[i])), len(lines))
        body = inspect.cleandoc("\n".join([opening[2], *lines[start + 1:end]]))
        found += [part for part in re.split(r"\n\s*\n", body) if part.strip()]
    return found


def write_page(app) -> None:
    """Write docs/made/maths.md."""
    groups = defaultdict(lambda: defaultdict(list))
    for equation in numbered_equations():
        groups[equation.prefix][equation.module].append(equation)
    lines = ["# The maths", "", MATHS, "", "| numbers | module | what it is |", "|---|---|---|"]
    for prefix in sorted(groups):
        for module, equations in groups[prefix].items():
            numbers = _span([n for equation in equations for n in equation.numbers], prefix)
            lines.append(f"| [{numbers}](#{_anchor(prefix, module)}) | {_place(module)} | "
                         f"{_in_markdown(rooms.summary(rooms.docstring(module)))} |")
    for prefix in sorted(groups):
        lines += ["", f"## {prefix or 'Without letters'}"]
        for module, equations in groups[prefix].items():
            numbers = _span([n for equation in equations for n in equation.numbers], prefix)
            lines += ["", f"({_anchor(prefix, module)})=", f"### {numbers}: `{module}`"]
            for equation in sorted(equations, key=lambda e: _order(e.numbers[0])):
                lines += ["", f"{', '.join(equation.numbers)}, {equation.place}:", "", "```{math}", equation.tex, "```"]
    write(MADE / "maths.md", "\n".join(lines) + "\n")


def _order(number: str) -> int:
    return int(re.search(r"\d+", number)[0])


def _span(numbers: list[str], prefix: str) -> str:
    values = sorted(_order(number) for number in numbers)
    whole = values == list(range(values[0], values[-1] + 1)) and len(values) > 2
    return f"{prefix}{values[0]} to {prefix}{values[-1]}" if whole else ", ".join(f"{prefix}{v}" for v in values)


def _anchor(prefix: str, module: str) -> str:
    return f"eq-{prefix}-{module}".lower().replace(".", "-").replace("_", "-")


def _place(module: str) -> str:
    return Equation("", ("",), module, "").place


def _in_markdown(text: str) -> str:
    return text.replace("``", "`").replace("|", r"\|")


def show_numbers(app, doctree) -> None:
    r"""Set numbered equations that hold a line break as ``align*``, or ``equation*`` where it is within a part of them.

    Sphinx wraps whatever holds ``\\`` in ``split``, where MathJax allows no ``\tag``.
    """
    for node in doctree.findall(nodes.math_block):
        tex = node.astext()
        if _TAG.search(tex) and r"\\" in tex:
            kind = "align*" if re.search(r"\\\\|&", _INNER.sub("", tex)) else "equation*"
            tex = rf"\begin{{{kind}}}{tex}\end{{{kind}}}"
            node["no-wrap"] = node["nowrap"] = True
            node.children = [nodes.Text(tex)]
            node.rawsource = tex


def keep_bars_and_stars(app, what, name, obj, options, lines) -> None:
    """Escape bars and opening stars in the prose of docstrings.

    Bars stand for absolute values there, and the star of ``*shape`` for the rest of a shape, while reST has them for
    substitutions and emphasis. What is literal, a table or part of a directive is left alone.
    """
    indent = None
    for i, line in enumerate(lines):
        depth = len(line) - len(line.lstrip())
        if indent is not None and line.strip() and depth <= indent:
            indent = None
        if indent is None and (line.lstrip().startswith(".. ") or line.rstrip().endswith("::")):
            indent = depth
        if indent is None and not line.lstrip().startswith(("|", "+")):
            lines[i] = _MARKS.sub(lambda match: match["literal"] or rf"\{match[0]}", line)


def setup(app):
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", keep_bars_and_stars, priority=900)
    app.connect("builder-inited", write_page, priority=600)
    app.connect("doctree-read", show_numbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
