"""nearcase embed: embeddings of files, without a server."""

from __future__ import annotations

import os
from pathlib import Path

import click
import numpy as np

from nearcase.cli.add import find_files
from nearcase.cli.options import encoder_option, frame_option, progress, shown
from nearcase.encode.base import Encoder
from nearcase.encode.card import default_encoder_folder
from nearcase.encode.preprocess import normalise
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput, NearcaseError
from nearcase.intake.sandbox import Sandbox
from nearcase.prepare import Preparer, prepare_job
from nearcase.report.text import encoder_line


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The .npz file to write.")
@encoder_option
@frame_option
def embed(paths: tuple[Path, ...], out: Path, encoder: Path | None, frame: int | None) -> None:
    """Write the embeddings of files, and of all files below folders, to an .npz file.

    Its keys are `ids` (the paths as given) and `vectors` (float32, one unit vector for each id). Needs no server. Files
    that are refused are named with the reason, the others are written, and the exit code is 2.
    """
    files = list(find_files(paths))
    if not files:
        raise InvalidInput("found no files to embed")
    loaded = open_encoder(encoder or default_encoder_folder())
    vectors, refused = embed_files(files, loaded, frame)
    for file, error in refused.items():
        click.echo(f"refused {shown(file)}: {error}", err=True)
    if not vectors:
        raise InvalidInput("no file could be embedded")
    _write(out, vectors)
    click.echo(f"wrote {out}: {len(vectors)} vectors of {loaded.card.dimension}")
    click.echo(encoder_line(loaded.card.summary(loaded.runtime)))
    if refused:
        raise SystemExit(2)


def embed_files(
    files: list[Path], encoder: Encoder, frame: int | None
) -> tuple[dict[Path, np.ndarray], dict[Path, NearcaseError]]:
    """Returns the vectors by file, and why the others have none."""
    vectors: dict[Path, np.ndarray] = {}
    refused: dict[Path, NearcaseError] = {}
    preparer = Preparer(Sandbox(prepare_job, workers=1), encoder.card.recipe, workers=1)
    try:
        with progress("embedding", len(files)) as advance:
            for file in files:
                try:
                    pixels = preparer.prepare_now(file.read_bytes(), frame).pixels
                    vectors[file] = encoder.embed(normalise(pixels[None], encoder.card.recipe))[0]
                except NearcaseError as error:
                    refused[file] = error
                advance()
    finally:
        preparer.close()
    return vectors, refused


def _write(out: Path, vectors: dict[Path, np.ndarray]) -> None:
    """Writes beside the target and renames, so that no half file is left."""
    part = out.with_name(out.name + ".part")
    try:
        with part.open("wb") as stream:
            np.savez(stream, ids=np.array([shown(file) for file in vectors]), vectors=np.stack(list(vectors.values())))
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
