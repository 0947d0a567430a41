"""What a search costs beyond its parts: one caller, one image at a time, through gRPC and in this process.

The parts are the same functions that the server calls, on the same files: hashing, decoding and resizing, the network
with its normalisation, and the index (the engine itself, in this process, over the same cases). Their medians are added
up and compared with the median of the whole search, alternating, so that both see the same noise.

Beside them stands what no server that is asked over gRPC can do without: the same message to one that does nothing. The
search is measured as it is served, with a record of it on the disk before it is answered, and without the audit trail.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydicom.data import get_testdata_file
from vectors.tables import markdown, put, verdict

from nearcase.channel import open_channel
from nearcase.client import Client
from nearcase.demo.server import running_server
from nearcase.encode.card import default_encoder_folder
from nearcase.encode.inputs import to_batch, unpack_frame
from nearcase.encode.runtime import open_encoder
from nearcase.index.base import Point
from nearcase.index.edge.opening import opened
from nearcase.index.edge.plan import Sizes
from nearcase.index.opening import open_index
from nearcase.intake.burned_in import KEEP_TEXT
from nearcase.prepare import prepare_job
from nearcase.retrieve.cases import THUMBNAIL, case_id_of, to_payload
from nearcase.types import Case, CaseFacts
from nearcase.v1 import search_pb2, search_pb2_grpc

FILES = ("CT_small.dcm", "MR2_J2KI.dcm", "US1_UNCR.dcm", "693_UNCR.dcm", "RG3_UNCR.dcm", "RG1_J2KI.dcm")
LIMIT = 1.15
"""The most that a whole search may take of the sum of its parts."""


@dataclass(frozen=True, slots=True)
class Row:
    """One file: medians of wall time."""

    file: str
    size_kib: int
    decode_ms: float
    encode_ms: float
    index_ms: float
    carry_ms: float
    search_ms: float
    untold_ms: float  # a search that the audit trail is not told of

    @property
    def parts_ms(self) -> float:
        """Their sum, without the carrying."""
        return self.decode_ms + self.encode_ms + self.index_ms

    @property
    def ratio(self) -> float:
        """The whole over the sum of the parts."""
        return self.search_ms / self.parts_ms

    @property
    def untold_ratio(self) -> float:
        """The same without the audit trail."""
        return self.untold_ms / self.parts_ms

    @property
    def carried_ratio(self) -> float:
        """The whole over the sum of the parts and an empty call with the same bytes."""
        return self.search_ms / (self.parts_ms + self.carry_ms)


@contextmanager
def empty_server() -> Iterator[Callable[[bytes], object]]:
    """Yields what sends a file to a server that does nothing with it."""
    command = [sys.executable, str(Path(__file__).parent / "peers" / "empty_server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101
        with open_channel(f"127.0.0.1:{int(process.stdout.readline())}") as channel:
            stub = search_pb2_grpc.SearchServiceStub(channel)
            yield lambda data: stub.Search(search_pb2.SearchRequest(examples=[search_pb2.Example(image=data)]))
        process.communicate("")


def fill(folder: Path, cases: int) -> None:
    """A library of made vectors."""
    card, rng = open_encoder(default_encoder_folder()).card, np.random.default_rng(0)

    async def add() -> None:
        index = await open_index(folder, dimension=card.dimension, encoder_identity=card.identity)
        for start in range(0, cases, 1000):
            drawn = rng.normal(size=(min(1000, cases - start), card.dimension)).astype(np.float32)
            facts = [CaseFacts(patient_id=f"P{start + at}", modality="CT") for at in range(len(drawn))]
            made = [Case(case_id_of(fact, fact.patient_id, 1), fact, source="made") for fact in facts]
            vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
            await index.upsert([Point(c.case_id, v, to_payload(c)) for c, v in zip(made, vectors, strict=True)])
        await index.close()

    asyncio.run(add())


def measure(files: list[tuple[str, bytes]], cases: int, runs: int) -> list[Row]:
    """Whole searches and their parts, in turns."""
    encoder = open_encoder(default_encoder_folder())
    recipe = encoder.card.recipe
    options = {
        "frame_number": None,
        "recipe": dataclasses.asdict(recipe),
        "text_policy": dataclasses.asdict(KEEP_TEXT),
        "with_thumbnail": False,  # as the server has it where nobody asks for one
    }

    def decoded(data: bytes) -> None:
        hashlib.sha256(data).hexdigest()
        prepare_job(data, options)

    def embedded(frame: bytes) -> bytes:
        vector = encoder.embed(to_batch(unpack_frame(frame, recipe)[None], recipe))[0]
        return bytes(vector.tobytes())

    with tempfile.TemporaryDirectory() as folder:
        data, untold, copy = Path(folder) / "data", Path(folder) / "untold", Path(folder) / "copy"
        data.mkdir()
        fill(data / "library", cases)
        shutil.copytree(data / "library", copy)
        shutil.copytree(data, untold)
        settings = Path(folder) / "untold.toml"
        settings.write_text('audit = "off"\n')
        engine = opened(copy, encoder.card.dimension, Sizes().exact_candidates, (), lambda _: None)
        rows = []
        with (
            running_server(data) as server,
            Client(server.address) as client,
            running_server(untold, "--settings", str(settings)) as other_server,
            Client(other_server.address) as other,
            empty_server() as carry,
        ):
            for name, content in files:
                _, (frame, *_) = prepare_job(content, options)
                query = embedded(frame)
                taken = []
                for _ in range(runs):
                    parts = (
                        _ms(lambda content=content: decoded(content)),  # type: ignore[misc]
                        _ms(lambda frame=frame: embedded(frame)),  # type: ignore[misc]
                        _ms(lambda query=query: engine.search([query], 10, None, (THUMBNAIL,), False)),  # type: ignore[misc]
                        _ms(lambda content=content: carry(content)),  # type: ignore[misc]
                        _ms(lambda content=content: client.search(content, k=10)),  # type: ignore[misc]
                        _ms(lambda content=content: other.search(content, k=10)),  # type: ignore[misc]
                    )
                    taken.append(parts)
                medians = [statistics.median(column) for column in zip(*taken[runs // 5 :], strict=True)]
                rows.append(Row(name, len(content) // 1024, *medians))
        engine.close()
    return rows


def _ms(call: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    call()
    return (time.perf_counter() - start_s) * 1e3


HEADER = ["file", "KiB", "decode ms", "encode", "index", "carry", "search", "ratio", "with carry", "no trail", "ratio"]


def cells(row: Row) -> list[str]:
    """A line of the table."""
    taken = (row.decode_ms, row.encode_ms, row.index_ms, row.carry_ms, row.search_ms)
    ratios = (row.ratio, row.carried_ratio, row.untold_ms, row.untold_ratio)
    return [row.file, str(row.size_kib), *(f"{figure:.2f}" for figure in (*taken, *ratios))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="in the library")
    parser.add_argument("--runs", type=int, default=40, help="of each file")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--docs", action="store_true", help="also write the table into docs/performance.md")
    options = parser.parse_args()
    found = [(name, get_testdata_file(name, download=False)) for name in FILES]
    files = [(name, Path(str(path)).read_bytes()) for name, path in found if path]
    rows = measure(files, options.cases, options.runs)
    whole = sum(row.search_ms for row in rows)
    parts = sum(row.parts_ms for row in rows)
    ratio, untold = whole / parts, sum(row.untold_ms for row in rows) / parts
    carried = whole / sum(row.parts_ms + row.carry_ms for row in rows)
    claims = [
        verdict(ratio <= LIMIT, f"all files: {ratio:.2f} times the sum of the parts, at most {LIMIT}"),
        verdict(carried <= LIMIT, f"with an empty call of the same bytes among them: {carried:.2f}, at most {LIMIT}"),
        verdict(untold <= LIMIT, f"without the audit trail: {untold:.2f} times the parts, at most {LIMIT}"),
    ]
    text = markdown(HEADER, [cells(row) for row in rows]) + "\n\n" + "\n".join(f"- {claim}" for claim in claims)
    print(text)
    if options.docs:
        put("overhead", text)
    if options.json:
        written = {
            "rows": [asdict(row) for row in rows],
            "ratio": ratio,
            "carried_ratio": carried,
            "untold_ratio": untold,
            "limit": LIMIT,
        }
        options.json.write_text(json.dumps(written, indent=2) + "\n")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
