"""Decisions on real skin images: what the operating points do to held-out patients, and what a decision costs.

The cohort (../shared/data/isic2017.zip) is added to a library; `nearcase-eval fit` fits melanoma by neighbours and by a
probe; a few patients are kept out of the library and decided about. Then a large library of made vectors is searched
and decided on, and the CPU time of the server's processes is compared (Linux: /proc/PID/task/*/schedstat).
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLPhotographicImageStorage, generate_uid
from vectors.load import settled

from nearcase.client import AddItem, Client
from nearcase.decide.findings import read_finding
from nearcase.decide.fitted import Fitted, write_fitted
from nearcase.demo.server import RunningServer, running_server
from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.index.base import Point
from nearcase.index.opening import open_index
from nearcase.report.decision_page import render_decision
from nearcase.retrieve.cases import case_id_of, to_payload
from nearcase.types import Case, CaseFacts
from nearcase_eval.fit import Plan, fit
from nearcase_eval.fit_page import point_rows, render_fit
from nearcase_eval.fit_points import DEFAULT, read_wish
from nearcase_eval.fit_reference import of_library

COHORT = Path(__file__).parents[1].parent / "shared" / "data" / "isic2017.zip"
TOO_MUCH = "sensitivity=0.999:pac"
SCORERS = ("neighbours", "probe")
QUERIES = 40
CALLS = 60
LIMIT_MS = 10.0
"""What a decision may cost more than the search in it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of the server for one call, in milliseconds."""

    cases: int
    search_p50_ms: float
    search_p95_ms: float
    decide_p50_ms: float
    decide_p95_ms: float

    @property
    def added_p95_ms(self) -> float:
        """What deciding adds."""
        return self.decide_p95_ms - self.search_p95_ms


@dataclass(frozen=True, slots=True)
class Image:
    """One row of the cohort."""

    name: str
    data: bytes
    row: dict[str, str]


def read_images() -> list[Image]:
    """The cohort's images, in the order of its table."""
    with zipfile.ZipFile(COHORT) as archive:
        table = next(name for name in archive.namelist() if name.endswith("cohort.csv"))
        rows = csv.DictReader(io.StringIO(archive.read(table).decode("utf-8-sig")))
        folder = table.removesuffix("cohort.csv")
        return [Image(row["image"], archive.read(_member(archive, folder, row["image"])), row) for row in rows]


def _member(archive: zipfile.ZipFile, folder: str, name: str) -> str:
    known = set(archive.namelist())
    return next(path for path in (f"{folder}{name}", f"{folder}images/{name}") if path in known)


