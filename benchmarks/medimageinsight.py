"""What MedImageInsight costs: the import, an image, and words by their length, on one core of this machine.

The import runs as a user runs it, in a process of its own, whose peak memory is read when it ends. Without a checkpoint
random weights of the published size are written first (2.46 GB), and imported as other weights. Images and texts are
timed in process time, medians, one thread; texts differ in each run, or they would be remembered.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # random weights, as tests make them

from nearcase.encode.card import Card, read_card
from nearcase.encode.onnx_cpu import CpuEncoder
from nearcase.encode.text import OnnxText

TOKENS = (3, 10, 20, 40, 77)  # begin and end included
Row = dict[str, float | str]


def import_row(checkpoint: Path, out: Path, more: list[str]) -> Row:
    command = [sys.executable, "-m", "nearcase_models", "import", "medimageinsight"]
    start = time.perf_counter()
    subprocess.run([*command, "--checkpoint", str(checkpoint), "--out", str(out), *more], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "what": "import, whole",
        "wall s": time.perf_counter() - start,
        "CPU s": used.ru_utime + used.ru_stime,
        "peak GiB": used.ru_maxrss / 2**20,
    }


def folder_row(folder: Path) -> Row:
    sizes = {path.name: path.stat().st_size / 2**30 for path in folder.iterdir()}
    return {"what": "folder on disk", "GiB": sum(sizes.values()), "of which text GiB": sizes.get("text.onnx", 0.0)}


def timed_row(what: str, work: Callable[[int], object], runs: int) -> Row:
    work(runs)
    cpu, wall = [], []
    for run in range(runs):
        start_cpu, start = time.process_time(), time.perf_counter()
        work(run)
        cpu.append(time.process_time() - start_cpu)
        wall.append(time.perf_counter() - start)
    return {"what": what, "wall s": statistics.median(wall), "CPU s": statistics.median(cpu)}


def embed(words: OnnxText, texts: list[str], run: int) -> None:
    words.embed_texts([texts[run]])


def measure(card: Card, runs: int) -> list[Row]:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, *card.recipe.input_shape)).astype(np.float32)
    encoder = CpuEncoder(card.folder)
    rows = [timed_row("one image", lambda run: encoder.embed(image), runs)]
    if card.text:
        words = OnnxText(card)
        for tokens in TOKENS:
            texts = [" ".join([chr(ord("a") + run), *"x" * (tokens - 3)]) for run in range(runs + 1)]
            rows.append(timed_row(f"a text of {tokens} tokens", partial(embed, words, texts), runs))
        rows.append(timed_row("a text asked before", lambda run: words.embed_texts(["1 a a"]), runs))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default random weights of the published size")
    parser.add_argument("--runs", type=int, default=5, choices=range(1, 26), help="of each timing (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, more = Path(name), []
        checkpoint = options.checkpoint
        if checkpoint is None:
            from medimageinsight_files import write_checkpoint

            checkpoint, more = write_checkpoint(folder / "random.safetensors"), ["--allow-other-weights"]
        rows = [import_row(checkpoint, folder / "encoder", more), folder_row(folder / "encoder")]
        rows += measure(read_card(folder / "encoder"), options.runs)
    for row in rows:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float))
        print(f"{row['what']:24} {figures}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
