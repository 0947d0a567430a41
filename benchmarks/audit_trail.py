"""What the audit trail costs a search: processor time and wall time of its record, alone and among others.

    python benchmarks/audit_trail.py [--json FILE] [--rounds N] [--folder FOLDER]

A record of a search with 10 hits is written as a server writes it: names are made, lines sealed and chained, and both
files synced, while 1, 8 or 64 callers wait. Processor time is that of all threads of the process. The folder decides
what a sync takes: name one on the disk that the trail will lie on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nearcase.audit.event import CALL, END, AuditEvent
from nearcase.audit.key import default_key_file, read_key
from nearcase.audit.trail import AuditTrail, open_trail
from nearcase.audit.verify import verify
from nearcase.clock import SystemClock

HITS = 10
CALLERS = (1, 8, 64)
EACH = 200


def event_of(trail: AuditTrail, number: int) -> AuditEvent:
    named = trail.key.named
    return AuditEvent(
        kind=CALL,
        at_s=time.time(),
        request_id=f"{number:016x}",
        phase=END,
        rpc="v1.SearchService/Search",
        code="OK",
        caller="pacs",
        peer=named("", "peer", "ipv4:10.0.0.1"),
        about=tuple(named("", kind, str(number)) for kind in ("image", "patient", "study", "filter")),
        cases=tuple(named("", "case", f"case {number} {hit}") for hit in range(HITS)),
        patients=tuple(named("", "patient", f"patient {number} {hit}") for hit in range(HITS)),
        count=HITS,
        encoder="efficientnet-lite0 1.0.0 " + "0" * 64,
        library="12345-" + "0" * 32,
    )


async def one_caller(trail: AuditTrail, count: int, taken_ms: list[float]) -> None:
    for number in range(count):
        start_s = time.perf_counter()
        await trail.keep(event_of(trail, number))
        taken_ms.append((time.perf_counter() - start_s) * 1e3)


async def measured(folder: Path, callers: int, rounds: int) -> dict[str, float]:
    trail = open_trail(folder, None, SystemClock())
    trail.start()
    cpu_ms, wall_ms = list[float](), list[float]()
    for _ in range(rounds):
        taken_ms: list[float] = []
        start_s = time.process_time()
        await asyncio.gather(*(one_caller(trail, EACH, taken_ms) for _ in range(callers)))
        cpu_ms.append((time.process_time() - start_s) * 1e3 / len(taken_ms))
        wall_ms.append(statistics.median(taken_ms))
    size = sum(path.stat().st_size for path in folder.glob("*.jsonl")) / trail.chain.records
    await trail.close()
    return {"cpu_ms": statistics.median(cpu_ms), "wall_ms": statistics.median(wall_ms), "bytes": size}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for callers in CALLERS:
            found[str(callers)] = asyncio.run(measured(Path(folder) / str(callers) / "audit", callers, given.rounds))
        place = Path(folder) / str(CALLERS[-1]) / "audit"
        start_s = time.process_time()
        checked = verify(place, read_key(default_key_file(place)))
        per_record_us = (time.process_time() - start_s) / checked.records * 1e6
    if not checked.is_sound:
        print("the trail is not sound", file=sys.stderr)
        return 1
    table = Table("callers at once", "CPU ms a record", "wall ms a record", "bytes", title=f"{HITS} hits a search")
    for name, row in found.items():
        table.add_row(name, f"{row['cpu_ms']:.3f}", f"{row['wall_ms']:.2f}", f"{row['bytes']:.0f}")
    console = Console()
    console.print(table)
    console.print(f"verifying a record: {per_record_us:.0f} µs CPU")
    if given.json:
        given.json.write_text(json.dumps({"records": found, "verify_us": per_record_us}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
