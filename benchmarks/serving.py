"""nearcase against servers of models: the same network, the same DICOM files, arrivals that do not wait.

Each server gets the same ONNX file with the same session options and as many single-threaded sessions as cores, and
embeds the same real files. Requests arrive at Poisson times at several rates; what is not answered within 500 ms is not
good. Then a poison file comes with every tenth request, and the good ones are counted.

"Outside the model" is the CPU time of all of a server's processes for a request, less that of the network alone, which
is measured in this process in the same run. Peers read DICOM as pydicom's documentation shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import grpc
import numpy as np
from peers import reading
from peers.load import Outcome, Send, open_loop
from pydicom.data import get_testdata_file
from vectors.processes import cpu_s, tree

from nearcase.demo.server import running_server
from nearcase.v1 import encoder_pb2, encoder_pb2_grpc

HERE = Path(__file__).parent
FILES = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "US1_J2KI.dcm", "US1_UNCR.dcm", "MR2_J2KI.dcm")
POISON = b"\0" * 128 + b"DICM" + b"\xff" * 4000
DEADLINE_S = 0.5
TIMES_LESS = 3.0
"""What the CPU outside the model has to be below the peers'."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that is running."""

    name: str
    send: Send
    process_id: int


@dataclass(frozen=True, slots=True)
class Row:
    """One server at one rate."""

    server: str
    rate: float  # requests a second
    poison: bool
    requests: int
    p50_ms: float
    p99_ms: float
    cpu_ms: float  # of the server, for a request
    outside_ms: float  # of it outside the model
    goodput: float  # share of the sound files that were embedded within the deadline


def read_files() -> list[bytes]:
    """Real DICOM files that come with pydicom's packages."""
    found = [get_testdata_file(name, download=False) for name in FILES]
    return [Path(str(path)).read_bytes() for path in found if path]


def model_cpu_ms(files: Sequence[bytes]) -> float:
    """The network alone, median CPU of a call."""
    session, batch = reading.session(), reading.read(files[0], reading.recipe())
    taken = []
    for _ in range(60):
        start_s = time.process_time()
        session.run(None, {"image": batch})
        taken.append((time.process_time() - start_s) * 1e3)
    return statistics.median(taken)


@asynccontextmanager
async def nearcase_server() -> AsyncIterator[Peer]:
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "data") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = encoder_pb2_grpc.EncoderServiceStub(channel)

            async def send(data: bytes) -> bool:
                request = encoder_pb2.EmbedImagesRequest(images=[encoder_pb2.ImageInput(image=data)])
                answer = await stub.EmbedImages(request, timeout=30)
                return len(answer.results[0].embedding.values) > 0

            yield Peer("nearcase", send, server.process.pid)


@asynccontextmanager
async def litserve_server() -> AsyncIterator[Peer]:
    port = _free_port()
    command = [sys.executable, str(HERE / "peers" / "litserve_app.py"), str(port), str(os.cpu_count())]
    async with _http_server("LitServe", command, f"http://127.0.0.1:{port}/predict", {}) as peer:
        yield peer


@asynccontextmanager
async def bentoml_server() -> AsyncIterator[Peer]:
    port = _free_port()
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "peers.bentoml_app:Embed", "--port", str(port)]
    given = {"PEER_WORKERS": str(os.cpu_count()), "BENTOML_DO_NOT_TRACK": "1", "PYTHONPATH": str(HERE)}
    async with _http_server("BentoML", command, f"http://127.0.0.1:{port}/predict", given) as peer:
        yield peer


@asynccontextmanager
async def _http_server(name: str, command: list[str], url: str, given: dict[str, str]) -> AsyncIterator[Peer]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=HERE, env=os.environ | given, stdout=log, stderr=log)
        connector = aiohttp.TCPConnector(limit=0)
        try:
            async with aiohttp.ClientSession(connector=connector) as session:

                async def send(data: bytes) -> bool:
                    form = aiohttp.FormData()
                    form.add_field("image", data, filename="image.dcm", content_type="application/dicom")
                    async with session.post(url, data=form) as answer:
                        return answer.status == 200 and len(await answer.read()) > 1000

                await _wait_ready(name, process, send, log)
                yield Peer(name, send, process.pid)
        finally:
            for pid in reversed(tree(process.pid)):
                _kill(pid)
            process.wait()