def hold_out(images: list[Image]) -> tuple[list[Image], list[Image]]:
    """The library's images and the queries: half of them melanoma, of patients with one image."""
    counts = Counter(image.row["patient_id"] for image in images)
    single = [image for image in images if counts[image.row["patient_id"]] == 1]
    chosen = [
        image
        for value in ("1", "0")
        for image in [each for each in single if each.row["label_melanoma"] == value][::5][: QUERIES // 2]
    ]
    names = {image.name for image in chosen}
    return [image for image in images if image.name not in names], chosen


def add(data: Path, images: list[Image]) -> None:
    """Adds over gRPC, as a user does."""
    with running_server(data) as server, Client(server.address) as client:
        items = [
            AddItem(
                image.name,
                image.data,
                labels={"melanoma": image.row["label_melanoma"]},
                facts=CaseFacts(
                    patient_id=image.row["patient_id"],
                    sex=image.row["sex"],
                    age_years=float(image.row["age"]) if image.row["age"] else None,
                    modality="XC",
                ),
                source="ISIC 2017, CC0",
            )
            for image in images
        ]
        for result in client.add(items):
            if result.error:
                raise SystemExit(f"{result.request_id}: {result.error}")


def as_dicom(image: Image) -> bytes:
    """The picture as a camera in a hospital sends it: with the age and sex that a JPEG can not state."""
    pixels = np.asarray(PillowImage.open(io.BytesIO(image.data)).convert("RGB"))
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = VLPhotographicImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = generate_uid(), generate_uid(), "XC"
    data.PatientID, data.PatientSex = image.row["patient_id"], image.row["sex"]
    data.PatientAge = f"{int(float(image.row['age'])):03}Y" if image.row["age"] else ""
    data.Rows, data.Columns, data.SamplesPerPixel, data.PlanarConfiguration = *pixels.shape[:2], 3, 0
    data.PhotometricInterpretation, data.PixelRepresentation = "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = pixels.tobytes()
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


def finding_text(name: str, scorer: str) -> str:
    return (
        f'name = "{name}"\nversion = "1"\nlabel = "melanoma"\ndisplay_name = "Melanoma, by {scorer}"\n'
        f'positive_values = ["1"]\nnegative_values = ["0"]\nfitted = "{name}.json"\n'
        'default_operating_point = "sensitivity-90-pac"\n'
        f'[scorer]\nkind = "{scorer}"\nk = 50\n'
    )


def fit_all(data: Path, findings: Path) -> dict[str, Fitted]:
    """Fits each scorer on the library and writes what the server reads."""
    findings.mkdir()
    fits = {}
    for scorer in SCORERS:
        name = f"melanoma-{scorer}"
        text = finding_text(name, scorer)
        finding = read_finding(text, f"{name}.toml")
        plan = Plan(tuple(map(read_wish, (*DEFAULT, TOO_MUCH))))
        fits[name] = fit(finding, of_library(data, finding, lambda done, total: None), plan)
        (findings / f"{name}.toml").write_text(text)
        (findings / f"{name}.json").write_bytes(write_fitted(fits[name]))
        page = render_fit(fits[name], statement=read_card(default_encoder_folder()).statement)
        (findings / f"{name}.html").write_text(page)
    return fits


def decide_queries(data: Path, findings: Path, queries: list[Image], pages: Path | None) -> dict[str, dict[str, int]]:
    """Decides about images that the library does not hold, and counts calls by what they were."""
    counts: dict[str, dict[str, int]] = {}
    with running_server(data, "--findings", str(findings)) as server, Client(server.address) as client:
        for scorer in SCORERS:
            name = f"melanoma-{scorer}"
            told: Counter[str] = Counter()
            for number, image in enumerate(queries):
                result = client.decide(as_dicom(image), finding=name, prevalence=0.02, thumbnails=number % 20 == 0)
                decision = result.decisions[0]
                said = decision.call.value + (f" ({decision.abstain_reason})" if decision.abstain_reason else "")
                told[f"melanoma={image.row['label_melanoma']}: {said}"] += 1
                if pages and number % 20 == 0:
                    now = datetime.now(UTC).isoformat(timespec="seconds")
                    title = f"Decision on {image.name}, which is melanoma = {image.row['label_melanoma']}"
                    page = render_decision(
                        result,
                        {each.name: client.fit(each) for each in client.findings()},
                        title=title,
                        generated_at=now,
                    )
                    (pages / f"{name}-{number}.html").write_text(page)
            counts[name] = dict(sorted(told.items()))
    return counts


def made_library(data: Path, cases: int) -> None:
    """A library of made vectors; one in ten cases has the label."""
    card, rng = read_card(default_encoder_folder()), np.random.default_rng(0)

    async def fill() -> None:
        index = await open_index(data / "library", dimension=card.dimension, encoder_identity=card.identity)
        for start in range(0, cases, 1000):
            vectors = rng.normal(size=(min(1000, cases - start), card.dimension)).astype(np.float32)
            points = []
            for at, vector in enumerate(vectors, start):
                facts = CaseFacts(patient_id=f"P{at}", modality="XC")
                case = Case(case_id_of(facts, f"{at}", 1), facts, {"melanoma": str(int(at % 10 == 0))}, source="made")
                points.append(Point(case.case_id, vector / np.linalg.norm(vector), to_payload(case)))
            await index.upsert(points)
        await settled(index)  # what builds in the background would count as a call's
        await index.close()

    asyncio.run(fill())


def cost(cases: int, image: bytes, findings: Path) -> Cost:
    """Measures both calls on one server, in turns, after the first of each; same K, same filter, a whole fit.

    The fit is of another library, so the answer is LIBRARY_CHANGED; all that a call takes is computed still.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        made_library(data, cases)
        with (
            running_server(data, "--findings", str(findings)) as server,
            Client(server.address, timeout_s=300) as client,
        ):
            calls: dict[str, Callable[[], object]] = {
                "search": lambda: client.search(image, k=50, where="label.melanoma in (0, 1)"),
                "decide": lambda: client.decide(image, finding="melanoma-probe", prevalence=0.02),
            }
            times: dict[str, list[float]] = {name: [] for name in calls}
            for number in range(CALLS + 1):
                for name, call in calls.items():
                    before = cpu_ms(server)
                    call()
                    if number:
                        times[name].append(cpu_ms(server) - before)
    quantiles = {name: np.quantile(each, (0.5, 0.95)) for name, each in times.items()}
    return Cost(cases, *(float(each) for name in calls for each in quantiles[name]))


def cpu_ms(server: RunningServer) -> float:
    """CPU time of all threads of the server's processes, in the scheduler's nanoseconds."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    tree = [server.process.pid]
    for pid in tree:
        tree += [child for child, parent in parents.items() if parent == pid]
    total = 0
    for pid in tree:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return total / 1e6


def print_fits(fits: dict[str, Fitted]) -> None:
    for name, fitted in fits.items():
        area = fitted.auroc
        parts = ", ".join(f"{each.name} {each.positive_patients}+{each.negative_patients}" for each in fitted.splits)
        shown = f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})" if area else "none"
        print(f"\n{name}: patients with and without: {parts}; held-out AUROC {shown}")
        print(f"{'point':28}{'threshold':>10}  {'sensitivity':22}{'specificity':22}promise")
        for point, threshold, sensitivity, specificity, promise in point_rows(fitted):
            print(f"{point:28}{threshold:>10}  {sensitivity:22}{specificity:22}{promise}")
        for refusal in fitted.refusals:
            print(f"refused: {refusal.name}: {refusal.reason}")
        for group in fitted.groups:
            print(f"group {group.attribute} {group.name}: {'validated' if group.is_validated else group.reason}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    parser.add_argument("--pages", type=Path, metavar="FOLDER", help="write decision pages there")
    parser.add_argument("--cases", type=int, default=100_000, help="size of the made library; 0 leaves the cost out")
    arguments = parser.parse_args()
    if not COHORT.exists():
        print(f"skipped: the cohort {COHORT.name} is not in ../shared/data, and it can not be shipped")
        return 0
    images, queries = hold_out(read_images())
    if arguments.pages:
        arguments.pages.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data, findings = Path(folder) / "data", Path(folder) / "findings"
        add(data, images)
        fits = fit_all(data, findings)
        counts = decide_queries(data, findings, queries, arguments.pages)
        found = cost(arguments.cases, queries[0].data, findings) if arguments.cases else None
    print_fits(fits)
    for name, told in counts.items():
        print(f"\n{name}, {len(queries)} images kept out of the library, at its default point:")
        print("\n".join(f"  {count:4} {said}" for said, count in told.items()))
    if found:
        print(f"\nCPU of the server for one call, {found.cases} cases, {CALLS} calls each, ms: p50, p95")
        print(f"search {found.search_p50_ms:8.1f} {found.search_p95_ms:8.1f}")
        print(f"decide {found.decide_p50_ms:8.1f} {found.decide_p95_ms:8.1f}")
        print(f"p95 of Decide adds {found.added_p95_ms:.1f} ms (at most {LIMIT_MS:g})")
    if arguments.json:
        points = {name: point_rows(fitted) for name, fitted in fits.items()}
        body = {"points": points, "calls": counts, "cost": asdict(found) if found else None}
        arguments.json.write_text(json.dumps(body, indent=2) + "\n")
    return int(found is not None and found.added_p95_ms > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
