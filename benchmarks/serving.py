"""nearcase against servers of models: the same network, the same DICOM files, arrivals that do not wait.

Each server gets the same ONNX file with the same session options and as many single-threaded sessions as cores, and
embeds the same real files. Requests arrive at Poisson times at several rates; what is not answered within 500 ms is not
good. Then a poison file comes with every tenth request, and the good ones are counted.

"Outside the model" is the CPU time of all of a server's processes for a request, with a network of the same shape that
computes next to nothing. Peers read DICOM as pydicom's documentation shows it.

The files are the five full-size images of pydicom's packages that come both uncompressed and as JPEG 2000: a CT, an MR,
two radiographs, an ultrasound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import aiohttp
import grpc
import numpy as np
from peers.empty import empty_encoder
from peers.load import Outcome, Send, open_loop
from pydicom.data import get_testdata_file
from vectors.processes import tree, tree_cpu_s
from vectors.tables import markdown, put, verdict

from nearcase.demo.server import running_server
from nearcase.encode.card import default_encoder_folder
from nearcase.v1 import encoder_pb2, encoder_pb2_grpc

HERE = Path(__file__).parent
FILES = tuple(f"{image}_{kind}.dcm" for image in ("693", "MR2", "RG1", "RG3", "US1") for kind in ("UNCR", "J2KI"))
POISON = b"\0" * 128 + b"DICM" + b"\xff" * 4000
DEADLINE_S = 0.5
TIMES_LESS = 3.0
"""What the CPU outside the model has to be below the peers'."""
OURS = "nearcase"
REQUESTS = 25
"""For each file, where CPU is measured."""


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
    goodput: float  # share of the sound files that were embedded within the deadline


def read_files() -> list[bytes]:
    """Real DICOM files that come with pydicom's packages."""
    found = [get_testdata_file(name, download=False) for name in FILES]
    return [Path(str(path)).read_bytes() for path in found if path]


@asynccontextmanager
async def nearcase_server(encoder: Path) -> AsyncIterator[Peer]:
    given = ("--encoder", str(encoder))
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "data", *given) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = encoder_pb2_grpc.EncoderServiceStub(channel)

            async def send(data: bytes) -> bool:
                request = encoder_pb2.EmbedImagesRequest(images=[encoder_pb2.ImageInput(image=data)])
                answer = await stub.EmbedImages(request, timeout=30)
                return len(answer.results[0].embedding.values) > 0

            yield Peer("nearcase", send, server.process.pid)


@asynccontextmanager
async def litserve_server(encoder: Path) -> AsyncIterator[Peer]:
    port = _free_port()
    command = [sys.executable, str(HERE / "peers" / "litserve_app.py"), str(port), str(os.cpu_count())]
    async with _http_server(
        "LitServe", command, f"http://127.0.0.1:{port}/predict", {"PEER_ENCODER": str(encoder)}
    ) as peer:
        yield peer


@asynccontextmanager
async def bentoml_server(encoder: Path) -> AsyncIterator[Peer]:
    port = _free_port()
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "peers.bentoml_app:Embed", "--port", str(port)]
    given = {"PEER_WORKERS": str(os.cpu_count()), "BENTOML_DO_NOT_TRACK": "1", "PYTHONPATH": str(HERE)}
    given["PEER_ENCODER"] = str(encoder)
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


async def outside_ms(peer: Peer, data: bytes) -> float:
    """CPU of a request, one after the other, with the network that computes nothing."""
    for _ in range(4):
        await peer.send(data)
    before_s = tree_cpu_s(peer.process_id)
    for _ in range(REQUESTS):
        if not await peer.send(data):
            raise SystemExit(f"{peer.name} refused a sound file")
    return (tree_cpu_s(peer.process_id) - before_s) * 1e3 / REQUESTS


async def measure(peer: Peer, files: list[bytes], rate: float, seconds: float) -> Row:
    """One rate, sound files only."""
    before_s = tree_cpu_s(peer.process_id)
    outcomes = await open_loop(peer.send, files, rate=rate, seconds=seconds, seed=int(rate))
    used_ms = (tree_cpu_s(peer.process_id) - before_s) * 1e3 / len(outcomes)
    return _row(peer.name, rate, outcomes, used_ms)


async def measure_poisoned(peer: Peer, files: list[bytes], rate: float, seconds: float) -> Row:
    """The same with a poison file beside every tenth sound one; only the sound ones are counted."""

    async def poison() -> None:
        await open_loop(peer.send, [POISON], rate=rate / 10, seconds=seconds, seed=1)

    outcomes, _ = await asyncio.gather(
        open_loop(peer.send, files, rate=rate, seconds=seconds, seed=int(rate)), poison()
    )
    return _row(peer.name, rate, outcomes, float("nan"), poisoned=True)


def _row(name: str, rate: float, outcomes: list[Outcome], cpu_ms: float, *, poisoned: bool = False) -> Row:
    late_ms = np.asarray([outcome.latency_s for outcome in outcomes]) * 1e3
    good = sum(outcome.is_good and outcome.latency_s <= DEADLINE_S for outcome in outcomes)
    p50, p99 = float(np.median(late_ms)), float(np.quantile(late_ms, 0.99))
    return Row(name, rate, poisoned, len(outcomes), p50, p99, cpu_ms, good / len(outcomes))


