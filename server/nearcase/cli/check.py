"""nearcase check: does this installation work, and does a server answer."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from PIL import Image as PillowImage
from rich.table import Table

from nearcase.cli.options import console, encoder_option, print_json
from nearcase.client import Client
from nearcase.encode.card import default_encoder_folder
from nearcase.encode.preprocess import normalise
from nearcase.encode.runtime import open_encoder
from nearcase.errors import NearcaseError
from nearcase.index.base import Point
from nearcase.index.opening import open_index
from nearcase.intake.sandbox import Sandbox
from nearcase.prepare import Preparer, prepare_job


@click.command()
@encoder_option
@click.option("--server", envvar="NEARCASE_SERVER", metavar="HOST:PORT", help="Also ask this server.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def check(encoder: Path | None, server: str | None, as_json: bool) -> None:
    """Check that the encoder reproduces its golden embeddings, that files are decoded in child processes, that the
    index stores and finds, and, with --server, that a server answers. Exit code 1 if anything fails.
    """
    steps: dict[str, Callable[[], str]] = {
        "encoder": lambda: check_encoder(encoder or default_encoder_folder()),
        "path": lambda: check_path(encoder or default_encoder_folder()),
    }
    if server:
        steps["server"] = lambda: check_server(server)
    results = {name: attempt(step) for name, step in steps.items()}
    if as_json:
        print_json({name: {"ok": ok, "message": text} for name, (ok, text) in results.items()})
    else:
        table = Table("part", "state", "message", box=None, pad_edge=False)
        for name, (ok, text) in results.items():
            table.add_row(name, "ok" if ok else "FAILED", text.replace("[", "\\["))
        console().print(table)
    if not all(ok for ok, _ in results.values()):
        raise SystemExit(1)


def attempt(step: Callable[[], str]) -> tuple[bool, str]:
    """Returns whether a step worked, and its message."""
    try:
        return True, step()
    except NearcaseError as error:
        return False, str(error)


def check_encoder(folder: Path) -> str:
    """Loads the encoder, which verifies its hash and golden embeddings."""
    loaded = open_encoder(folder)
    return f"{loaded.card.name} {loaded.card.version} on {loaded.runtime}. {loaded.card.statement}"


def check_path(folder: Path) -> str:
    """Takes one picture through decoding, embedding, storing and finding."""
    loaded = open_encoder(folder)
    picture = io.BytesIO()
    PillowImage.fromarray(np.arange(256 * 256, dtype=np.uint32).view(np.uint8)[: 256 * 256].reshape(256, 256)).save(
        picture, "PNG"
    )
    preparer = Preparer(Sandbox(prepare_job, workers=1), loaded.card.recipe, workers=1)
    try:
        pixels = preparer.prepare_now(picture.getvalue()).pixels
    finally:
        preparer.close()
    vector = loaded.embed(normalise(pixels[None], loaded.card.recipe))[0]
    similarity = asyncio.run(_store_and_find(vector, loaded.card.identity))
    return f"a picture was decoded, embedded, stored and found again at similarity {similarity:.4f}"


async def _store_and_find(vector: np.ndarray, identity: str) -> float:
    with tempfile.TemporaryDirectory(prefix="nearcase-check-") as folder:
        index = await open_index(Path(folder) / "library", dimension=len(vector), encoder_identity=identity)
        try:
            await index.upsert([Point("6f1a3c52-3c1e-4b7e-9a55-000000000001", vector, {"modality": "OT"})])
            return (await index.search(vector, limit=1))[0].similarity
        finally:
            await index.close()


def check_server(address: str) -> str:
    """Asks a server what it holds."""
    with Client(address, timeout_s=10) as client:
        statistics = client.statistics()
    return f"{address} answers: {statistics.case_count} cases, encoder {statistics.encoder.name}"
