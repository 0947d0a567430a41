"""The main job on real images: library in, held-out images searched, evidence page out."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table as TextTable

from nearcase.client import AddItem, Client
from nearcase.demo import baselines
from nearcase.demo.corpus import Corpus, DemoImage, load_corpus
from nearcase.demo.decision import LABEL, decide
from nearcase.demo.evaluation import evaluate, is_installed
from nearcase.demo.server import running_server
from nearcase.errors import NearcaseError, NotAllowed
from nearcase.index.lock import FolderLock
from nearcase.intake.files import read_image
from nearcase.report.page import PageSearch, Table, render_page
from nearcase.report.text import encoder_line, neighbour_table
from nearcase.types import SearchResult

NEIGHBOURS = 5
MARK = ".nearcase-demo"
NOTE = (
    "A smoke test on the few real images that packages carry, not a measure of clinical quality. Relevant means: same "
    "modality, another patient and series. The outcome region is the authors' own reading of the pictures."
)


@dataclass(frozen=True, slots=True)
class Searched:
    """A held-out image, its copy for trying, and what was found."""

    image: DemoImage
    copy: Path
    result: SearchResult


def run(out: Path) -> None:
    """Runs the demo and prints it; everything that it writes is below `out`.

    Raises:
        NotFound: The demo's images are not installed.
        NotAllowed: `out` holds something that is not an earlier demo.
        NearcaseError: The server refused an image that must work.
    """
    corpus = load_corpus()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    prepare_folder(out)
    with running_server(out / "data") as server, Client(server.address) as client:
        console.print(encoder_line(client.encoder()), markup=False)
        add_library(client, corpus.library)
        console.print(f"Added {len(corpus.library)} images of {_groups(corpus.library)} patients or series over gRPC.")
        searched = [search(client, image, out / "queries") for image in corpus.queries]
    for each in searched:
        print_search(console, each)
    rows = compare(corpus, searched)
    print_precision(console, rows)
    page = write_page(out / "evidence.html", searched, rows)
    console.print(f"\nEvidence page, self-contained: {page}", markup=False)
    if is_installed():
        report = evaluate(corpus, out / "cohort")
        console.print(f"Evaluation of the same images, leave one patient out: {report}", markup=False)
        decide(console, corpus, out)
    else:
        console.print("No decision is shown: fitting needs nearcase\\[evaluation].")
    console.print()
    print_next(console, out, searched[0])


def prepare_folder(out: Path) -> None:
    """Empties an earlier demo; a folder with anything else is left alone."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise NotAllowed(f"{out} holds something else than an earlier demo; choose another folder with --out")
    if (out / "data" / "library").exists():
        lock = FolderLock(out / "data" / "library")
        if not lock.take(os.getpid(), patience_s=0.5):
            raise NotAllowed(f"a server ({lock.owner()}) has {out / 'data'} open; stop it, or choose --out")
        lock.release()
    shutil.rmtree(out, ignore_errors=True)
    (out / "queries").mkdir(parents=True)
    (out / MARK).touch()


