"""Mixed load on a server of this machine for ten minutes, with an overload in it; arrivals do not wait for answers.

How much it can do is measured first, by callers that each wait for their answer. Then searches come at a tenth of that
alone ("unloaded"), at half of it with bad requests and pictures to add ("normal"), at ten times of it ("overload"), and
at half again ("after"). The generator is a process of its own, on the same cores: what it takes the server lacks.
Linux only; it sends to 127.0.0.1 and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from traffic.generator import Outcomes, Phase
from traffic.measured import Row, Watch, recovered_s, row_of, thirds
from traffic.mix import FILES
from vectors.tables import markdown, put, verdict

from nearcase.client import Client
from nearcase.demo.server import running_server

WARM_S, CAPACITY_S, CALLERS = 5.0, 20.0, 6
SHARES = {"unloaded": 0.2, "normal": 0.3, "overload": 0.25, "after": 0.25}
RATES = {"unloaded": 0.1, "normal": 0.5, "overload": 10.0, "after": 0.5}
BAD_SHARE, ADDS_SHARE = 0.05, 0.05
MOST_TIMES, RECOVERS_S, FLAT = 3.0, 10.0, 0.10
LATE_MS = 100.0
"""A generator that is later than this did not send what the table says."""


@dataclass(frozen=True, slots=True)
class Run:
    """All that was measured."""

    capacity_per_s: float
    rows: list[Row]
    recovery_s: float
    memory_mib: list[float]  # by thirds
    peak_mib: float
    not_ready: int  # seconds in which health did not say SERVING
    acknowledged: int
    stored: int


class Sender:
    """The generator's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, phase: Phase) -> tuple[Row, Outcomes]:
        """Has it run one phase."""
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("expected a process with pipes")
        self._process.stdin.write(json.dumps(asdict(phase)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or sys.exit("the generator ended"))
        share = answer.pop("cpu_share")
        outcomes = Outcomes(**answer)
        row = row_of(phase, outcomes, share)
        print(" | ".join(cells(row)), flush=True)
        return row, outcomes


@contextmanager
def sender(address: str) -> Iterator[Sender]:
    command = [sys.executable, "-m", "traffic.generator", address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=Path(__file__).parent, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Sender(process)
        finally:
            process.kill()


def measure(minutes: float) -> Run:
    """One server, one generator, all phases."""
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "data") as server:
        with sender(server.address) as generator:
            generator.run(Phase("warm", WARM_S, at_once=CALLERS))
            capacity, _ = generator.run(Phase("capacity", CAPACITY_S, at_once=CALLERS))
            rows, outcomes = [], {}
            watch = Watch(server.process.pid, server.address)
            try:
                for phase in phases(minutes, capacity.answered_per_s):
                    row, outcomes[phase.name] = generator.run(phase)
                    rows.append(row)
            finally:
                watch.stop()
        with Client(server.address) as client:
            stored = client.statistics().case_count
    normal = next(row for row in rows if row.name == "normal")
    after = next(row for row in rows if row.name == "after")
    return Run(
        capacity_per_s=capacity.answered_per_s,
        rows=rows,
        recovery_s=recovered_s(outcomes["after"], max(2 * normal.p50_ms, normal.p99_ms), after.seconds),
        memory_mib=thirds(watch.memory_mib),
        peak_mib=max(watch.memory_mib),
        not_ready=watch.not_ready,
        acknowledged=sum(row.added for row in rows),
        stored=stored,
    )


def phases(minutes: float, capacity_per_s: float) -> list[Phase]:
    """The parts of the run; pictures are added at one rate from "normal" on."""
    made = []
    for number, (name, share) in enumerate(SHARES.items()):
        per_s, is_alone = RATES[name] * capacity_per_s, name == "unloaded"
        made.append(
            Phase(
                name=name,
                seconds=round(60 * minutes * share),
                searches_per_s=per_s,
                bad_per_s=0.0 if is_alone else BAD_SHARE * per_s,
                adds_per_s=0.0 if is_alone else ADDS_SHARE * capacity_per_s,
                seed=number,
            )
        )
    return made


def claims(run: Run) -> list[tuple[bool, str]]:
    """What has to hold, and whether it does."""
    rows = {row.name: row for row in run.rows}
    times = rows["overload"].p99_ms / rows["unloaded"].p99_ms
    wrong = {name: count for row in run.rows for name, count in row.unannounced.items()}
    change = run.memory_mib[2] / run.memory_mib[1] - 1
    late_ms = max(row.late_p99_ms for row in run.rows)
    return [
        (not wrong, f"no error that is not an announced refusal: {wrong or 'none'}"),
        (times <= MOST_TIMES, f"p99 of admitted searches in the overload within {MOST_TIMES:g} times: {times:.1f}"),
        (run.recovery_s <= RECOVERS_S, f"normal again within {RECOVERS_S:g} s of the overload: {run.recovery_s:.0f} s"),
        (abs(change) <= FLAT, f"memory of the last third within {FLAT:.0%} of the middle third: {change:+.1%}"),
        (run.stored == run.acknowledged, f"{run.acknowledged} cases acknowledged, {run.stored} stored"),
        (run.not_ready == 0, f"health said SERVING all the time: not in {run.not_ready} s"),
        (late_ms <= LATE_MS, f"the generator kept its times: 99 % within {late_ms:.0f} ms"),
    ]


TITLES = (
    "phase",
    "s",
    "asked/s",
    "answered/s",
    "refused",
    "p50 ms",
    "p99 ms",
    "refusal p50 ms",
    "late p99 ms",
    "added",
)


def cells(row: Row) -> list[str]:
    """One line of the table."""
    numbers = (row.asked_per_s, row.answered_per_s)
    return [
        row.name,
        f"{row.seconds:.0f}",
        *(f"{number:.1f}" for number in numbers),
        f"{row.refused_share:.1%}",
        *(f"{number:.0f}" for number in (row.p50_ms, row.p99_ms, row.refusal_p50_ms, row.late_p99_ms)),
        str(row.added),
    ]


def report(run: Run) -> tuple[str, bool]:
    """The text, and whether all claims hold."""
    found = claims(run)
    first, middle, last = run.memory_mib
    head = (
        f"{len(FILES)} real files of 38 KiB to 5.9 MiB in turn, default encoder on a CPU, {os.cpu_count()} cores for "
        f"server and generator together; capacity {run.capacity_per_s:.1f} searches a second. Memory by thirds: "
        f"{first:.0f}, {middle:.0f}, {last:.0f} MiB, {run.peak_mib:.0f} at most."
    )
    table = markdown(TITLES, [cells(row) for row in run.rows])
    lines = "\n".join(f"- {verdict(holds, claim)}" for holds, claim in found)
    return f"{head}\n\n{table}\n\n{lines}", all(holds for holds, _ in found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all phases together, 1 to 60 (default 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--docs", action="store_true", help="also write the table into docs/performance.md")
    options = parser.parse_args()
    if not 1 <= options.minutes <= 60:
        parser.error("expected 1 to 60 minutes")
    run = measure(options.minutes)
    text, is_met = report(run)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(asdict(run), indent=2) + "\n", "utf-8")
    if options.docs:
        put("load", text)
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
