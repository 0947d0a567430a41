"""nearcase inspect and nearcase render: what a file is, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from nearcase.cli.options import console, file_argument, frame_option, json_option, print_json
from nearcase.intake.sandbox import Sandbox
from nearcase.prepare import describe_job


@click.command()
@file_argument
@frame_option
@json_option
def inspect(file: Path, frame: int | None, as_json: bool) -> None:
    """Print what FILE says of its patient, study and pixels, and which pixel rules apply.

    Reads DICOM, PNG and JPEG; needs no server. Nothing that a file does not state is guessed.
    """
    header, _ = describe(file, frame, png=False)
    if as_json:
        print_json({"file": str(file), **header})
        return
    table = Table("fact", "value", box=None, pad_edge=False)
    for name, value in {**header["facts"], **_flat(header)}.items():
        table.add_row(name, "not stated" if value in ("", None) else str(value).replace("[", "\\["))
    console().print(table)


@click.command()
@file_argument
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The PNG file to write.")
@frame_option
def render(file: Path, out: Path, frame: int | None) -> None:
    """Write one frame of FILE as the encoder sees it before resizing: an 8 bit PNG.

    Modality LUT, then the first VOI window or LUT (without one, or with width 0, the full range without padding);
    MONOCHROME1 inverted; colour as RGB. Needs no server.
    """
    header, pictures = describe(file, frame, png=True)
    out.write_bytes(pictures[0])
    pixels = header["pixels"]
    place = f"frame {header['frame_number']} of {header['frame_count']}"
    click.echo(
        f"wrote {out}: {place}, {pixels['rows']} x {pixels['columns']}; {', '.join(header['rules']) or 'no rules'}"
    )


def describe(file: Path, frame: int | None, *, png: bool) -> tuple[dict[str, Any], list[bytes]]:
    """Returns what a file is, read in a child process."""
    with Sandbox(describe_job, workers=1) as sandbox:
        header, pictures = sandbox.run(file.read_bytes(), {"frame_number": frame, "png": png})
    return header, pictures


def _flat(header: dict[str, Any]) -> dict[str, Any]:
    return {
        "media_type": header["media_type"],
        **header["pixels"],
        "frame": f"{header['frame_number']} of {header['frame_count']}",
        "rules": "; ".join(header["rules"]),
        "content_sha256": header["content_sha256"],
    }
