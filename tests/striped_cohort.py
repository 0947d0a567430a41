"""A small cohort of pictures whose outcome can be seen: stripes lie in the positives and stand in the negatives."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

TOML = """
name = "Stripes"
images = "images"
table = "cohort.csv"
protocol = "leave-one-patient-out"

[[finding]]
name = "lying"
column = "label_lying"
"""


def striped_cohort(folder: Path, *, patients: int = 60, seed: int = 0, unreadable: int = 0) -> Path:
    """Returns the TOML of a cohort of one 48 x 48 px image a patient, both sexes, ages 20 to 89."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        truth = number % 2
        wave = 127 + 60 * np.sin(np.arange(48) / (1.5 + rng.random()) + rng.random() * 6)
        picture = np.broadcast_to(wave[:, None] if truth else wave[None, :], (48, 48)) + rng.normal(0, 25, (48, 48))
        name = f"{number:03}.png"
        PillowImage.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / "images" / name)
        if number < unreadable:
            (folder / "images" / name).write_bytes(b"no picture")
        rows.append([name, f"P{number:03}", "FM"[(number // 2) % 2], 20 + number * 7 % 70, truth])
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "patient_id", "sex", "age", "label_lying"])
        writer.writerows(rows)
    (folder / "cohort.toml").write_text(TOML)
    return folder / "cohort.toml"
