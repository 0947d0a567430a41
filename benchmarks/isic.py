"""From real images to a fairness report in one command: ISIC 2017 through `nearcase-eval run`, and the table of it.

Needs the cohort `isic2017.zip` (CC0, Codella et al., arXiv 1710.05006), which nearcase does not ship.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nearcase.encode.card import default_encoder_folder, read_card

DATA = Path(__file__).parents[1].parent / "shared" / "data" / "isic2017.zip"
COHORT = """\
name = "ISIC 2017"
images = "isic2017.zip/isic2017"
table = "isic2017.zip/isic2017/cohort.csv"
note = "Dermoscopy; two lesions of one person may count as two patients."

[[finding]]
name = "melanoma"
column = "label_melanoma"

[[finding]]
name = "keratosis"
column = "label_seborrheic_keratosis"

[[finding]]
name = "nevus"
column = "label_nevus"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="isic2017.zip")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    if not options.data.is_file():
        print("skipped: isic2017.zip is not here; name it with --data")
        return
    with tempfile.TemporaryDirectory(prefix="nearcase-isic-") as folder:
        report = evaluate(options.data, Path(folder))
    rows = [row_of(report, overall) for overall in report["overall"]]
    print_table(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


def evaluate(data: Path, folder: Path) -> dict[str, Any]:
    """Runs the command as a user would, and returns the audit's report."""
    (folder / "isic2017.zip").symlink_to(data.resolve())
    (folder / "cohort.toml").write_text(COHORT, "utf-8")
    command = [sys.executable, "-m", "nearcase_eval", "run", str(folder / "cohort.toml"), "--out", str(folder / "out")]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"nearcase-eval run ended with {done.returncode}")
    report: dict[str, Any] = json.loads((folder / "out" / "audit" / "report.json").read_text("utf-8"))
    return report


def row_of(report: dict[str, Any], overall: dict[str, Any]) -> dict[str, str]:
    """One finding: both scorers, what age and sex alone reach, and the gaps with their verdicts."""
    finding = overall["finding"]
    versus = next(each for each in report["versus"] if each["finding"] == finding and not each["attribute"])
    baselines = next(each for each in report["confounders"] if each["finding"] == finding)["baselines"]
    alone = max(baselines, key=lambda each: len(each["columns"]))
    gaps = {
        gap["attribute"]: gap["gaps"]["largest"]
        for gap in report["gaps"]
        if gap["finding"] == finding and gap["metric"] == "auroc"
    }
    return {
        "finding": finding,
        "images": str(overall["rows"]),
        "patients": str(overall["patients"]),
        "positives": str(overall["positives"]),
        "neighbours": shown(overall["auroc"]),
        "probe": shown(versus["second"]),
        "age and sex alone": shown(alone["auroc"]),
        "neighbours less age and sex": shown(alone["score_minus_baseline"]["estimate"]),
        "gap by sex": f"{shown(gaps['sex']['estimate'])} {gaps['sex']['verdict']}",
        "gap by age": f"{shown(gaps['age']['estimate'])} {gaps['age']['verdict']}",
    }


def shown(estimate: dict[str, Any]) -> str:
    """A figure with its 95 % interval."""
    if estimate["value"] is None:
        return f"not estimable ({estimate['reason']})"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def print_table(rows: list[dict[str, str]]) -> None:
    """Prints one line for each figure and one column for each finding: the table is read in print."""
    print(
        "AUROC with 95 % intervals over patients, leave one patient out; largest gaps between groups of the neighbours."
    )
    for name in rows[0]:
        print(f"{name:<30}" + "".join(f"{row[name]:<38}" for row in rows))
    print(read_card(default_encoder_folder()).statement)


if __name__ == "__main__":
    main()
