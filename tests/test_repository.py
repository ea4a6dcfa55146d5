"""What holds for the repository as a whole."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = {".py", ".md", ".toml", ".txt", ".ipynb", ".yml", ".yaml", ".json", ".html", ""}


def tracked_files():
    """Return the text files that git tracks, or skip where this is no clone."""
    try:
        listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git clone, so the tracked files are not known")
    names = [name for name in listed.stdout.split("\0") if name]
    return [path for name in names if (path := ROOT / name).suffix in TEXT and path.is_file()]


def test_the_version_stands_in_pyproject_alone():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for path in tracked_files():
        if path.suffix == ".py":
            text = path.read_text(encoding="utf-8")
            assert not re.search(rf"__version__\s*=(?!=)|\b[vV]ersion\s*=\s*[\"']{re.escape(version)}[\"']", text), path


def test_the_readme_names_both_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


def link_targets(text):
    """Return where the links and images of a page of Markdown lead, without code, in which brackets are no links."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"\]\(\s*<?([^\s)>]+)", text)
    defined = re.findall(r"^ {0,3}\[[^\]]+\]:\s*<?([^\s>]+)", text, re.MULTILINE)
    return inline + defined + re.findall(r"<(?:a|img)\b[^>]*?(?:href|src)=[\"']([^\"']+)", text)


def test_links_of_all_kinds_are_found():
    page = """[a](one.md) ![b](two.png "title") [![c](three.png)](four.md#part) [d][d] <img alt="" src="five.png">
`[no](code.md)`
```
[no](block.md)
```
[d]: <six.md>
"""
    assert link_targets(page) == ["one.md", "two.png", "three.png", "four.md#part", "six.md", "five.png"]


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONVENTIONS.md", "docs/*.md",
                                  "allpet_gen/pretrained/*/README.md"])
def test_every_relative_link_leads_to_a_file_of_the_repository(page):
    pages = sorted(ROOT.glob(page))
    assert pages
    for path in pages:
        for target in link_targets(path.read_text(encoding="utf-8")):
            if re.match(r"https?:|mailto:|#", target):
                continue
            found = (path.parent / target.partition("#")[0]).resolve()
            assert found.is_relative_to(ROOT), f"{path.relative_to(ROOT)}: {target} leads out of the repository"
            assert found.is_file(), f"{path.relative_to(ROOT)}: {target} leads nowhere"


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    printed = ""
    for block in blocks:
        command = [sys.executable, "-W", "error", "-c", block]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        printed += done.stdout
    assert "(288, 381)" in printed


def test_every_command_of_the_readme_exists():
    from allpet_physics.cli import cli

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    shell = "".join(body for language, body in fenced if not language)
    lines = re.findall(r"^allpet (.+?)(?:\s+#.*)?$", shell, re.MULTILINE)
    assert lines
    for line in lines:
        name, *words = line.split()
        known = {option for parameter in cli.get_command(None, name).params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_no_path_of_a_machine_is_written_down():
    pattern = re.compile(r"(?<![\w.])/(work|home|root|Users|tmp)/[\w.]|[A-Z]:\\\\?Users")
    for path in tracked_files():
        if path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not pattern.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def test_constraints_are_exact_and_name_no_place():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", pin), pin
    names = {re.split("==", pin)[0].lower().replace("_", "-") for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [r for extra in project["optional-dependencies"].values() for r in extra]
    wanted = {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert wanted - {"allpet"} <= names


def test_the_changelog_has_an_unreleased_section():
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_test_that_the_errata_name_exists_in_the_file_that_they_name():
    text = (ROOT / "docs" / "errata.md").read_text(encoding="utf-8")
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    entries = re.split(r"\n\n(?=\*\*|## )", text)[1:]
    named = 0
    for entry in (e for e in entries if e.startswith("**")):
        assert "\nTests: " in entry, entry[:80]
        tests, before = re.findall(r"`(test_\w+)`|\[(test_\w+\.py)\]", entry[entry.index("\nTests: "):]), []
        for test, file in tests:
            before += [test] if test else []
            if file:
                for name in before:
                    assert f"def {name}(" in files[file], (name, file)
                named, before = named + len(before), []
        assert not before, (entry[:80], before)
    assert named >= 50
