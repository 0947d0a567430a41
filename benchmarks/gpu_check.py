"""Builds, gates and times every runtime of an encoder on this machine's GPU; `make gpu-check` runs it.

What can not be had is said with its reason, never left out and never replaced by another runtime. nearcase's authors
had no GPU when they wrote this: a first run on yours is the first run on hardware.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nearcase.encode.base import Encoder
from nearcase.encode.buckets import BUCKETS
from nearcase.encode.card import default_encoder_folder
from nearcase.encode.cuda_memory import CudaRuntime
from nearcase.encode.golden import verify_golden
from nearcase.encode.runtime import RuntimeChoice, open_encoder
from nearcase.errors import Unready
from nearcase_models.engine import build_engine

RUNS = 30


@dataclass(frozen=True, slots=True)
class Row:
    """One runtime; without times where it can not be had."""

    runtime: str
    says: str  # what it is, or why not
    cosine: float | None = None  # least, with the golden embeddings
    ms: tuple[float, ...] = ()  # median wall time of a call, by batch size


def check(name: str, folder: Path, engines: Path, *, graphs: bool) -> Row:
    """Opens, gates and times one runtime."""
    title = f"{name}, graphs" if graphs else name
    try:
        if name == "tensorrt" and not any(engines.glob("*.engine")):
            print("building the TensorRT engine: minutes ...", file=sys.stderr)
            build_engine(folder, engines, CudaRuntime(), say=lambda line: print(line, file=sys.stderr))
        encoder = open_encoder(folder, RuntimeChoice(name, graphs=graphs, engines=engines))
    except Unready as error:
        return Row(title, f"not obtained: {error}")
    return Row(title, encoder.runtime, verify_golden(encoder), tuple(_time(encoder, size) for size in BUCKETS))


def _time(encoder: Encoder, size: int) -> float:
    shape = (size, *encoder.card.recipe.input_shape)
    batch = np.random.default_rng(size).normal(size=shape).astype(np.float32)
    taken = []
    for _ in range(RUNS):
        start_s = time.perf_counter()
        encoder.embed(batch)
        taken.append((time.perf_counter() - start_s) * 1e3)
    return statistics.median(taken[RUNS // 3 :])


def show(row: Row) -> None:
    times = " ".join(f"{ms:8.2f}" for ms in row.ms)
    cosine = "" if row.cosine is None else f"{row.cosine:.6f}"
    print(f"{row.runtime:18} {cosine:9} {times}  {row.says}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, default=default_encoder_folder(), help="folder of the encoder")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    titles = " ".join(f"n={size} ms".rjust(8) for size in BUCKETS)
    print(f"{'runtime':18} {'cosine':9} {titles}")
    rows = []
    with tempfile.TemporaryDirectory() as engines:
        for name, graphs in (("cpu", False), ("cuda", False), ("cuda", True), ("tensorrt", False), ("tensorrt", True)):
            rows.append(check(name, options.encoder, Path(engines), graphs=graphs))
            show(rows[-1])
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0 if any(row.ms for row in rows if row.runtime != "cpu") else 1


if __name__ == "__main__":
    sys.exit(main())
