"""The command `nearcase-eval card`: a model card with the numbers that a run measured."""

from __future__ import annotations

import os
from pathlib import Path

import click

from nearcase.encode.card import default_encoder_folder, read_card
from nearcase.errors import InvalidInput, NearcaseError
from nearcase_eval.card_text import to_json, to_markdown
from nearcase_eval.model_card import model_card

RENDERERS = {".md": to_markdown, ".json": to_json}


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="card.md or card.json; default: print.")
@click.option(
    "--encoder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder; default nearcase's own."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def card(run: Path, out: Path | None, encoder: Path | None, as_json: bool) -> None:
    """Write the model card of the encoder that made RUN, the folder of `nearcase-eval run`.

    Its numbers are those that the run's files hold; what was not measured is said.
    """
    render = RENDERERS.get(out.suffix.lower()) if out else to_json if as_json else to_markdown
    if render is None:
        raise InvalidInput(f"expected --out to end with {' or '.join(RENDERERS)}, got {out}")
    text = render(model_card(run, read_card(encoder or default_encoder_folder())))
    if out is None:
        return click.echo(text, nl=False)
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, "utf-8", newline="")
        os.replace(part, out)
    except OSError as error:
        raise NearcaseError(f"the card can not be written to {out}: {error.strerror}") from error
