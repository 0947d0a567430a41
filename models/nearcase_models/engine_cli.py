"""nearcase-models engine: TensorRT engines, built on the GPU that will run them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from nearcase.cli.options import json_option, print_json
from nearcase.encode.buckets import BUCKETS
from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.encode.cuda_memory import CudaRuntime
from nearcase.encode.engine_files import EngineKey, listed, read_engine
from nearcase.encode.tensorrt_encoder import engine_key, import_tensorrt
from nearcase.errors import Unready
from nearcase_models.engine import build_engine


@click.group("engine")
def engine_group() -> None:
    """TensorRT engines: built once for each encoder, GPU and version of TensorRT."""


@engine_group.command()
@click.option(
    "--encoder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of an encoder; default the general-purpose one that nearcase ships.",
)
@click.option("--engines", required=True, type=click.Path(path_type=Path), help="Folder where engines are kept.")
@click.option("--gpu", type=click.IntRange(0), default=0, show_default=True, help="Which GPU.")
@click.option("--force", is_flag=True, help="Build even where a sound engine is there.")
@json_option
def build(encoder: Path | None, engines: Path, gpu: int, force: bool, as_json: bool) -> None:
    """Build the engine of an encoder for this machine's GPU; takes minutes.

    It is kept only if it gives the golden embeddings. Where a sound engine of this encoder, GPU and TensorRT is in the
    folder, nothing is done: the command may stand before every start of a server. `nearcase serve` takes the folder
    from its setting `engines`.
    """
    folder = encoder or default_encoder_folder()
    tensorrt, memory = import_tensorrt(), CudaRuntime(gpu)
    if not force and _is_there(engines, engine_key(read_card(folder), tensorrt, memory, BUCKETS)):
        cosine: float | None = None
    else:
        cosine = build_engine(folder, engines, memory, buckets=BUCKETS, say=partial(click.echo, err=True)).cosine
    if as_json:
        print_json({"built": cosine is not None, "cosine": cosine})
    elif cosine is None:
        click.echo("the engine is there already")
    else:
        click.echo(f"built; golden embeddings at cosine {cosine:.6f}")


@engine_group.command("list")
@click.argument("engines", type=click.Path(exists=True, file_okay=False, path_type=Path))
def list_engines(engines: Path) -> None:
    """Print what each engine in the folder ENGINES was built from and for, as JSON."""
    print_json(listed(engines))


def _is_there(engines: Path, key: EngineKey) -> bool:
    try:
        read_engine(engines, key)
    except Unready:
        return False
    return True
