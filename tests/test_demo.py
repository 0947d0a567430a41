"""The demo as a user runs it, its three commands included."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nearcase.demo.corpus import load_corpus

pytestmark = pytest.mark.system
COMMAND = [sys.executable, "-m", "nearcase"]


def test_the_demo_and_what_it_says_to_try_next(tmp_path: Path, pydicom_data: Path) -> None:
    out = tmp_path / "demo"
    done = subprocess.run([*COMMAND, "demo", "--out", str(out)], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    corpus = load_corpus()
    ranks = re.findall(r"^([1-5])  +-?[01]\.\d{3} ", done.stdout, re.MULTILINE)
    assert len(corpus.queries) >= 8
    assert ranks == ["1", "2", "3", "4", "5"] * len(corpus.queries)
    assert "not medical" in " ".join(done.stdout.split())
    assert "random vectors" in done.stdout
    assert "grey pixels" in done.stdout
    page = (out / "evidence.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 6 * len(corpus.queries)
    assert_decision(" ".join(done.stdout.split()), (out / "decision.html").read_text())
    try_next(done.stdout.split("Try next:")[1], tmp_path)


def assert_decision(text: str, page: str) -> None:
    """Two points with different calls, the patients that they rest on, and a promise that is refused."""
    assert "call Positive Negative" in text
    assert re.search(r"rates on \d+ held-out patients with CT and \d+ without", text)
    assert "Refused: sensitivity-90-pac, needs at least 29 patients" in text
    assert "promise nothing for new patients" in text
    assert page.count('type="radio"') == 2
    assert "<script" not in page


def try_next(text: str, folder: Path) -> None:
    """Types the three commands one after the other, as printed."""
    lines = [line.strip() for line in text.strip().splitlines()]
    assert len(lines) == 3
    started = None
    try:
        for line in lines:
            words = [*COMMAND, *shlex.split(line.removesuffix("&"))[1:]]
            if line.endswith("&"):
                started = subprocess.Popen(words, stdout=subprocess.DEVNULL)
                continue
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, (line, done.stderr)
        assert (folder / "demo" / "one.html").exists()
    finally:
        if started:
            started.terminate()
            assert started.wait(timeout=30) == 0


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    refused = subprocess.run([*COMMAND, "demo", "--out", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert (tmp_path / "thesis.txt").exists()


def test_no_query_shares_a_group_with_the_library() -> None:
    corpus = load_corpus()
    assert not {image.group for image in corpus.queries} & {image.group for image in corpus.library}