SERVERS: tuple[Callable[[Path], AbstractAsyncContextManager[Peer]], ...] = (
    nearcase_server,
    litserve_server,
    bentoml_server,
)


async def run_outside() -> dict[str, list[float]]:
    """CPU outside the model: for each server, of each file."""
    with tempfile.TemporaryDirectory() as folder:
        encoder, found = empty_encoder(Path(folder) / "empty"), {}
        for server in SERVERS:
            async with server(encoder) as peer:
                found[peer.name] = [await outside_ms(peer, data) for data in read_files()]
    return found


async def run(rates: list[float], seconds: float) -> list[Row]:
    """Every server at every rate, one server at a time."""
    files = read_files()
    rows = []
    for server in SERVERS:
        async with server(default_encoder_folder()) as peer:
            await open_loop(peer.send, files, rate=10, seconds=3, seed=0)  # warm
            for rate in rates:
                rows.append(await measure(peer, files, rate, seconds))
                show(rows[-1])
            rows.append(await measure_poisoned(peer, files, rates[0], seconds))
            show(rows[-1])
    return rows


def show(row: Row) -> None:
    cpu = "" if row.poison else f"{row.cpu_ms:8.1f}"
    name = f"{row.server}, poison" if row.poison else row.server
    numbers = f"{row.rate:6.0f} {row.requests:8d} {row.p50_ms:8.1f} {row.p99_ms:9.1f} {row.goodput:8.3f}"
    print(f"{name:18} {numbers} {cpu}", flush=True)


def show_outside(outside: dict[str, list[float]]) -> None:
    print("\nCPU ms outside the model, by file")
    print(f"{'file':14}" + "".join(f"{name:>10}" for name in outside))
    for at, file in enumerate(FILES):
        print(f"{file:14}" + "".join(f"{of_files[at]:10.1f}" for of_files in outside.values()))
    print(f"{'mean':14}" + "".join(f"{fmean(of_files):10.1f}" for of_files in outside.values()))


def verdicts(rows: list[Row], outside: dict[str, list[float]]) -> dict[str, bool]:
    """What is claimed, and whether this run shows it."""
    plain = [row for row in rows if not row.poison]
    ours = {row.rate: row for row in plain if row.server == OURS}
    others = [row for row in plain if row.server != OURS]
    hurt = {row.server: row.goodput for row in rows if row.poison}
    mean_ms = {name: fmean(of_files) for name, of_files in outside.items()}
    least = min(mean_ms[name] for name in mean_ms if name != OURS)
    return {
        "goodput at least the peers' at every rate": all(ours[row.rate].goodput >= row.goodput for row in others),
        f"CPU outside the model {least / mean_ms[OURS]:.1f} times less than the better peer's, of at least "
        f"{TIMES_LESS:g}": least >= TIMES_LESS * mean_ms[OURS],
        "unhurt by poison": hurt[OURS] >= ours[min(ours)].goodput - 0.01,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[5, 10, 20, 40], help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each rate")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--docs", action="store_true", help="also write the tables into docs/performance.md")
    options = parser.parse_args()
    outside = asyncio.run(run_outside())
    show_outside(outside)
    titles = f"{'rate':>6} {'requests':>8} {'p50 ms':>8} {'p99 ms':>9} {'goodput':>8} {'CPU ms':>8}"
    print(f"\n{'server':18} {titles}")
    rows = asyncio.run(run(options.rates, options.seconds))
    found = verdicts(rows, outside)
    print("\n".join(verdict(holds, claim) for claim, holds in found.items()))
    if options.json:
        written = {"outside_ms": outside, "rows": [asdict(row) for row in rows], "claims": found}
        options.json.write_text(json.dumps(written, indent=2) + "\n")
    if options.docs:
        put("serving", tables(rows, outside, found))
    return 0 if all(found.values()) else 1


def tables(rows: list[Row], outside: dict[str, list[float]], found: dict[str, bool]) -> str:
    """The same for the docs."""
    of_files = [[file, *(f"{ms[at]:.1f}" for ms in outside.values())] for at, file in enumerate(FILES)]
    of_files.append(["mean", *(f"{fmean(ms):.1f}" for ms in outside.values())])
    by_rate = [
        [
            f"{row.server}, poison" if row.poison else row.server,
            *(f"{row.rate:.0f}", f"{row.p50_ms:.0f}", f"{row.p99_ms:.0f}", f"{row.goodput:.3f}"),
            "" if row.poison else f"{row.cpu_ms:.1f}",
        ]
        for row in rows
    ]
    return "\n\n".join(
        [
            "CPU ms of a request outside the model:",
            markdown(["file", *outside], of_files),
            markdown(["server", "requests/s", "p50 ms", "p99 ms", "goodput", "CPU ms"], by_rate),
            "\n".join(f"- {verdict(holds, claim)}" for claim, holds in found.items()),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
