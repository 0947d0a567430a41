"""Environments of their own, for tests of what an installation brings."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def pip(*arguments: str | Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout_s)


def environment_in(folder: Path, *requirements: str | Path, timeout_s: float = 300) -> Path:
    """A new environment's Python, with the requirements and what they pull in, and without pip."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    installed = pip("--python", python, "install", *requirements, timeout_s=timeout_s)
    assert installed.returncode == 0, installed.stderr
    return python


def run(python: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code with neither the folder nor the user's packages in sight; a warning is an error."""
    command = [str(python), "-I", "-W", "error", "-c", code]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def installed_in(python: Path) -> set[str]:
    """The names of all distributions, with underscores."""
    result = run(python, "from importlib.metadata import distributions as d; print(*(x.name for x in d()))")
    assert result.returncode == 0, result.stderr
    return {name.lower().replace("-", "_") for name in result.stdout.split()}
