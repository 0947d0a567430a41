"""The demo's images as a cohort for `nearcase-eval`, where that is installed; it runs as a command of its own."""

from __future__ import annotations

import csv
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from nearcase.demo.corpus import Corpus
from nearcase.errors import NearcaseError

FINDINGS = ("CT", "MR", "US")
"""Modalities with several patients: the exam category stands in for a finding, since no image comes with an outcome."""

INCONCLUSIVE = 3
_NOTE = "Modality stands in for an outcome. A smoke test on a few images, not a measure of clinical quality."


def is_installed() -> bool:
    """True when the evaluation suite is there; the server itself does without it."""
    return importlib.util.find_spec("nearcase_eval") is not None


def evaluate(corpus: Corpus, folder: Path) -> Path:
    """Writes the cohort, runs `nearcase-eval run` on it, and returns the report's page.

    Raises:
        NearcaseError: The command failed.
    """
    cohort = write_cohort(corpus, folder)
    command = [
        sys.executable,
        "-m",
        "nearcase_eval",
        "run",
        str(cohort),
        "--out",
        str(folder / "evaluation"),
        "-k",
        "3",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own command, no shell)
    if done.returncode not in (0, 1, INCONCLUSIVE):
        last = done.stderr.strip().splitlines()
        raise NearcaseError(f"nearcase-eval failed: {last[-1] if last else 'it said nothing'}")
    return folder / "evaluation" / "audit" / "report.html"


def write_cohort(corpus: Corpus, folder: Path) -> Path:
    """Writes cohort.toml, cohort.csv and the images below a folder."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "patient_id", *(f"label_{name}" for name in FINDINGS)])
        for number, image in enumerate((*corpus.library, *corpus.queries)):
            name = f"{number:02}-{image.path.name}"
            shutil.copyfile(image.path, images / name)
            writer.writerow([name, image.group, *(str(int(image.modality == each)) for each in FINDINGS)])
    findings = "".join(f'\n[[finding]]\nname = "{name}"\ncolumn = "label_{name}"\n' for name in FINDINGS)
    head = f'name = "nearcase demo"\nimages = "images"\ntable = "cohort.csv"\nnote = "{_NOTE}"\n'
    (folder / "cohort.toml").write_text(head + findings, encoding="utf-8")
    return folder / "cohort.toml"
