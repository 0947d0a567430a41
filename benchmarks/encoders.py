"""The default encoder beside grey pixels and oriented gradients on real dermoscopy: AUROC, retrieval, gaps, time, size.

A sample of whole patients of ISIC 2017 (../shared/data/isic2017.zip), each left out in turn, through the same code as
`nearcase-eval compare-encoders`. --encoder adds others.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from nearcase_eval.cohort import read_cohort
from nearcase_eval.encoders import EncoderComparison, compare_encoders
from nearcase_eval.encoders_cli import opened, print_comparison, to_json
from nearcase_eval.progress import bars

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "isic2017.zip"
FINDINGS = ("melanoma", "seborrheic_keratosis", "nevus")
SEED = 7


def sampled(rows: list[dict[str, str]], images: int, seed: int) -> list[dict[str, str]]:
    """Returns the rows of patients in a random order, whole patients, until there are enough images."""
    patients = sorted({row["patient_id"] for row in rows})
    order = {patients[place]: rank for rank, place in enumerate(np.random.default_rng(seed).permutation(len(patients)))}
    ranked = sorted(rows, key=lambda row: (order[row["patient_id"]], row["image"]))
    last = order[ranked[min(images, len(ranked)) - 1]["patient_id"]]
    return [row for row in ranked if order[row["patient_id"]] <= last]


def write_cohort(folder: Path, images: int, seed: int) -> Path:
    """Writes the sample's table and TOML; the images stay in the zip."""
    with zipfile.ZipFile(DATA) as archive, archive.open("isic2017/cohort.csv") as stream:
        rows = list(csv.DictReader(io.TextIOWrapper(stream, "utf-8-sig", newline="")))
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, list(rows[0]))
        writer.writeheader()
        writer.writerows(sampled(rows, images, seed))
    lines = ['name = "ISIC 2017, a sample of patients"', f'images = "{(DATA / "isic2017").as_posix()}"']
    lines += ['table = "cohort.csv"', 'protocol = "leave-one-patient-out"']
    for name in FINDINGS:
        lines += ["", "[[finding]]", f'name = "{name}"', f'column = "label_{name}"']
    (folder / "cohort.toml").write_text("\n".join(lines) + "\n", "utf-8")
    return folder / "cohort.toml"


def measure(images: int, seed: int, folders: tuple[Path, ...]) -> EncoderComparison:
    """Returns the comparison on a sample."""
    with tempfile.TemporaryDirectory() as folder, bars() as told:
        cohort = read_cohort(write_cohort(Path(folder), images, seed))
        encoders = opened(folders, ("grey", "hog"))
        workers = min(os.cpu_count() or 1, 4)
        return compare_encoders(
            cohort, encoders, Path(folder) / "cache", k=10, seed=seed, workers=workers, progress=told
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600, help="at least so many, whole patients; default 600")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the sample and the probe's folds; default {SEED}")
    parser.add_argument("--encoder", type=Path, action="append", default=[], help="folder; default the shipped one")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if not DATA.is_file():
        sys.exit(f"skipped: the images of ISIC 2017 are not here (expected {DATA.name} in ../shared/data)")
    found = measure(max(arguments.images, 50), arguments.seed, tuple(arguments.encoder))
    print_comparison(found)
    if arguments.json:
        arguments.json.write_text(to_json(found) + "\n", "utf-8")


if __name__ == "__main__":
    main()
