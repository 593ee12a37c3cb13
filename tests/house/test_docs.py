"""Files, commands, tests and constants named in documents exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [path for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("*/*/*.md")] if path.is_file()]
DOCUMENTS = [path for path in DOCUMENTS if not {".venv", "work", "results"} & set(path.relative_to(ROOT).parts)]
SHELL_COMMAND = re.compile(r"\b(?:bash|python(?: -u)?) ((?:scripts/)?[\w/]+\.(?:sh|py))\b")


NAMED_FILE = re.compile(r"`((?:models|utils|config|tests|benchmarks|demo|docs|scripts)/[\w/.]*)`")
PYTHON_COMMAND = re.compile(r"\bpython(?: -u)?( -m)? ([\w./]+)")
PROGRAMS = [
    path
    for path in [*ROOT.glob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_and_commands_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#]+)\)", text)
    for link in links:
        assert link.startswith("https://") or (document.parent / link).exists(), f"{name_of(document)}: {link}"
    for command in SHELL_COMMAND.findall(text):
        assert (ROOT / command).is_file(), f"{name_of(document)}: {command}"


@pytest.mark.parametrize("program", PROGRAMS, ids=name_of)
def test_programs_say_commands_that_find_their_modules(program):
    """A file in a sub-folder that is started by its path finds the project only if it sets sys.path[0]."""
    text = program.read_text(encoding="utf-8")
    for as_module, named in PYTHON_COMMAND.findall(ast.get_docstring(ast.parse(text)) or ""):
        path = ROOT / (named.replace(".", "/") if as_module else named)
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), named
        assert as_module or path.parent == ROOT or "sys.path[0] = " in path.read_text(encoding="utf-8"), named


def test_fidelity_names_tests_that_exist():
    text = (ROOT / "FIDELITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", text)
    assert named
    for file_name, test_name in named:
        (path,) = (ROOT / "tests").rglob(file_name)
        assert f"def {test_name}" in path.read_text(encoding="utf-8"), f"{file_name} has no test {test_name}"


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=name_of)
def test_named_files_exist(document):
    """Left out: the changelog, which names removed files."""
    for name in NAMED_FILE.findall(document.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


def test_fidelity_names_constants_that_exist():
    kept = (ROOT / "FIDELITY.md").read_text(encoding="utf-8").partition("## Kept")[2]
    named = re.findall(r"`((?:models|utils)/[\w/]+\.py)`, `(\w+)`", kept)
    assert named
    for file_name, constant in named:
        assert re.search(rf"\b{constant}\b", (ROOT / file_name).read_text(encoding="utf-8")), f"{file_name}: {constant}"
