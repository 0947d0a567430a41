"""The library side by side: nearcase through gRPC, its engine alone, hnswlib, faiss and NumPy; one data set, one run.

100,000 clustered embeddings of 1024 numbers; recall@10 and CPU time of a search without a filter and under filters that
keep 10 %, 3 % (two fields) and 1 %; memory, disk and CPU time of the build. CPU time is what two runs on a busy machine
agree on. Linux only. `--quick` takes 6,000 embeddings of 128 numbers, which shows that it runs and nothing more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the encoder that tests make on the spot

from tiny_encoders import tiny_encoder
from vectors.made import FILTERS, make
from vectors.peers import PEERS, Measured, Row
from vectors.served import Cost, Served, fill, measure
from vectors.tables import markdown, put, verdict

HERE = Path(__file__).parent
ENGINE = "engine alone"
LEAST_RECALL, LEAST_GAIN, LEAST_SHARE, MOST_ANONYMOUS_MIB, MOST_REOPENING_S = 0.99, 10.0, 0.8, 400.0, 5.0
WITHOUT = "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small data set")
    parser.add_argument("--rows", type=int, default=100_000, help="embeddings (default 100,000)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here, and use what an earlier run left")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--docs", action="store_true", help="also write the tables into docs/performance.md")
    options = parser.parse_args()
    rows, dimension = (6_000, 128) if options.quick else (options.rows, 1024)
    with tempfile.TemporaryDirectory(prefix="nearcase-library-") as temporary:
        folder = options.keep or Path(temporary)
        served, others = run(folder, rows, dimension)
    text, is_met = report(served, others, rows, dimension)
    print(text)
    if options.json:
        figures = {"nearcase": asdict(served), "others": [asdict(each) for each in others]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    if options.docs:
        put("library", text)
    if not is_met and not options.quick:
        raise SystemExit(1)


def run(folder: Path, rows: int, dimension: int) -> tuple[Served, list[Measured]]:
    """Measures all engines, one after the other; each has a process of its own."""
    made_at, data, encoder = folder / f"made-{rows}", folder / f"data-{rows}", folder / f"encoder-{dimension}"
    made = make(made_at, rows=rows, dimension=dimension, queries=200)
    if not encoder.exists():
        tiny_encoder(encoder, "made", seed=0, dimension=dimension)
    kept = folder / f"build-{rows}.json"
    if not kept.exists():
        kept.write_text(json.dumps(fill(data, encoder, made_at)))
    served = measure(data, encoder, made, json.loads(kept.read_text()))
    engine = _apart("vectors.engine", str(data / "library"), str(made_at))
    return served, [engine, *(_apart("vectors.peers", name, str(made_at)) for name in PEERS)]


def _apart(module: str, *arguments: str) -> Measured:
    """Graphs run in one thread, and NumPy as it comes: its products use every core."""
    threads = {} if "NumPy exact" in arguments else {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=HERE, env=os.environ | threads, check=True, stdout=subprocess.PIPE, text=True)
    stated = json.loads(done.stdout.splitlines()[-1])
    return Measured(**stated | {"rows": tuple(Row(**row) for row in stated["rows"])})


def report(served: Served, others: list[Measured], rows: int, dimension: int) -> tuple[str, bool]:
    """The tables, what each claim comes to, and whether all are met."""
    by_name = {each.engine: each for each in [served.measured, *others]}
    claims = judged(served, by_name)
    head = (
        f"{rows:,} x {dimension}, 200 queries, {platform.machine()}, {os.cpu_count()} cores; "
        f"nearcase's index: {', '.join(served.parts)}."
    )
    floor = (
        f"A gRPC server that reads the same messages and does nothing takes {served.empty_call_ms:.2f} ms of CPU; "
        f"the engine and it together are {_floor(served, by_name):.0%} of our CPU without a filter."
    )
    parts = [head, _searches(by_name), _sizes(by_name), _shares(served, by_name), floor, _listed(claims)]
    return "\n\n".join(parts), all(is_met for is_met, _ in claims)


def _floor(served: Served, by_name: dict[str, Measured]) -> float:
    """How much of a search no server that is asked over gRPC could leave out."""
    least_ms = _of(by_name[ENGINE], WITHOUT).cpu_ms + served.empty_call_ms
    return least_ms / _of(served.measured, WITHOUT).cpu_ms


def _searches(by_name: dict[str, Measured]) -> str:
    header = ["recall@10, CPU ms of a search", *(f"filter {name}" for name in FILTERS)]
    lines = []
    for each in by_name.values():
        cells = [
            f"{row.recall:.3f}, {row.cpu_ms:.2f}" + (f" (ef {row.effort})" if row.effort else "") for row in each.rows
        ]
        lines.append([each.engine, *cells])
    return markdown(header, lines)


def _sizes(by_name: dict[str, Measured]) -> str:
    header = ["", "memory MiB, anonymous", "mapped files", "disk MiB", "build CPU s"]
    return markdown(
        header,
        [
            [
                each.engine,
                f"{each.anonymous_mib:.0f}",
                f"{each.file_mib:.0f}",
                f"{each.disk_mib:.0f}",
                f"{each.build_cpu_s:.0f}" if each.build_cpu_s else "-",
            ]
            for each in by_name.values()
        ],
    )


def _shares(served: Served, by_name: dict[str, Measured]) -> str:
    alone = {row.filter: row.cpu_ms for row in by_name[ENGINE].rows}
    every = Cost("one of each", sum(c.server_ms for c in served.costs), sum(c.index_ms for c in served.costs))
    alone[every.filter] = sum(alone[cost.filter] for cost in served.costs)
    return markdown(
        ["filter, CPU ms of a search", "server process", "index process", "engine alone", "its share"],
        [
            [
                cost.filter,
                f"{cost.server_ms:.2f}",
                f"{cost.index_ms:.2f}",
                f"{alone[cost.filter]:.2f}",
                f"{alone[cost.filter] / (cost.server_ms + cost.index_ms):.0%}",
            ]
            for cost in (*served.costs, every)
        ],
    )


def judged(served: Served, by_name: dict[str, Measured]) -> list[tuple[bool, str]]:
    """Each claim, and whether it is met."""
    ours, numpy, engine = served.measured, by_name["NumPy exact"], by_name[ENGINE]
    least = min(row.recall for row in ours.rows)
    gain = _of(numpy, WITHOUT).cpu_ms / _of(ours, WITHOUT).cpu_ms
    share = _of(engine, WITHOUT).cpu_ms / _of(ours, WITHOUT).cpu_ms
    return [
        (least >= LEAST_RECALL, f"recall@10 is at least {LEAST_RECALL} in every row: {least:.3f}"),
        (gain >= LEAST_GAIN, f"at least {LEAST_GAIN:.0f} times less CPU than NumPy exact without a filter: {gain:.1f}"),
        (
            share >= LEAST_SHARE,
            f"the engine alone takes at least {LEAST_SHARE:.0%} of our CPU, no filter: {share:.0%}",
        ),
        (
            ours.anonymous_mib <= MOST_ANONYMOUS_MIB,
            f"the index process holds at most {MOST_ANONYMOUS_MIB:.0f} MiB anonymous: {ours.anonymous_mib:.0f}",
        ),
        (
            served.reopened_s <= MOST_REOPENING_S,
            f"after kill -9 the server answers within {MOST_REOPENING_S:.0f} s: {served.reopened_s:.1f}",
        ),
    ]


def _of(measured: Measured, name: str) -> Row:
    return next(row for row in measured.rows if row.filter == name)


def _listed(claims: list[tuple[bool, str]]) -> str:
    return "\n".join(f"- {verdict(is_met, claim)}" for is_met, claim in claims)


if __name__ == "__main__":
    main()
