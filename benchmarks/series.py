"""What one series costs with an encoder of volumes: packing, reading in the child's code, the network, and memory.

Slices are those of ../shared/data/ct_contrast_dicom.zip, 512 x 512, laid one above the other as one made series.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import resource
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom

from nearcase.encode.inputs import to_batch, unpack_frame
from nearcase.encode.runtime import RuntimeChoice, open_encoder
from nearcase.encode.volume import VolumeRecipe
from nearcase.intake.archive import pack_series
from nearcase.intake.burned_in import KEEP_TEXT
from nearcase.prepare import prepare_job

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "ct_contrast_dicom.zip"
STEP_MM = 1.25


def made_series(count: int) -> Iterator[bytes]:
    """Yields slices of many persons as those of one series."""
    with zipfile.ZipFile(DATA) as archive:
        names = [name for name in sorted(archive.namelist()) if name.lower().endswith(".dcm")]
        for number in range(count):
            dataset = pydicom.dcmread(io.BytesIO(archive.read(names[number % len(names)])))
            dataset.PatientID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "made", "1.2.3", "1.2.4"
            dataset.SOPInstanceUID = f"1.2.3.{number + 1}"
            dataset.ImagePositionPatient = [0, 0, STEP_MM * number]
            dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
            dataset.InstanceNumber, dataset.ImageType = number + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
            out = io.BytesIO()
            dataset.save_as(out)
            yield out.getvalue()


def median_s(work: Callable[[], object], repeats: int) -> float:
    """Returns the median processor time of this process."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def measure(folder: Path, slices: int, repeats: int) -> dict[str, float | str]:
    """Returns what the steps cost."""
    encoder = open_encoder(folder, RuntimeChoice(threads=1))
    recipe = encoder.card.recipe
    if not isinstance(recipe, VolumeRecipe):
        sys.exit(f"expected an encoder of volumes, got {encoder.card.name}")
    files = list(made_series(slices))
    data = pack_series(files)
    words = {"frame_number": None, "recipe": dataclasses.asdict(recipe), "text_policy": dataclasses.asdict(KEEP_TEXT)}
    header, blobs = prepare_job(data, words)
    batch = to_batch(unpack_frame(blobs[0], recipe)[None], recipe)
    return {
        "encoder": encoder.card.identity,
        "runtime": encoder.runtime,
        "slices": slices,
        "read": header["rules"][0],
        "series_mb": len(data) / 1e6,
        "pack_cpu_s": median_s(lambda: pack_series(files), repeats),
        "read_cpu_s": median_s(lambda: prepare_job(data, words), repeats),
        "network_cpu_s": median_s(lambda: encoder.embed(batch), repeats),
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True, help="folder that nearcase-models import astra wrote")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if not DATA.is_file():
        sys.exit(f"skipped: the CT slices are not here (expected {DATA.name} in ../shared/data)")
    found = measure(arguments.encoder, arguments.slices, arguments.repeats)
    for name, value in found.items():
        print(f"{name:>16}  {value:.2f}" if isinstance(value, float) else f"{name:>16}  {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
