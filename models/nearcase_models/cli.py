"""The command `nearcase-models`: which encoders there are, and how one is made, checked and timed."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from nearcase import __version__
from nearcase.cli.exits import BAD_INPUT, FAULT
from nearcase.cli.options import console, json_option, print_json, progress
from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.encode.runtime import RuntimeChoice, open_encoder
from nearcase.encode.text import open_text
from nearcase.errors import NearcaseError
from nearcase_models.cli_shown import below, described, row, stages, tell
from nearcase_models.engine_cli import engine_group
from nearcase_models.import_cli import import_group

folder_argument = click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="nearcase-models")
def group() -> None:
    """Make, check and time encoders.

    An encoder is a folder: encoder.onnx, card.toml and golden.npz. What is imported here is served with the setting
    `encoder` of `nearcase serve`, and compared by `nearcase-eval compare-encoders`.

    \b
    A first session:
      nearcase-models import astra --out encoders/astra
      nearcase-models verify encoders/astra
      nearcase-models bench encoders/astra --batch 1

    Nothing is fetched or installed: weights are files of yours, or of packages that you installed.
    """


@group.command("list")
@click.argument("folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def list_encoders(folders: tuple[Path, ...], as_json: bool) -> None:
    """List the encoder that nearcase ships, and those in FOLDERS or one level below them.

    A folder whose card or network is damaged is listed with the reason, and the exit code is then 2.
    """
    rows = [described(folder) for folder in (default_encoder_folder(), *below(folders))]
    if as_json:
        print_json(rows)
    else:
        table = Table("encoder", "dimension", "precision", "recipe", "size", "statement", box=None, pad_edge=False)
        for row in rows:
            words = (row["name"], str(row["dimension"] or ""), row["precision"], row["recipe"], row["size"])
            table.add_row(*words, (row["error"] or row["statement"]).replace("[", "\\["))
        console().print(table)
    if any(row["error"] for row in rows):
        raise SystemExit(2)


@group.command()
@folder_argument
@json_option
def verify(folder: Path, as_json: bool) -> None:
    """Check FOLDER as the server does at its start, and the laws of an encoder besides.

    Card, SHA-256, weights inside the file, golden embeddings, the same embedding alone and in a batch, the same bits
    twice. The exit code is 2 where a check fails.
    """
    from nearcase_models.verify import verify as checks

    done = []
    for step in checks(folder):
        done.append(step)
        if not as_json:
            click.echo(f"{'ok  ' if step.is_good else 'FAIL'} {step.name}: {step.told}")
    if as_json:
        print_json({"folder": folder.name, "checks": [asdict(step) for step in done]})
    if not all(step.is_good for step in done):
        raise SystemExit(2)


@group.command()
@folder_argument
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(1, 256), help="May be repeated; default 1 2 4 8."
)
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Cores that a call may use.")
@json_option
def bench(folder: Path, batches: tuple[int, ...], threads: int, as_json: bool) -> None:
    """Time FOLDER on this machine's CPU: medians for each image, by batch size.

    CPU time is what a busy machine does not change; wall time includes waiting for other work on it.
    """
    from nearcase_models.bench import bench as measure

    encoder = open_encoder(folder, RuntimeChoice(threads=threads))
    sizes = batches or (1, 2, 4, 8)
    with progress("timing", len(sizes)) as advance:
        costs = measure(encoder, sizes, on_batch=lambda batch: advance())
    if as_json:
        told = {"encoder": encoder.card.identity, "runtime": encoder.runtime, "threads": threads}
        print_json(told | {"batches": [asdict(cost) for cost in costs]})
        return
    table = Table("batch", "calls", "CPU ms/image", "wall ms/image", box=None, pad_edge=False)
    for cost in costs:
        table.add_row(str(cost.batch), str(cost.calls), f"{cost.cpu_ms:.2f}", f"{cost.wall_ms:.2f}")
    console().print(table)
    click.echo(f"{encoder.card.name}, {encoder.runtime}, {threads} thread{'s' * (threads > 1)}; medians")


@group.command()
@click.option(
    "--encoder", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="In fp32."
)
@click.option("--precision", required=True, type=click.Choice(["fp16", "bf16", "int8"]), help="bf16 is for GPUs.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder.")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Real images for the gate; default the DICOM files of pydicom and pydicom-data.",
)
@json_option
def export(encoder: Path, precision: str, out: Path, images: Path | None, as_json: bool) -> None:
    """Write an encoder in a lower precision, if it keeps embeddings and neighbours.

    The gate, on real images: every embedding within a cosine of 0.999 of fp32, and 99 % of the ten nearest neighbours
    kept. What does not pass is not written, and the message says how far off it is. LayerNorm, softmax, sums and
    lengths stay in fp32. A library written in one precision refuses another.
    """
    from nearcase_models.precision import export_precision

    with stages() as told:
        card, measured = export_precision(encoder, out, precision, images=images, on_progress=told)
    if as_json:
        print_json({**row(card), "gate": asdict(measured)})
    else:
        click.echo(f"against fp32: {measured}")
        tell(card, as_json=False)


@group.command("embed-text")
@click.option("--encoder", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("texts", nargs=-1, required=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the vectors to an .npz file.")
@json_option
def embed_text(encoder: Path, texts: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Print the embeddings of TEXTS, by the text tower of an encoder that has one.

    Without --out each line is one text's vector, as a JSON list.
    """
    vectors = open_text(read_card(encoder)).embed_texts(texts)
    if out:
        with out.open("wb") as stream:
            np.savez(stream, ids=np.array(texts), vectors=vectors)
    if as_json:
        print_json([{"text": text, "vector": vector.tolist()} for text, vector in zip(texts, vectors, strict=True)])
    elif out:
        click.echo(f"wrote {out.name}: {len(vectors)} vectors of {vectors.shape[1]}")
    else:
        for vector in vectors:
            click.echo(json.dumps(vector.tolist()))


group.add_command(engine_group)
group.add_command(import_group)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 2 bad input, 1 a fault of the machine."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # an import reads what lies here; nothing is fetched
    try:
        group.main(args=arguments, prog_name="nearcase-models", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        print("nearcase-models: interrupted", file=sys.stderr)
        code = 130
    except NearcaseError as error:
        print(f"nearcase-models: {error}", file=sys.stderr)
        code = FAULT if type(error) is NearcaseError else BAD_INPUT  # a damaged folder is the user's to mend
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("nearcase"):
            raise  # a fault of ours, not a missing extra
        print(f"nearcase-models: {error.name} is not installed; run: pip install 'nearcase[models]'", file=sys.stderr)
        code = BAD_INPUT
    except OSError as error:
        print(f"nearcase-models: {error.filename or ''}: {error.strerror}".replace(": :", ":"), file=sys.stderr)
        code = FAULT
    else:
        code = 0
    sys.exit(code)
