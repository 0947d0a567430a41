"""The picture of README: the top of the report on adjudicated chest X-rays, in a headless Chromium.

The table is the one that torchxrayvision carries (`pip install --no-deps torchxrayvision`): 4,376 chest X-rays of NIH
with labels that radiologists agreed on (Majkowska 2020), ages and sexes. The scores that are audited are the labels
that NIH had mined from the reports, 0 or 1. They are not scores of an encoder of ours.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FILE = "torchxrayvision/data/google2019_nih-chest-xray-labels.csv.gz"
FINDING = "Pneumothorax"
"""Both the adjudicated column and the mined word."""

TITLE = "Pneumothorax: text-mined labels against radiologists"
SIZE = (1280, 1025)
COLOURS = 64
"""Enough for letters and boxes; a third of the bytes."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


def write_table(source: Path, table: Path) -> None:
    """Writes one line for each image: who, how old, what radiologists say, what was mined."""
    with gzip.open(source, "rt", encoding="utf-8") as read, table.open("w", encoding="utf-8", newline="") as write:
        writer = csv.writer(write)
        writer.writerow(("image_id", "patient_id", "age", "sex", "label_pneumothorax", "score_pneumothorax"))
        for row in csv.DictReader(read):
            mined = int(FINDING in row["Finding Labels"].split("|"))
            who = (row["Image Index"], row["Patient ID"], row["Patient Age"], row["Patient Gender"])
            writer.writerow((*who, row[FINDING], mined))


def audit(table: Path, out: Path) -> None:
    """Runs the command of README and prints it; a verdict other than pass is no failure of this script."""
    arguments = ["run", table.name, "--op", "threshold=0.5", "--tolerance", "auc=0.1,fnr=0.1,fpr=0.1", "--title", TITLE]
    print("nearcase-audit", *(f"'{each}'" if " " in each else each for each in arguments), "--out", out.name)
    command = [sys.executable, "-c", "from nearcase_eval.audit_cli import main; main()", *arguments, "--out", str(out)]
    done = subprocess.run(command, cwd=table.parent, check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(done.returncode)


def photograph(browser: str, page: Path, picture: Path) -> None:
    """Writes the first screen of the page."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    size, profile = "{},{}".format(*SIZE), page.parent / "profile"
    places = (f"--window-size={size}", f"--user-data-dir={profile}", f"--screenshot={picture}")
    subprocess.run([browser, *QUIET, *places, page.as_uri()], check=True, capture_output=True, timeout=120)
    with Image.open(picture) as image:
        image.convert("RGB").quantize(COLOURS).save(picture, optimize=True)


def main() -> None:
    """Writes the picture, or says what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, metavar="PNG", help="README's is docs/images/audit.png; default: not kept")
    options = parser.parse_args()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    try:
        source = importlib.metadata.distribution("torchxrayvision").locate_file(FILE)
    except importlib.metadata.PackageNotFoundError:
        print("no picture: torchxrayvision, which carries the table, is missing: pip install --no-deps torchxrayvision")
        return
    if browser is None:
        print("no picture: no Chromium on this machine: apt-get install chromium")
        return
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "nih.csv"
        write_table(Path(str(source)), table)
        audit(table, Path(name) / "audit")
        picture = options.out.resolve() if options.out else Path(name) / "audit.png"
        photograph(browser, Path(name) / "audit" / "report.html", picture)
        print(f"{picture.name}: {SIZE[0]} x {SIZE[1]}, {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
