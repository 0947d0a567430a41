"""Opens the tables, shows which column is taken as what, and reads those columns and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nearcase.errors import InvalidInput
from nearcase_eval.audit.plan import attribute, crossing
from nearcase_eval.audit.report import Input
from nearcase_eval.audit.roles import Roles, assign
from nearcase_eval.audit.source import Source, Table, open_source, sha256_of

Options = Mapping[str, Any]


class Sources(NamedTuple):
    """The scores and, when given, the metadata."""

    scores: Source
    scores_path: Path
    metadata: Source | None
    metadata_path: Path | None

    @property
    def columns(self) -> list[str]:
        """All columns, each once."""
        more = self.metadata.columns if self.metadata else ()
        return list(dict.fromkeys((*self.scores.columns, *more)))


def roles_of(scores: Path, options: Options, *, say: Callable[[str], None]) -> tuple[Sources, Roles]:
    """Returns the opened tables and their roles, after saying what was found.

    Raises:
        InvalidInput: A file can not be read, or a role is not clear.
    """
    path = options["metadata"]
    opened = open_source(scores, encoding=options["encoding"])
    other = open_source(path, encoding=options["encoding"]) if path else None
    sources = Sources(opened, scores, other, path)
    roles = assign(
        sources.columns,
        label=options["label"],
        score=options["score"],
        compare=options.get("compare"),
        patient=options["patient"],
        split=options["split"],
        image=options["on"],
    )
    if other and roles.image is None:
        raise InvalidInput("--metadata needs a column that both tables have: name it with --on", field="on")
    for line in _shown(sources, roles):
        say(line)
    return sources, roles


def read_rows(sources: Sources, roles: Roles, options: Options) -> tuple[Table, Table | None, list[Input]]:
    """Returns the scores, the metadata and what they were; raises InvalidInput for a cell or line that is broken."""
    numbers = [column for each in roles.findings for column in (each.score, each.compared) if column]
    texts = [each.label for each in roles.findings]
    texts += [column for column in (roles.patient, roles.split, roles.image, roles.sex, roles.age) if column]
    texts += [column for column in _more(options) if column in sources.columns]
    if both := sorted(set(numbers) & set(texts)):
        raise InvalidInput(f"the column {both[0]!r} can not be a score and something else", field="score")
    ours, theirs = _shared_out(sources, [*dict.fromkeys(texts)], roles)
    table = sources.scores.read([*dict.fromkeys(numbers)], ours)
    inputs = [Input(sources.scores.name, sha256_of(sources.scores_path), table.rows)]
    if sources.metadata is None or sources.metadata_path is None:
        return table, None, inputs
    metadata = sources.metadata.read([], theirs)
    return table, metadata, [*inputs, Input(sources.metadata.name, sha256_of(sources.metadata_path), metadata.rows)]


def _more(options: Options) -> Iterator[str]:
    """Columns that other options name."""
    for text in options.get("by", ()):
        yield attribute(text)[0]
    for text in options.get("cross", ()):
        yield from crossing(text)
    yield from filter(None, options.get("confounders", "").split(","))


def _shared_out(sources: Sources, texts: Sequence[str], roles: Roles) -> tuple[list[str], list[str]]:
    """Columns of the scores first; a column that both have, and that is not the key, is read from the scores."""
    ours = [name for name in texts if name in sources.scores.columns]
    more = sources.metadata.columns if sources.metadata else ()
    theirs = [name for name in texts if name in more and (name not in ours or name == roles.image)]
    return ours, theirs


def _shown(sources: Sources, roles: Roles) -> Iterator[str]:
    yield f"{sources.scores.name}: {sources.scores.how}"
    if sources.metadata:
        yield f"{sources.metadata.name}: {sources.metadata.how}, joined on {roles.image}"
    for role in ("patient", "sex", "age", "split", "image"):
        column = getattr(roles, role)
        how = " (guessed)" if role in roles.guessed else ""
        yield f"{role}: {column}{how}" if column else f"{role}: no column"
    guessed = " (guessed)" if roles.guessed & {"label", "score"} else ""
    for each in roles.findings:
        other = f", compared with {each.compared}" if each.compared else ""
        yield f"finding {each.name}: label {each.label}, score {each.score}{other}{guessed}"
