"""The sizing guide says what its arithmetic gives, and what the layout really is."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from environments import PROJECT

from nearcase.index.fields import FIELDS, FieldKind
from nearcase.index.qdrant.layout import LINKED, OF_ONE_IMAGE

PAGE = (PROJECT / "docs" / "sizing.md").read_text()
SCRIPT = PROJECT / "benchmarks" / "sizing.py"


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, object]]]:
    file = tmp_path_factory.mktemp("sizing") / "sizes.json"
    command = [sys.executable, str(SCRIPT), "--json", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout, json.loads(file.read_text())


def test_the_page_shows_the_table_that_the_script_prints(printed: tuple[str, list[dict[str, object]]]) -> None:
    assert printed[0].strip() in PAGE


def test_the_figures_follow_from_the_constants_on_the_page(printed: tuple[str, list[dict[str, object]]]) -> None:
    """Written out anew, with the numbers as the page states them."""
    (common,) = (int(found) for found in re.findall(r"16 for a text, 32 for a number: (\d+)", PAGE))
    keywords = [name for name, kind in FIELDS.items() if kind is FieldKind.KEYWORD and name not in OF_ONE_IMAGE]
    assert common == 16 * len(keywords) + 32 * sum(kind is not FieldKind.KEYWORD for kind in FIELDS.values())
    assert len(LINKED) == 4
    assert len(OF_ONE_IMAGE) == 7
    for size in printed[1]:
        images, numbers = int(str(size["images"])), int(str(size["dimension"]))
        memory, disk, nodes = size["memory_gb"], size["disk_gb"], size["nodes"]
        assert isinstance(memory, dict)
        assert isinstance(disk, dict)
        assert isinstance(nodes, dict)
        resident = {
            "none": 1.5 * 4 * numbers + 662 + 80 + common + 1050,
            "int8": numbers + 662 + 80 + common,
            "4bit": numbers / 2 + 662 + 80 + common,
        }
        for name, each in resident.items():
            assert memory[name] == pytest.approx(images * each / 0.8 / 1e9)
            at_least = max(3.0, memory[name] * 2 / 256, images * 2 / 1e8)
            assert at_least <= nodes[name] < at_least + 1
        assert disk["int8"] == pytest.approx(images * (5 * numbers + 662 + 80 + common + 1050 + 10_000) / 1e9)


def test_the_page_says_what_was_measured() -> None:
    assert "Nothing of it but the size of an audit record was measured" in " ".join(PAGE.split())
