"""The demo's decision: is a held-out image a CT, at two operating points that were fitted on the demo's library.

The exam category stands in for a finding, since no image of the demo comes with an outcome. It says what it rests on:
a few patients, whose points promise nothing. CT was chosen because its calls differ at the two points for some images.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nearcase.client import Client
from nearcase.demo.corpus import Corpus, DemoImage
from nearcase.demo.server import running_server
from nearcase.errors import NearcaseError
from nearcase.report import words
from nearcase.report.decision_page import render_decision
from nearcase.report.decision_view import FindingFit, percent
from nearcase.types import Call, DecisionResult, FindingSummary

LABEL, MODALITY, NAME = "exam", "CT", "exam-ct"
LAX, STRICT, PROMISED = "sensitivity-90-empirical", "specificity-90-empirical", "sensitivity-90-pac"
POINTS = ("sensitivity=0.90:empirical", "specificity=0.90:empirical", "sensitivity=0.90:pac")
COLUMNS = ("", *(f"at {name}" for name in (LAX, STRICT)))
K = 5


@dataclass(frozen=True, slots=True)
class AtTwoPoints:
    """One image decided twice."""

    image: DemoImage
    lax: DecisionResult
    strict: DecisionResult

    @property
    def differs(self) -> bool:
        """True where the point decides the call."""
        calls = {each.decisions[0].call for each in (self.lax, self.strict)}
        return len(calls) == 2 and Call.ABSTAIN not in calls


def decide(console: Console, corpus: Corpus, out: Path) -> None:
    """Fits the finding on the library, decides about the held-out images, and prints one at both points.

    Raises:
        NearcaseError: The fit or the server failed.
    """
    fit(out)
    with running_server(out / "data", "--findings", str(out / "findings")) as server, Client(server.address) as client:
        summary = next(each for each in client.findings() if each.name == NAME)
        decided = list(_decided(client, corpus.queries))
        shown = next((each for each in decided if each.differs), decided[0])
        now = datetime.now(UTC).isoformat(timespec="seconds")
        title = f"nearcase demo: is it {MODALITY}? {shown.image.shows}"
        fits = {NAME: FindingFit(client.roc(NAME), summary.refused_points)}
        page = render_decision(shown.lax, fits, title=title, generated_at=now)
    (out / "decision.html").write_text(page, encoding="utf-8")
    print_decision(console, shown, summary, sum(each.differs for each in decided), len(decided))
    console.print(f"Decision page: {out / 'decision.html'}", markup=False)


def fit(out: Path) -> None:
    """Writes the finding and runs `nearcase-eval fit` on the demo's library, whose server has ended."""
    folder = out / "findings"
    folder.mkdir()
    (folder / f"{NAME}.toml").write_text(
        f'name = "{NAME}"\nversion = "demo"\ndisplay_name = "Exam category {MODALITY}"\nlabel = "{LABEL}"\n'
        f'positive_values = ["{MODALITY}"]\nfitted = "{NAME}.json"\n[scorer]\nk = {K}\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "nearcase_eval", "fit", str(out / "data"), "--by", "none"]
    command += ["--finding", str(folder / f"{NAME}.toml"), *(part for point in POINTS for part in ("--point", point))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own command, no shell)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()
        raise NearcaseError(f"nearcase-eval fit failed: {last[-1] if last else 'it said nothing'}")


def _decided(client: Client, images: Sequence[DemoImage]) -> Iterator[AtTwoPoints]:
    for image in images:
        lax, strict = (
            client.decide(image.path, finding=NAME, operating_point=name, thumbnails=True) for name in (LAX, STRICT)
        )
        yield AtTwoPoints(image, lax, strict)


def print_decision(console: Console, shown: AtTwoPoints, summary: FindingSummary, differing: int, queries: int) -> None:
    """Prints both calls side by side, and what they rest on."""
    image, (lax, strict) = shown.image, (each.decisions[0] for each in (shown.lax, shown.strict))
    console.print(f"\n[bold]Decision[/bold] on a held-out image: is it {MODALITY}? {image.shows} ({image.source})")
    table = Table(*COLUMNS, box=None, pad_edge=False)
    table.add_row("call", *(words.call(each) for each in (lax, strict)))
    table.add_row("score", *("–" if each.score is None else f"{each.score:.3f}" for each in (lax, strict)))
    points = [each.operating_point for each in (lax, strict)]
    for name, cells in (
        ("positive from score", [f"{point.threshold:.3g}" if point else "–" for point in points]),
        ("held-out sensitivity", [percent(point.sensitivity) if point else "–" for point in points]),
        ("held-out specificity", [percent(point.specificity) if point else "–" for point in points]),
    ):
        table.add_row(name, *cells)
    console.print(table)
    known = next((point for point in points if point), None)
    if known:
        rests = f"{known.positive_patients} held-out patients with {MODALITY} and {known.negative_patients} without"
        console.print(f"It rests on {summary.labelled_count} labelled images; the rates on {rests}.", markup=False)
    for refused in summary.refused_points:
        console.print(f"Refused: {refused.name}, {refused.reason}.", markup=False)
    console.print(
        f"The two calls differ for {differing} of {queries} held-out images. The points are empirical: they promise "
        "nothing for new patients. The image's modality stands in its header too; this shows the way, not a use.",
        markup=False,
    )
