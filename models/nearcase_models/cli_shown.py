"""How the commands show encoders and progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from nearcase.cli.options import print_json, progress_console
from nearcase.encode.card import Card, read_card
from nearcase.errors import NearcaseError

Told = Callable[..., None]


@contextmanager
def stages() -> Iterator[Told]:
    """Shows what is done now, on a terminal; what is yielded takes a stage and, where known, done and total."""
    screen = progress_console()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def told(stage: str, done: int = 0, total: int = 0) -> None:
            bar.update(task, description=stage, completed=done, total=total or None)

        yield told


def below(folders: tuple[Path, ...]) -> Iterator[Path]:
    """Yields the encoders among folders: a folder with a card, or those one level below a folder without one."""
    for folder in folders:
        if (folder / "card.toml").is_file():
            yield folder
        else:
            yield from sorted(path.parent for path in folder.glob("[!.]*/card.toml"))  # not what was cut short


def described(folder: Path) -> dict[str, Any]:
    """Returns what a folder holds, or why it is no encoder."""
    try:
        return {**row(read_card(folder)), "error": ""}
    except NearcaseError as error:
        blank = dict.fromkeys(("identity", "version", "precision", "recipe", "size", "licence", "statement"), "")
        return {"name": folder.name, "dimension": None, "is_medical": None, **blank, "error": str(error)}


def row(card: Card) -> dict[str, Any]:
    """Returns a card for machines and for tables."""
    return {
        "name": card.name,
        "identity": card.identity,
        "version": card.version,
        "dimension": card.dimension,
        "precision": card.precision,
        "recipe": card.recipe.identity,
        "size": f"{card.onnx_path.stat().st_size / 1e6:.1f} MB",
        "licence": card.licence,
        "is_medical": card.is_medical,
        "statement": card.statement,
    }


def tell(card: Card, *, as_json: bool) -> None:
    """Prints what was written."""
    if as_json:
        print_json(row(card))
        return
    size = f"{card.onnx_path.stat().st_size / 1e6:.1f} MB"
    click.echo(
        f"wrote {card.folder}: {card.name}, {card.dimension}-d, {card.precision}, {card.recipe.identity}, {size}"
    )
    if card.parity:
        click.echo(f"parity with {card.parity.against}: {card.parity.max_difference:.1e}")
    click.echo(card.statement)
