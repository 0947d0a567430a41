"""What the documents and the package say of themselves is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nearcase.index.filter_text import NAMES, parse

PROJECT = Path(__file__).parents[1]
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
DECISIONS = sorted((PROJECT / "docs" / "decisions").glob("*.md"))
PROJECT_TABLE = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
COPYLEFT = re.compile(r"(?<!L)\bA?GPL|(?<!Lesser )(?<!Library or Lesser )General Public License|Affero", re.IGNORECASE)


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


# Layers


def test_import_contracts_are_kept() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=PROJECT, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


# Licences


def installed_with(requirements: list[str]) -> dict[str, Distribution]:
    """Every distribution that the requirements pull in, the whole tree, by canonical name."""
    found: dict[str, Distribution] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(requirement.name)
        if (key, frozenset(requirement.extras)) in done:
            continue
        done.add((key, frozenset(requirement.extras)))
        found[key] = distribution(requirement.name)
        below = map(Requirement, found[key].requires or [])
        waiting += [each for each in below if applies(each, requirement.extras or {""})]
    return found


def applies(requirement: Requirement, extras: set[str]) -> bool:
    """True when this machine needs the requirement of a distribution that was asked for with these extras."""
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


def licence_of(found: Distribution) -> str:
    """What the metadata says: the expression, else the classifiers, else the first line of the free text."""
    metadata = found.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    return "; ".join(classifiers) or "".join(metadata.get_all("License") or []).strip().split("\n")[0]


def is_copyleft(licence: str) -> bool:
    """True for GPL and AGPL; not for LGPL, nor for the runtime libraries of a compiler with their exception."""
    without_exceptions = re.sub(r"GPL-3\.0-or-later WITH GCC-exception-3\.1", "", licence)
    return bool(COPYLEFT.search(without_exceptions))


@pytest.mark.parametrize("extra", ["base", "server", "cpu", "pacs", "evaluation"])
def test_nothing_that_ships_is_gpl(extra: str) -> None:
    requirements = PROJECT_TABLE["dependencies" if extra == "base" else "optional-dependencies"]
    try:
        found = installed_with(requirements if extra == "base" else requirements[extra])
    except PackageNotFoundError as error:
        pytest.skip(f"the extra {extra} is not installed here: {error.name} is missing")
    licences = {name: licence_of(package) for name, package in found.items()}
    assert not {name: licence for name, licence in licences.items() if is_copyleft(licence)}
    assert not [name for name, licence in licences.items() if not licence or licence == "UNKNOWN"]


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("GPL-3.0-only", True),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", True),
        ("AGPL-3.0", True),
        ("LGPL-2.1-or-later", False),
        ("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", False),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("Apache-2.0", False),
    ],
)
def test_gpl_is_told_from_lgpl(licence: str, expected: bool) -> None:
    assert is_copyleft(licence) is expected


def test_gpl_decoder_is_not_even_installed() -> None:
    with pytest.raises(PackageNotFoundError):
        distribution("pylibjpeg-libjpeg")


# Documents


def test_changelog_has_the_current_version() -> None:
    headings = re.findall(r"^## \[([^\]]+)\]", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert PROJECT_TABLE["version"] in headings
    assert distribution("nearcase").version == PROJECT_TABLE["version"]


def test_decision_records_are_numbered_without_gaps() -> None:
    assert [path.name[:5] for path in DECISIONS] == [f"{number:04d}-" for number in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("path", DECISIONS, ids=name_of)
def test_decision_record_is_short_and_whole(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert re.match(rf"# {path.name[:4]}\. \S", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def paths_named_in(text: str) -> Iterator[str]:
    yield from re.findall(r"\b(?:server|models|evaluation|protos|docs|tests|benchmarks|helm)/[\w./*-]*[\w*/]", text)
    yield from re.findall(r"\b[A-Z]{4,}\.md\b", text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_names_no_path_that_is_not_there(page: Path) -> None:
    assert not [path for path in set(paths_named_in(page.read_text())) if not list(PROJECT.glob(path))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_every_reason_is_documented() -> None:
    sources = (PROJECT / "server" / "nearcase").rglob("*.py")
    texts = [path.read_text() for path in sources if path.parent.name not in ("demo", "v1")]
    given = {found for text in texts for found in re.findall(r'reason ?= ?"([A-Z_]+)"', text)}
    page = (PROJECT / "docs" / "api.md").read_text().split("## Errors")[1]
    assert set(re.findall(r"`([A-Z_]+)`", page)) == given


def test_filter_page_lists_every_field_and_its_conditions_parse() -> None:
    page = (PROJECT / "docs" / "filters.md").read_text()
    cells = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    assert {name for cell in cells for name in re.findall(r"`([A-Za-z_0-9.]+)`", cell)} == set(NAMES)
    conditions = [found for found in re.findall(r"`([^`]*)`", page) if re.search(r" (=|!=|>=|in) ", found)]
    assert len(conditions) > 10
    for text in conditions:
        parse(text)


# Commands in documents


def commands_in(page: Path) -> Iterator[str]:
    """Shell lines of the fenced blocks, continuation lines joined, without prompts."""
    for block in re.findall(r"^```(?:sh|console|bash)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.removeprefix("$ ").split("  #")[0].strip()


def documented(program: str) -> list[str]:
    """Command lines of a program over all pages: those in blocks, and those in backticks."""
    inline = (found for page in PAGES for found in re.findall(rf"`({program} [a-z][^`\n]*)`", page.read_text()))
    blocks = (line for page in PAGES for line in commands_in(page))
    return sorted({line for line in (*inline, *blocks) if line.startswith(f"{program} ")})


def test_make_targets_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = {word for line in documented("make") for word in shlex.split(line)[1:] if re.fullmatch("[a-z-]+", word)}
    assert named >= {"demo", "test"}
    assert named <= targets


def command_help() -> dict[str, str]:
    """Each documented command, those of groups with their group, with the text of its --help."""
    program = Path(sys.executable).with_name("nearcase")
    pages = {}
    named = re.compile(r"nearcase ((?:audit|library|token) [a-z-]+|[a-z]+)")
    for name in {found[1] for line in documented("nearcase") if (found := named.match(line))}:
        command = [str(program), *name.split(), "--help"]
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, f"nearcase {name}: {result.stderr}"
        pages[name] = result.stdout
    return pages


@pytest.mark.system
def test_commands_and_options_in_documents_exist() -> None:
    pages = command_help()
    assert set(pages) >= {"serve", "add", "search", "inspect", "render", "embed", "library info", "check", "demo"}
    for line in documented("nearcase"):
        name = max((name for name in pages if re.match(rf"nearcase {name}(?!\w)", line)), key=len)
        options = re.findall(r"(?<!\S)\[?(--[a-z-]+)", line)
        assert not [option for option in options if option not in pages[name]], line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_in_documents_compiles(page: Path) -> None:
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)):
        compile(block, f"{page.name} block {number + 1}", "exec")
