"""Filters on real images: on ISIC 2017 do searches within an age band, a sex and a label find what NumPy finds?

Every image is added to a server as a user adds it; 200 of them are searched with under the three filters at once, own
patients left out, and compare with a product of matrices over the rows that the cohort's own table names. A second
row asks the same of an index that was made to build its graph, which so small a library never has.

Needs `isic2017.zip` (CC0, Codella et al., arXiv 1710.05006), which nearcase does not ship.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
from decide import COHORT, Image, add, read_images
from numpy.typing import NDArray
from vectors.tables import markdown, put, verdict

from nearcase.demo.server import running_server
from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.index.base import Point, Record
from nearcase.index.edge.index import EdgeIndex
from nearcase.index.edge.plan import Sizes
from nearcase.index.filter_text import parse
from nearcase.index.filters import And, Filter
from nearcase.index.opening import open_index
from nearcase.retrieve.cases import other_origin, to_case
from nearcase.v1 import search_pb2, search_pb2_grpc

QUERIES, K, TIE = 200, 10, 1e-6
BANDS = ((0, 40), (40, 60), (60, 120))
CARD = read_card(default_encoder_folder())


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: a stored image, and which rows may answer."""

    row: int
    where: str
    candidates: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Result:
    """One index."""

    index: str
    recall: float
    worst: float  # of any query
    queries: int
    fewest_candidates: int
    most_candidates: int


class Cohort:
    """The stored images with their embeddings, and the table's own columns."""

    def __init__(self, images: list[Image], records: list[Record]) -> None:
        rows = {str(index): image.row for index, image in enumerate(images)}
        by_digest = {_digest(image): str(index) for index, image in enumerate(images)}
        self.records = [record for record in records if record.payload["content_sha256"] in by_digest]
        self.rows = [rows[by_digest[str(record.payload["content_sha256"])]] for record in self.records]
        self.vectors = np.stack([record.vector for record in self.records if record.vector is not None])

    def asked(self, row: int) -> Asked | None:
        """The query's own sex and age band, and either label in turn; None where the table does not state them."""
        own, label = self.rows[row], str(row % 2)
        if own["sex"] not in "MF" or not own["sex"] or not own["age"]:
            return None
        low, high = next(band for band in BANDS if band[0] <= float(own["age"]) < band[1])
        kept = [
            number
            for number, each in enumerate(self.rows)
            if each["sex"] == own["sex"]
            and each["age"]
            and low <= float(each["age"]) < high
            and each["label_melanoma"] == label
            and each["patient_id"] != own["patient_id"]
        ]
        where = f"age_years >= {low} and age_years < {high} and sex = {own['sex']} and label.melanoma = {label}"
        return Asked(row, where, np.array(kept, np.int64))

    def recall(self, asked: Asked, found: list[str]) -> float:
        """The share of the true nearest that were found; an image outside the rows is no neighbour."""
        similarities = self.vectors[asked.candidates] @ self.vectors[asked.row]
        best = np.sort(similarities)[::-1][:K]
        ids = {self.records[row].point_id: value for row, value in zip(asked.candidates, similarities, strict=True)}
        good = sum(ids.get(name, -2.0) >= best[-1] - TIE for name in set(found))
        return min(1.0, good / len(best)) if set(found) <= ids.keys() else 0.0


def _digest(image: Image) -> str:
    import hashlib

    return hashlib.sha256(image.data).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--docs", action="store_true", help="also write the table into docs/performance.md")
    options = parser.parse_args()
    if not COHORT.is_file():
        print("skipped: isic2017.zip is not here")
        return
    with tempfile.TemporaryDirectory(prefix="nearcase-isic-search-") as folder:
        results = measure(Path(folder))
    text = report(results)
    print(text)
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in results], indent=2) + "\n", "utf-8")
    if options.docs:
        put("isic_search", text)
    if any(each.worst < 1.0 for each in results):
        raise SystemExit(1)


