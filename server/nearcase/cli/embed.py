"""nearcase embed: embeddings of files and of words, without a server."""

from __future__ import annotations

import os
from pathlib import Path

import click
import numpy as np

from nearcase.cli.files import find_files
from nearcase.cli.options import encoder_option, frame_option, progress, shown
from nearcase.encode.base import Encoder
from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.encode.inputs import to_batch
from nearcase.encode.runtime import open_encoder
from nearcase.encode.text import open_text
from nearcase.errors import InvalidInput, NearcaseError
from nearcase.prepare import Preparer, prepare_sandbox
from nearcase.report.text import encoder_line


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--text", "texts", multiple=True, help="Words to embed, for an encoder with a text tower; several times.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The .npz file to write.")
@encoder_option
@frame_option
def embed(paths: tuple[Path, ...], texts: tuple[str, ...], out: Path, encoder: Path | None, frame: int | None) -> None:
    """Write the embeddings of files, of all files below folders, and of words to an .npz file.

    Its keys are `ids` (the paths as given, then the words) and `vectors` (float32, one unit vector for each id). Needs
    no server. Files that are refused are named with the reason, the others are written, and the exit code is 2.
    """
    files = list(find_files(paths))
    if not files and not texts:
        raise InvalidInput("found no files to embed")
    folder = encoder or default_encoder_folder()
    card = read_card(folder)
    rows = list(zip(texts, open_text(card).embed_texts(texts), strict=True)) if texts else []
    refused: dict[Path, NearcaseError] = {}
    if files:
        vectors, refused = embed_files(files, open_encoder(folder), frame)
        rows = [(shown(file), vector) for file, vector in vectors.items()] + rows
    for file, error in refused.items():
        click.echo(f"refused {shown(file)}: {error}", err=True)
    if not rows:
        raise InvalidInput("no file could be embedded")
    _write(out, rows)
    click.echo(f"wrote {out}: {len(rows)} vectors of {card.dimension}")
    click.echo(encoder_line(card.summary()))
    if refused:
        raise SystemExit(2)


def embed_files(
    files: list[Path], encoder: Encoder, frame: int | None
) -> tuple[dict[Path, np.ndarray], dict[Path, NearcaseError]]:
    """Returns the vectors by file, and why the others have none."""
    vectors: dict[Path, np.ndarray] = {}
    refused: dict[Path, NearcaseError] = {}
    preparer = Preparer(prepare_sandbox(encoder.card.recipe, workers=1), encoder.card.recipe, workers=1)
    try:
        with progress("embedding", len(files)) as advance:
            for file in files:
                try:
                    pixels = preparer.prepare_now(file.read_bytes(), frame).pixels
                    vectors[file] = encoder.embed(to_batch(pixels[None], encoder.card.recipe))[0]
                except NearcaseError as error:
                    refused[file] = error
                advance()
    finally:
        preparer.close()
    return vectors, refused


def _write(out: Path, rows: list[tuple[str, np.ndarray]]) -> None:
    """Writes beside the target and renames, so that no half file is left."""
    part = out.with_name(out.name + ".part")
    try:
        with part.open("wb") as stream:
            np.savez(stream, ids=np.array([name for name, _ in rows]), vectors=np.stack([row for _, row in rows]))
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
