"""Decisions on real skin images: what the operating points do to held-out patients, and what a decision costs.

The cohort (../shared/data/isic2017.zip) is added to a library; `nearcase-eval fit` fits melanoma by neighbours and by a
probe; a few patients are kept out of the library and decided about. Then a large library of made vectors is searched
and decided on, and the CPU time of the server's processes is compared (Linux: /proc/PID/task/*/schedstat). Its fits are
those of the cohort, bound to that library and with limits that every image keeps, so that calls are made: what the
calls say is nothing, what they cost is what calls cost.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLPhotographicImageStorage, generate_uid
from vectors.labelled import bound, cpu_ms, made_library

from nearcase.client import AddItem, Client
from nearcase.decide.findings import read_finding
from nearcase.decide.fitted import Fitted, Library, read_fitted, write_fitted
from nearcase.decide.groups import groups_of
from nearcase.demo.server import RunningServer, running_server
from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.report.decision_page import render_decision
from nearcase.report.decision_view import FindingFit
from nearcase.types import CaseFacts
from nearcase_eval.fit import Plan, fit
from nearcase_eval.fit_page import called_rows, point_rows, render_fit
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

    scorer: str
    cases: int
    is_growing: bool  # a case was added before each call
    search_p50_ms: float
    search_p95_ms: float
    decide_p50_ms: float
    decide_p95_ms: float
    said: dict[str, int]  # how many decisions said what

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
    """Fits each scorer on the library and writes what the server reads; what is there is read."""
    names = [f"melanoma-{scorer}" for scorer in SCORERS]
    if findings.exists():
        return {name: read_fitted((findings / f"{name}.json").read_bytes()) for name in names}
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
                        {
                            each.name: FindingFit(client.roc(each.name), each.refused_points)
                            for each in client.findings()
                            if each.operating_points
                        },
                        title=title,
                        generated_at=now,
                    )
                    (pages / f"{name}-{number}.html").write_text(page)
            counts[name] = dict(sorted(told.items()))
    return counts


def declare_bound(findings: Path, fits: dict[str, Fitted], library: Library) -> None:
    """Writes the fits as ones of this library."""
    findings.mkdir(exist_ok=True)
    for name, fitted in fits.items():
        text = finding_text(name, name.removeprefix("melanoma-")) + "[abstain]\nlibrary_change = 0.5\n"
        (findings / f"{name}.toml").write_text(text)
        (findings / f"{name}.json").write_bytes(write_fitted(bound(fitted, library)))


def validated(fits: dict[str, Fitted], queries: list[Image]) -> Image:
    """The first image whose sex and age every fit was validated for."""
    for image in queries:
        facts = CaseFacts(sex=image.row["sex"], age_years=float(image.row["age"]) if image.row["age"] else None)
        if all(group.is_validated for fitted in fits.values() for group in groups_of(facts, fitted.groups, ())):
            return image
    raise SystemExit("no image is of groups that were validated")


def costs(work: Path, cases: int, image: bytes, more: bytes, fits: dict[str, Fitted]) -> list[Cost]:
    """Measures search and both scorers on one server, in turns, after the first of each; same K, same filter.

    First as the library is, then with a case added before each call, so that nothing that was counted holds.
    """
    data, findings = work / f"made-{cases}", work / f"made-{cases}-findings"
    declare_bound(findings, fits, made_library(data, cases))
    found: list[Cost] = []
    with (
        running_server(data, "--findings", str(findings)) as server,
        Client(server.address, timeout_s=300) as client,
    ):
        for is_growing, count in ((False, CALLS), (True, CALLS // 2)):
            found += measured(server, client, image, more if is_growing else b"", count, cases)
    return found


def measured(
    server: RunningServer, client: Client, image: bytes, more: bytes, count: int, cases: int
) -> Iterator[Cost]:
    """Yields the cost of each scorer."""
    said: dict[str, Counter[str]] = {scorer: Counter() for scorer in SCORERS}

    def decided(scorer: str) -> None:
        (decision,) = client.decide(image, finding=f"melanoma-{scorer}", prevalence=0.02).decisions
        said[scorer][decision.abstain_reason or decision.call.value] += 1

    calls: dict[str, Callable[[], object]] = {
        "search": lambda: client.search(image, k=50, where="label.melanoma in (0, 1)"),
        **{scorer: partial(decided, scorer) for scorer in SCORERS},
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(count + 1):
        for name, call in calls.items():
            if more:
                grow(client, more)
            before = cpu_ms(server)
            call()
            if number:
                times[name].append(cpu_ms(server) - before)
    quantiles = {name: [float(each) for each in np.quantile(found, (0.5, 0.95))] for name, found in times.items()}
    low, high = quantiles["search"]
    for scorer in SCORERS:
        yield Cost(scorer, cases, bool(more), low, high, quantiles[scorer][0], quantiles[scorer][1], dict(said[scorer]))


def grow(client: Client, image: bytes) -> None:
    """Adds one labelled case; what is appended to the picture makes it another file."""
    item = AddItem(
        "one", image + os.urandom(8), labels={"melanoma": "0"}, facts=CaseFacts(modality="XC"), source="made"
    )
    for result in client.add([item]):
        if result.error:
            raise SystemExit(f"adding: {result.error}")


def print_fits(fits: dict[str, Fitted]) -> None:
    for name, fitted in fits.items():
        area = fitted.auroc
        parts = ", ".join(f"{each.name} {each.positive_patients}+{each.negative_patients}" for each in fitted.splits)
        shown = f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})" if area else "none"
        print(f"\n{name}: patients with and without: {parts}; held-out AUROC {shown}")
        print(f"{'point':28}{'threshold':>10}  {'sensitivity':22}{'specificity':22}promise")
        for point, threshold, sensitivity, specificity, promise in point_rows(fitted):
            print(f"{point:28}{threshold:>10}  {sensitivity:22}{specificity:22}{promise}")
        print(f"{'with a call':28}{'sensitivity':22}{'n':>4}  {'specificity':22}{'n':>4}")
        for point, sensitivity, positives, specificity, negatives in called_rows(fitted):
            print(f"{point:28}{sensitivity:22}{positives:>4}  {specificity:22}{negatives:>4}")
        for refusal in fitted.refusals:
            print(f"refused: {refusal.name}: {refusal.reason}")
        for group in fitted.groups:
            print(f"group {group.attribute} {group.name}: {'validated' if group.is_validated else group.reason}")


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """The folder to keep, or one that goes."""
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    parser.add_argument("--pages", type=Path, metavar="FOLDER", help="write decision pages there")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep libraries and fits there, or take them from it"
    )
    parser.add_argument("--cases", type=int, default=100_000, help="size of the made library; 0 leaves the cost out")
    arguments = parser.parse_args()
    if not COHORT.exists():
        print(f"skipped: the cohort {COHORT.name} is not in ../shared/data, and it can not be shipped")
        return 0
    images, queries = hold_out(read_images())
    if arguments.pages:
        arguments.pages.mkdir(parents=True, exist_ok=True)
    with work_folder(arguments.keep) as work:
        data, findings = work / "data", work / "findings"
        if not findings.exists():
            add(data, images)
        fits = fit_all(data, findings)
        counts = decide_queries(data, findings, queries, arguments.pages)
        image = as_dicom(validated(fits, queries)) if arguments.cases else b""
        found = costs(work, arguments.cases, image, queries[0].data, fits) if arguments.cases else []
    print_fits(fits)
    for name, told in counts.items():
        print(f"\n{name}, {len(queries)} images kept out of the library, at its default point:")
        print("\n".join(f"  {count:4} {said}" for said, count in told.items()))
    for cost in found:
        outcomes = ", ".join(f"{count} {said}" for said, count in cost.said.items())
        growing = ", one added before each call" if cost.is_growing else ""
        print(f"\nCPU of the server for one call, {cost.cases} cases{growing} ({outcomes}), ms: p50, p95")
        print(f"search {cost.search_p50_ms:8.1f} {cost.search_p95_ms:8.1f}")
        print(f"decide {cost.decide_p50_ms:8.1f} {cost.decide_p95_ms:8.1f}  by {cost.scorer}")
        print(f"p95 of Decide adds {cost.added_p95_ms:.1f} ms (at most {LIMIT_MS:g})")
    if arguments.json:
        points = {name: point_rows(fitted) for name, fitted in fits.items()}
        body = {"points": points, "calls": counts, "costs": [asdict(each) for each in found]}
        arguments.json.write_text(json.dumps(body, indent=2) + "\n")
    return int(any(each.added_p95_ms > LIMIT_MS for each in found))


if __name__ == "__main__":
    sys.exit(main())