def measure(folder: Path) -> list[Result]:
    """Adds all images, then asks the server and an index with a graph."""
    images = read_images()
    add(folder / "data", images)
    cohort = Cohort(images, asyncio.run(stored(folder / "data")))
    rng = np.random.default_rng(0)
    chosen = [asked for row in rng.permutation(len(cohort.rows)) if (asked := cohort.asked(int(row)))]
    chosen = [asked for asked in chosen if len(asked.candidates)][:QUERIES]
    return [
        _result("as it is served", cohort, chosen, served(folder / "data", cohort, chosen)),
        _result("made to build a graph", cohort, chosen, asyncio.run(sealed(folder / "sealed", cohort, chosen))),
    ]


async def stored(data: Path) -> list[Record]:
    """All images with their embeddings."""
    index = await open_index(data / "library", dimension=CARD.dimension, encoder_identity=CARD.identity)
    records: list[Record] = []
    cursor = None
    try:
        while True:
            page = await index.scroll(limit=500, cursor=cursor, with_vectors=True)
            records += page.records
            cursor = page.next_cursor
            if cursor is None:
                return records
    finally:
        await index.close()


def served(data: Path, cohort: Cohort, chosen: list[Asked]) -> list[list[str]]:
    """What a server answers over gRPC."""
    with running_server(data) as server, grpc.insecure_channel(server.address) as channel:
        stub, found = search_pb2_grpc.SearchServiceStub(channel), []
        for asked in chosen:
            example = search_pb2.Example(case_id=cohort.records[asked.row].point_id)
            options = search_pb2.SearchOptions(k=K, filter=asked.where)
            answer = stub.Search(search_pb2.SearchRequest(examples=[example], options=options), timeout=60)
            found.append([hit.case.case_id for hit in answer.hits])
        return found


async def sealed(folder: Path, cohort: Cohort, chosen: list[Asked]) -> list[list[str]]:
    """What an index answers that seals at 500 images and walks its graph from 50 candidates on."""
    folder.mkdir()
    sizes = Sizes(exact_below=500, seal_at=500, exact_candidates=50)
    index = await EdgeIndex.open(folder, CARD.dimension, sizes)
    try:
        points = [
            Point(each.point_id, vector, each.payload)
            for each, vector in zip(cohort.records, cohort.vectors, strict=True)
        ]
        for start in range(0, len(points), 100):
            await index.upsert(points[start : start + 100])
        await _settled(index)
        return [await _nearest(index, cohort, asked) for asked in chosen]
    finally:
        await index.close()


async def _settled(index: EdgeIndex) -> None:
    quiet = 0
    while quiet < 8:
        await asyncio.sleep(0.25)
        quiet = 0 if (await index.state()).is_building else quiet + 1
    if (await index.state()).is_exact:
        raise SystemExit("the index has no graph")


async def _nearest(index: EdgeIndex, cohort: Cohort, asked: Asked) -> list[str]:
    record = cohort.records[asked.row]
    own = other_origin([to_case(record.point_id, record.payload)], with_patient=True)
    parts: tuple[Filter, ...] = (parse(asked.where), *([own] if own else []))
    found = await index.search(cohort.vectors[asked.row], limit=K, where=And(parts))
    return [each.point_id for each in found]


def _result(name: str, cohort: Cohort, chosen: list[Asked], found: list[list[str]]) -> Result:
    recalls = [cohort.recall(asked, each) for asked, each in zip(chosen, found, strict=True)]
    widths = [len(asked.candidates) for asked in chosen]
    return Result(name, float(np.mean(recalls)), min(recalls), len(chosen), min(widths), max(widths))


def report(results: list[Result]) -> str:
    """The table, and whether the claim holds."""
    table = markdown(
        ["index", "recall@10", "worst query", "queries", "candidates"],
        [
            [
                each.index,
                f"{each.recall:.4f}",
                f"{each.worst:.4f}",
                str(each.queries),
                f"{each.fewest_candidates} to {each.most_candidates}",
            ]
            for each in results
        ],
    )
    is_met = all(each.worst == 1.0 for each in results)
    claim = verdict(is_met, "age band, sex and label together find exactly what NumPy finds")
    return f"ISIC 2017, {CARD.name}, own patients left out.\n\n{table}\n\n- {claim}"


if __name__ == "__main__":
    main()
