"""The size budget: small files, small functions, one noun per module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import pytest

PROJECT = Path(__file__).parents[1]
SHIPPED = ("server", "models", "evaluation")
HAND_WRITTEN = (*SHIPPED, "tests", "benchmarks", "protos")


def sources(*folders: str) -> list[Path]:
    found = (path for folder in folders for path in (PROJECT / folder).rglob("*.py"))
    return sorted(path for path in found if path.parent != PROJECT / "server" / "nearcase" / "v1")


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def function_lines(*folders: str) -> Iterator[tuple[str, int]]:
    for path in sources(*folders):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{path.relative_to(PROJECT)}:{node.name}", node.end_lineno - node.lineno + 1


def test_no_file_is_over_400_lines() -> None:
    assert not {str(path): line_count(path) for path in sources(*HAND_WRITTEN) if line_count(path) > 400}


def test_no_function_is_over_60_lines() -> None:
    assert not {name: lines for name, lines in function_lines(*HAND_WRITTEN) if lines > 60}


def test_median_file_is_at_most_120_lines() -> None:
    assert median(lines for path in sources(*SHIPPED) if (lines := line_count(path)) > 3) <= 120


def test_functions_are_short() -> None:
    lengths = [lines for _, lines in function_lines(*SHIPPED)]
    assert median(lengths) <= 8
    assert quantiles(lengths, n=10)[-1] <= 30


@pytest.mark.parametrize("word", ["utils", "util", "common", "helpers", "misc", "manager", "handler", "base_classes"])
def test_no_module_is_named_for_nothing(word: str) -> None:
    assert not [str(path) for path in sources(*SHIPPED) if word in (path.stem, path.parent.name)]


def test_no_class_is_a_manager_or_a_handler() -> None:
    names = [
        f"{path.relative_to(PROJECT)}:{node.name}"
        for path in sources(*SHIPPED)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(word in node.name for word in ("Manager", "Handler", "Helper"))
    ]
    assert not names
