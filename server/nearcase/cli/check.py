"""nearcase check: does this installation work, and does a server answer."""

from __future__ import annotations

import asyncio
import io
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from PIL import Image as PillowImage
from rich.table import Table

from nearcase import __version__
from nearcase.cli.library_recall import LEAST, conclusion
from nearcase.cli.options import client_of, connection_options, console, encoder_option, print_json
from nearcase.encode.card import default_encoder_folder
from nearcase.encode.inputs import to_batch
from nearcase.encode.runtime import open_encoder
from nearcase.encode.volume import VolumeRecipe
from nearcase.errors import NearcaseError, Unready
from nearcase.index.base import Point
from nearcase.index.opening import open_index
from nearcase.prepare import Preparer, prepare_sandbox
from nearcase.settings_file import read_settings


@click.command()
@encoder_option
@click.option("--server", envvar="NEARCASE_SERVER", metavar="HOST:PORT", help="Also ask this server.")
@connection_options
@click.option("--health", metavar="HOST:PORT", help="Only ask this address whether each service is ready.")
@click.option(
    "--settings",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Only check this TOML file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def check(encoder: Path | None, server: str | None, health: str | None, file: Path | None, as_json: bool) -> None:
    """Check that the encoder reproduces its golden embeddings, that files are decoded in child processes, that the
    index stores and finds, and, with --server, that a server answers, that its library is whole and that searches find
    what exact ones do. Exit code 1 if anything fails.

    --health asks a server's health_listen address, which needs no token and no certificate, and does nothing else.
    --settings asks of a settings file, and of the callers file that it names, what a server of this version asks before
    it opens anything else: keys, certificates, secrets, findings and the encoder are not read.
    """
    steps: dict[str, Callable[[], str]] = {
        "encoder": lambda: check_encoder(encoder or default_encoder_folder()),
        "path": lambda: check_path(encoder or default_encoder_folder()),
    }
    if health:
        steps = {"health": lambda: check_health(health)}
    elif file:
        steps = {"settings": lambda: check_settings(file)}
    elif server:
        steps["server"] = lambda: check_server(server)
        steps["library"] = lambda: check_library(server)
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
    recipe = loaded.card.recipe
    preparer = Preparer(prepare_sandbox(recipe, workers=1), recipe, workers=1)
    try:
        sample = _volume() if isinstance(recipe, VolumeRecipe) else _picture()
        pixels = preparer.prepare_now(sample).pixels
    finally:
        preparer.close()
    vector = loaded.embed(to_batch(pixels[None], recipe))[0]
    similarity = asyncio.run(_store_and_find(vector, loaded.card.identity))
    return f"a sample was decoded, embedded, stored and found again at similarity {similarity:.4f}"


def _picture() -> bytes:
    """A PNG of a ramp."""
    out = io.BytesIO()
    ramp = np.arange(256 * 256, dtype=np.uint32).view(np.uint8)[: 256 * 256].reshape(256, 256)
    PillowImage.fromarray(ramp).save(out, "PNG")
    return out.getvalue()


def _volume() -> bytes:
    """A NIfTI-1 file of a ramp in Hounsfield units; offsets are those of nifti1.h."""
    header = bytearray(352)
    parts: tuple[tuple[int, str, tuple[float, ...]], ...] = (
        (0, "i", (348,)),
        (40, "8h", (3, 16, 16, 16, 1, 1, 1, 1)),
        (70, "2h", (4, 16)),
        (76, "8f", (1.0,) * 8),
        (108, "f", (352.0,)),
        (254, "h", (1,)),
        (280, "12f", (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)),
    )
    for place, code, values in parts:
        struct.pack_into(f"<{code}", header, place, *values)
    header[344:348] = b"n+1\0"
    return bytes(header) + np.arange(-900, 16**3 - 900, dtype="<i2").tobytes()


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
    with client_of(address, timeout_s=10) as client:
        statistics = client.statistics()
    return f"{address} answers: {statistics.case_count} cases, encoder {statistics.encoder.name}"


def check_health(address: str) -> str:
    """Asks the port for probes of a server.

    Raises:
        Unready: Nobody answers there within 10 s, or a service is not ready; the message names it.
    """
    from nearcase.serve.probes import ask

    told = ask(address, timeout_s=10)
    if waiting := [name for name, is_ready in told.items() if not is_ready]:
        raise Unready(f"{address} answers, but not ready: {', '.join(waiting)}")
    return f"{address} answers, and {len(told)} services are ready"


def check_settings(file: Path) -> str:
    """Asks of a settings file, and of the callers file that it names, what a server asks before it opens anything else.

    Raises:
        InvalidInput: A server of this version would refuse one of them.
    """
    from nearcase.serve.security import read_plan

    settings = read_settings(file)
    plan, names = read_plan(settings), [each.name for each in (file, settings.callers) if each]
    return f"{' and '.join(names)} can be read by nearcase {__version__}; {plan.says}"


def check_library(address: str) -> str:
    """Asks a server whether its library is whole, and whether searches find what they should.

    Raises:
        Unready: A part of the index is damaged, or the last check of recall was low; the server goes on serving.
    """
    with client_of(address, timeout_s=10) as client:
        statistics = client.statistics()
    if statistics.damaged_parts:
        raise Unready(f"parts of the index are damaged: {', '.join(statistics.damaged_parts)}; the others are served")
    if statistics.recall is None:
        return "recall was not checked yet; `nearcase library recall-check` does it now"
    if statistics.recall.worst < LEAST:
        raise Unready(conclusion(statistics.recall))
    return conclusion(statistics.recall)