async def _wait_ready(name: str, process: subprocess.Popen[bytes], send: Send, log: object) -> None:
    data = read_files()[0]
    for _ in range(240):
        try:
            if await send(data):
                return
        except (aiohttp.ClientError, OSError):
            pass
        if process.poll() is not None:
            break
        await asyncio.sleep(0.25)
    raise SystemExit(f"{name} did not start")


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, 15)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def measure(peer: Peer, files: list[bytes], rate: float, seconds: float, model_ms: float) -> Row:
    """One rate, sound files only."""
    before_s = sum(map(cpu_s, tree(peer.process_id)))
    outcomes = await open_loop(peer.send, files, rate=rate, seconds=seconds, seed=int(rate))
    used_ms = (sum(map(cpu_s, tree(peer.process_id))) - before_s) * 1e3 / len(outcomes)
    return _row(peer.name, rate, outcomes, used_ms, model_ms)


async def measure_poisoned(peer: Peer, files: list[bytes], rate: float, seconds: float) -> Row:
    """The same with a poison file beside every tenth sound one; only the sound ones are counted."""

    async def poison() -> None:
        await open_loop(peer.send, [POISON], rate=rate / 10, seconds=seconds, seed=1)

    outcomes, _ = await asyncio.gather(
        open_loop(peer.send, files, rate=rate, seconds=seconds, seed=int(rate)), poison()
    )
    return _row(peer.name, rate, outcomes, float("nan"), 0.0, poisoned=True)


def _row(
    name: str, rate: float, outcomes: list[Outcome], cpu_ms: float, model_ms: float, *, poisoned: bool = False
) -> Row:
    late_ms = np.asarray([outcome.latency_s for outcome in outcomes]) * 1e3
    good = sum(outcome.is_good and outcome.latency_s <= DEADLINE_S for outcome in outcomes)
    p50, p99 = float(np.median(late_ms)), float(np.quantile(late_ms, 0.99))
    return Row(name, rate, poisoned, len(outcomes), p50, p99, cpu_ms, cpu_ms - model_ms, good / len(outcomes))


SERVERS: tuple[Callable[[], AbstractAsyncContextManager[Peer]], ...] = (
    nearcase_server,
    litserve_server,
    bentoml_server,
)


async def run(rates: list[float], seconds: float) -> tuple[float, list[Row]]:
    """Every server at every rate, one server at a time."""
    files = read_files()
    model_ms = model_cpu_ms(files)
    rows = []
    for server in SERVERS:
        async with server() as peer:
            await open_loop(peer.send, files, rate=10, seconds=3, seed=0)  # warm
            for rate in rates:
                rows.append(await measure(peer, files, rate, seconds, model_ms))
                show(rows[-1])
            rows.append(await measure_poisoned(peer, files, rates[0], seconds))
            show(rows[-1])
    return model_ms, rows


def show(row: Row) -> None:
    cpu = "" if row.poison else f"{row.cpu_ms:8.1f} {row.outside_ms:10.1f}"
    name = f"{row.server}, poison" if row.poison else row.server
    numbers = f"{row.rate:6.0f} {row.requests:8d} {row.p50_ms:8.1f} {row.p99_ms:9.1f} {row.goodput:8.3f}"
    print(f"{name:18} {numbers} {cpu}", flush=True)


def verdicts(rows: list[Row]) -> dict[str, bool]:
    """What is claimed, and whether this run shows it."""
    plain = [row for row in rows if not row.poison]
    ours = {row.rate: row for row in plain if row.server == "nearcase"}
    others = [row for row in plain if row.server != "nearcase"]
    hurt = {row.server: row.goodput for row in rows if row.poison}
    lowest = min(ours)
    return {
        "goodput at least the peers' at every rate": all(ours[row.rate].goodput >= row.goodput for row in others),
        f"CPU outside the model {TIMES_LESS:g} times less": all(
            row.outside_ms >= TIMES_LESS * ours[row.rate].outside_ms for row in others
        ),
        "unhurt by poison": hurt["nearcase"] >= ours[lowest].goodput - 0.01,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[5, 10, 20, 40], help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each rate")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    titles = f"{'rate':>6} {'requests':>8} {'p50 ms':>8} {'p99 ms':>9} {'goodput':>8} {'CPU ms':>8} {'outside':>10}"
    print(f"{'server':18} {titles}")
    model_ms, rows = asyncio.run(run(options.rates, options.seconds))
    print(f"the network alone: {model_ms:.1f} ms of CPU")
    found = verdicts(rows)
    for claim, holds in found.items():
        print(f"{'PASS' if holds else 'FAIL'}  {claim}")
    if options.json:
        written = {"model_ms": model_ms, "rows": [asdict(row) for row in rows], "claims": found}
        options.json.write_text(json.dumps(written, indent=2) + "\n")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
