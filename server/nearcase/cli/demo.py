"""nearcase demo."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for the library and the evidence page; an earlier demo there is replaced.",
)
def demo(out: Path) -> None:
    """Run the main job on real images: add a library, search with held-out images, write the evidence page.

    Needs the extra nearcase[demo], which brings real DICOM files.
    """
    from nearcase.demo.run import run  # heavy imports

    run(out)
