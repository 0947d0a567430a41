"""Mutates valid and hostile files for as long as one likes, and reads each as the server does: in a sandbox.

    python tests/fuzz_intake.py --minutes 10

Every file must end in a picture or in one typed line within the limits. What does not is written to a folder, the
counts are printed, and the exit code is 1. The same seed makes the same files. Not a part of the test suite.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import PIL.Image
import pydicom
from dicom_files import CANARY, dicom_file
from films import film
from hostile import HOSTILE
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless

from nearcase.encode.preprocess import Recipe
from nearcase.errors import InvalidInput, NearcaseError, Unsupported
from nearcase.intake.burned_in import KEEP_TEXT
from nearcase.intake.sandbox import Sandbox
from nearcase.prepare import prepare_job

LARGEST_SEED_BYTES = 400_000
RECIPE = Recipe("stretch", 1, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # small, so that many files take the fast path
OPTIONS: dict[str, Any] = {
    "frame_number": None,
    "recipe": dataclasses.asdict(RECIPE),
    "text_policy": dataclasses.asdict(KEEP_TEXT),
}
EXTREMES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


@dataclass
class Findings:
    """What a run has seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_bytes: int = 0
    bad: int = 0


def seeds() -> list[bytes]:
    """Real files of every coding, made ones that are decoded reduced, and the hostile ones."""
    roots = [Path(pydicom.__file__).parent / "data"]
    more = importlib.util.find_spec("data_store")
    roots += [Path(folder) for folder in (more.submodule_search_locations or [] if more else [])]
    paths = [path for root in roots for path in sorted(root.rglob("*")) if path.is_file() and path.suffix == ".dcm"]
    real = [path.read_bytes() for path in paths if path.stat().st_size <= LARGEST_SEED_BYTES]
    hostile = [data for data in (make() for make in HOSTILE.values()) if len(data) <= LARGEST_SEED_BYTES]
    return real + hostile + made()


def made() -> list[bytes]:
    """A film in wavelets, which is halved, and plain pictures."""
    pixels = film(1, 600, 560)
    stated: dict[str, Any] = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
    frame = bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", bitspersample=12, reversible=True))
    fast = bytes(imagecodecs.htj2k_encode(pixels, reversible=True))
    grey = PIL.Image.fromarray((pixels >> 4).astype("u1"))
    return [
        dicom_file(pixels, syntax=JPEG2000Lossless, compressed=[frame], **stated),
        dicom_file(pixels, syntax=HTJ2KLossless, compressed=[fast], **stated),
        *(encoded(picture, kind) for picture in (grey, grey.convert("RGB")) for kind in ("PNG", "JPEG")),
    ]


def encoded(picture: PIL.Image.Image, kind: str) -> bytes:
    """Returns the bytes of a plain picture."""
    out = BytesIO()
    picture.save(out, kind)
    return out.getvalue()


# Mutations: each takes the bytes and changes them in place.


def flip(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    """Changes single bytes, most of them in the header."""
    start = chance.choice((0, 132, len(data) // 2))
    for _number in range(chance.randint(1, 16)):
        at = chance.randrange(min(start, len(data) - 1), len(data))
        data[at] = chance.choice((*EXTREMES, chance.randrange(256), data[at] ^ 1 << chance.randrange(8)))


def length(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    """Writes an extreme 16 or 32-bit number over an even place, where lengths and counts are."""
    width = chance.choice((2, 4))
    value = chance.choice((0, 1, 2, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, len(data)))
    at = chance.randrange(0, max(min(len(data), 4000) - 4, 1)) & ~1
    data[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")


def cut(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    """Takes away the end, or a piece."""
    at = chance.randrange(len(data))
    del data[at : len(data) if chance.random() < 0.5 else at + chance.randint(1, 64)]


def repeat(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    """Puts a piece in a second time, or very often."""
    at = chance.randrange(len(data))
    piece = bytes(data[at : at + chance.randint(1, 200)])
    data[at:at] = piece * chance.choice((1, 1, 2, 50))


def splice(data: bytearray, chance: random.Random, others: list[bytes]) -> None:
    """Goes on with another file."""
    other = chance.choice(others)
    data[chance.randrange(len(data)) :] = other[chance.randrange(len(other) or 1) :]


MUTATIONS: tuple[Callable[[bytearray, random.Random, list[bytes]], None], ...] = (
    flip,
    flip,
    length,
    cut,
    repeat,
    splice,
)


def mutated(originals: list[bytes], chance: random.Random) -> bytes:
    """Returns one file with one to four mutations."""
    data = bytearray(chance.choice(originals))
    for _ in range(chance.randint(1, 4)):
        if data:
            chance.choice(MUTATIONS)(data, chance, originals)
    return bytes(data)


def read(sandbox: Sandbox, data: bytes, seen: Findings) -> str:
    """Returns what is wrong with how this file ended; an empty string when nothing is."""
    start = time.monotonic()
    wrong = ""
    try:
        _, blobs = sandbox.run(data, OPTIONS)
        seen.outcomes["picture"] += 1
        if len(blobs[0]) != 3 * RECIPE.size_px**2:
            wrong = "a picture of another size"
    except (InvalidInput, Unsupported) as error:
        seen.outcomes[error.reason] += 1
        if CANARY in str(error) or not str(error).isprintable():
            wrong = f"patient data or control characters in {error.reason}"
        if error.reason == "DECODE_CRASH":
            wrong = "a decoder crashed"  # the sandbox did its work; the codec has a fault
    except NearcaseError as error:
        seen.outcomes[error.reason] += 1
        wrong = str(error)
    seen.slowest_s = max(seen.slowest_s, time.monotonic() - start)
    return wrong


def peak_bytes(sandbox: Sandbox) -> int:
    """Returns the largest resident size that a living child has had."""
    peaks = [0]
    for pid in sandbox.pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        peaks += [int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(peaks)


def main() -> None:
    """Fuzzes, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (default 1)")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder for files that end badly")
    options = parser.parse_args()
    originals, chance, seen = seeds(), random.Random(options.seed), Findings()
    end = time.monotonic() + 60 * options.minutes
    with Sandbox(prepare_job, workers=1, jobs_per_worker=500) as sandbox:
        while time.monotonic() < end:
            data = mutated(originals, chance)
            wrong = read(sandbox, data, seen)
            seen.peak_bytes = max(seen.peak_bytes, peak_bytes(sandbox))
            if wrong:
                seen.bad += 1
                options.out.mkdir(exist_ok=True)
                (options.out / f"{options.seed}-{sum(seen.outcomes.values())}.bin").write_bytes(data)
                print(f"file {sum(seen.outcomes.values())}: {wrong}", flush=True)
    total = sum(seen.outcomes.values())
    print(f"{total} files from {len(originals)} originals, seed {options.seed}: {seen.bad} ended badly")
    print(f"slowest {seen.slowest_s:.1f} s, largest child {seen.peak_bytes >> 20} MiB")
    print(", ".join(f"{count} {outcome}" for outcome, count in seen.outcomes.most_common()))
    raise SystemExit(1 if seen.bad else 0)


if __name__ == "__main__":
    main()
