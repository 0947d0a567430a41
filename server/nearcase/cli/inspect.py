"""nearcase inspect and nearcase render: what a file or a series is, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from nearcase.cli.options import console, frame_option, json_option, path_argument, print_json, window_option
from nearcase.cli.volume import choose_slice, describe_folder, describe_volume_of
from nearcase.errors import InvalidInput
from nearcase.intake.presets import FIRST
from nearcase.intake.sandbox import Sandbox
from nearcase.prepare import describe_job


@click.command()
@path_argument
@frame_option
@window_option
@json_option
def inspect(path: Path, frame: int | None, window: str, as_json: bool) -> None:
    """Print what FILE says of its patient, study and pixels, or what volume the files of FOLDER make.

    Reads DICOM, NIfTI, PNG and JPEG; needs no server. Nothing that a file does not state is guessed. Of a series it
    tells size, spacing from positions, orientation, units, PET SUV, and what is wrong: gaps, repeats, mixed slices.
    """
    if path.is_dir():
        if frame is not None or window != FIRST:
            raise InvalidInput("expected a file for --frame and --window, got a folder")
        told = describe_folder(path)
    else:
        told = {"file": str(path), **describe(path, frame, window, png=False)[0]}
        if told["frame_count"] > 1 or told["facts"]["modality"] == "PT":
            told["volume"] = describe_volume_of(path, told["media_type"])
    if as_json:
        print_json(told)
    else:
        _print_folder(told) if path.is_dir() else _print_file(told)


@click.command()
@path_argument
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The PNG file to write.")
@frame_option
@window_option
def render(path: Path, out: Path, frame: int | None, window: str) -> None:
    """Write one frame of FILE, or one slice of the series in FOLDER, as an 8 bit PNG.

    Without --window it is what the encoder sees before resizing: modality LUT, then the first VOI window or LUT
    (without one, or with width 0, the full range without padding); MONOCHROME1 inverted; colour as RGB. Slices of a
    series are counted by position, from the feet in axial ones. Needs no server.
    """
    place = ""
    if path.is_dir():
        path, frame, place = choose_slice(path, frame)
    header, pictures = describe(path, frame, window, png=True)
    out.write_bytes(pictures[0])
    pixels = header["pixels"]
    place = place or f"frame {header['frame_number']} of {header['frame_count']}"
    click.echo(
        f"wrote {out}: {place}, {pixels['rows']} x {pixels['columns']}; {', '.join(header['rules']) or 'no rules'}"
    )


def describe(file: Path, frame: int | None, window: str, *, png: bool) -> tuple[dict[str, Any], list[bytes]]:
    """Returns what a file is, read in a child process."""
    with Sandbox(describe_job, workers=1) as sandbox:
        options = {"frame_number": frame, "window": window, "png": png}
        header, pictures = sandbox.run(file.read_bytes(), options)
    return header, pictures


def _print_file(told: dict[str, Any]) -> None:
    facts = {**told["facts"], **_flat(told)}
    volume = {f"volume {name}": value for name, value in told.get("volume", {}).items()}
    _print_table({**facts, **volume})


def _print_folder(told: dict[str, Any]) -> None:
    for number, series in enumerate(told["series"], 1):
        console().print(f"series {number} of {len(told['series'])}")
        facts = {name: value for name, value in series["facts"].items() if value not in ("", None)}
        _print_table({**facts, **{name: value for name, value in series.items() if name != "facts"}})
    for reason, count in told["left_out"].items():
        console().print(f"{count} file{'s' * (count > 1)} left out: {reason}", markup=False)


def _print_table(rows: dict[str, Any]) -> None:
    table = Table("fact", "value", box=None, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, _words(value).replace("[", "\\["))
    console().print(table)


def _words(value: object) -> str:
    """A value for people; empty ones are what nobody stated."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return "; ".join(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return str([float(f"{each:.6g}") if isinstance(each, float) else each for each in value]) if value else "none"
    return "not stated" if value in ("", None) else str(value)


def _flat(header: dict[str, Any]) -> dict[str, Any]:
    return {
        "media_type": header["media_type"],
        **header["pixels"],
        "frame": f"{header['frame_number']} of {header['frame_count']}",
        "rules": "; ".join(header["rules"]),
        "content_sha256": header["content_sha256"],
    }