def add_library(client: Client, images: tuple[DemoImage, ...]) -> None:
    """Adds all images; one that is refused ends the demo, since each is known to be readable."""
    items = [
        AddItem(str(number), image.path, labels=labels_of(image), source=image.source)
        for number, image in enumerate(images)
    ]
    columns = (TextColumn("adding"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for result in progress.track(client.add(items), total=len(items)):
            if result.error:
                raise NearcaseError(f"{images[int(result.request_id)].source}: {result.error}")


def labels_of(image: DemoImage) -> dict[str, str]:
    """Returns what the demo tells of an image: its exam category, and the region where it can be told."""
    return {LABEL: image.modality} | ({"region": image.region} if image.region else {})


def search(client: Client, image: DemoImage, copies: Path) -> Searched:
    """Searches with one held-out image and keeps a copy of it for trying."""
    copy = copies / f"{image.modality.lower()}-{image.path.name}"
    shutil.copyfile(image.path, copy)
    return Searched(image, copy, client.search(image.path, k=NEIGHBOURS, thumbnails=True))


def print_search(console: Console, searched: Searched) -> None:
    """Prints the neighbours of one query."""
    image = searched.image
    console.print(f"\n[bold]{image.modality}[/bold] {image.shows} ({image.source})")
    console.print(neighbour_table(searched.result.hits))


def compare(corpus: Corpus, searched: list[Searched]) -> tuple[baselines.Row, ...]:
    """Returns precision@1 by modality beside random vectors and grey pixels, with the same exclusions."""
    modalities = [image.modality for image in corpus.library]
    allowed = baselines.other_groups(
        [image.group for image in corpus.queries], [image.group for image in corpus.library]
    )
    query_grey, library_grey = grey(corpus.queries), grey(corpus.library)
    grey_first = baselines.first_modalities(query_grey @ library_grey.T, modalities, allowed)
    firsts = [each.result.hits[0].case.facts.modality if each.result.hits else "" for each in searched]
    return baselines.compare(
        [image.modality for image in corpus.queries],
        modalities,
        allowed=allowed,
        server_first=firsts,
        grey_first=grey_first,
    )


def grey(images: tuple[DemoImage, ...]) -> np.ndarray:
    """Returns the grey thumbnails as vectors; these files are known to be harmless, so they are read here."""
    return baselines.grey_vectors([read_image(image.path.read_bytes()).pixels.astype(np.uint8) for image in images])


def precision_rows(rows: tuple[baselines.Row, ...]) -> tuple[tuple[str, ...], ...]:
    """Returns the figures as text."""
    return tuple(
        (
            row.modality,
            str(row.query_count),
            f"{row.server:.2f} [{row.server_95[0]:.2f}, {row.server_95[1]:.2f}]",
            f"{row.random:.2f}",
            f"{row.grey:.2f}",
        )
        for row in rows
    )


COLUMNS = ("modality", "queries", "nearcase [95 % interval]", "random vectors", "grey pixels")


def print_precision(console: Console, rows: tuple[baselines.Row, ...]) -> None:
    """Prints precision@1 by modality, and what the figures are worth."""
    table = TextTable(*COLUMNS, box=None, pad_edge=False, title="Precision@1 by modality", title_justify="left")
    for cells in precision_rows(rows):
        table.add_row(*(cell.replace("[", "\\[") for cell in cells))
    console.print()
    console.print(table)
    console.print(f"All queries: {baselines.in_words(rows[-1])}.", markup=False)
    console.print(NOTE, markup=False)


def write_page(file: Path, searched: list[Searched], rows: tuple[baselines.Row, ...]) -> Path:
    """Writes the evidence page and returns where it is."""
    searches = [PageSearch(f"{each.image.modality}: {each.image.shows}", each.result) for each in searched]
    summary = Table("Precision@1 by modality", COLUMNS, precision_rows(rows), NOTE)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    page = render_page(searches, title="nearcase demo: prior cases that look alike", generated_at=now, summary=summary)
    file.write_text(page, encoding="utf-8")
    return file


def print_next(console: Console, out: Path, example: Searched) -> None:
    """Prints three commands that work as they stand."""
    command = command_name()
    lines = (
        f"{command} inspect {example.copy}",
        f"{command} serve --data {out / 'data'} &",
        f'{command} search {example.copy} --filter "modality = {example.image.modality}" --report {out / "one.html"}',
    )
    console.print("Try next:")
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)


def command_name() -> str:
    """Returns how to call nearcase from here: by name where that finds this installation, else by path."""
    ours = Path(sys.executable).parent / "nearcase"
    found = shutil.which("nearcase")
    return "nearcase" if found and Path(found).resolve() == ours.resolve() else os.path.relpath(ours)


def _groups(images: tuple[DemoImage, ...]) -> int:
    return len({image.group for image in images})
