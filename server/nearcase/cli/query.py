"""What search and decide are asked about: files, the series in a folder, or what the library holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearcase.cli.options import shown
from nearcase.cli.volume import choose_series
from nearcase.client import UNARY_BYTES, Client, Example
from nearcase.errors import InvalidInput
from nearcase.types import CaseFacts, DecisionResult

NOTHING = CaseFacts()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line names."""

    examples: tuple[Example, ...]  # files, and the cases, series and studies of the library
    name: str  # for people
    is_series: bool  # several images as one
    notes: tuple[str, ...] = ()

    @property
    def image_count(self) -> int:
        """How many files or frames are sent."""
        return len(self.files)

    @property
    def files(self) -> tuple[Example, ...]:
        """Those of the examples that are sent."""
        return tuple(example for example in self.examples if example.image is not None)


def read_query(
    paths: tuple[Path, ...],
    frame: int | None,
    case_id: str,
    series_uid: str,
    study_uid: str,
    *,
    most: int,
    facts: CaseFacts = NOTHING,
) -> Asked:
    """Returns what is asked about.

    Args:
        paths: Files, or one folder.
        frame: Of each file, where it has several.
        case_id: Of the library, as the next two.
        series_uid: A series.
        study_uid: A study.
        most: How many images may be sent.
        facts: What is known of the files where they are silent.

    Raises:
        InvalidInput: Nothing is named, or a folder among other things, or it holds no series, or facts without a file.
    """
    if facts != NOTHING and not paths:
        raise InvalidInput("expected a file with --patient and the like: what the library holds has its facts there")
    named = {"case": case_id, "series": series_uid, "study": study_uid}
    stored = [f"{word} {value}" for word, value in named.items() if value]
    examples = [Example(case_id=case_id)] if case_id else []
    examples += [Example(series_uid=series_uid)] if series_uid else []
    examples += [Example(study_uid=study_uid)] if study_uid else []
    if not paths and not examples:
        raise InvalidInput("expected something to ask about: FILE, FOLDER, --case, --series or --study")
    if any(path.is_dir() for path in paths):
        if len(paths) > 1:
            raise InvalidInput("expected files, or one folder; got a folder among other paths")
        if frame is not None:
            raise InvalidInput("expected a file with --frame; of a folder every slice is taken")
        chosen = choose_series(paths[0], most=most, most_bytes=UNARY_BYTES)
        files = [Example(image=path, frame_number=number, facts=facts) for path, number in chosen.images]
        return Asked((*files, *examples), ", ".join([shown(Path(paths[0].name)), *stored]), True, (chosen.note,))
    files = [Example(image=path, frame_number=frame, facts=facts) for path in paths]
    name = shown(Path(paths[0].name)) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "") if paths else ""
    is_series = len(paths) > 1 or bool(series_uid or study_uid)
    return Asked((*files, *examples), ", ".join(filter(None, (name, *stored))), is_series)


def decide_about(client: Client, asked: Asked, facts: CaseFacts, **options: Any) -> DecisionResult:
    """Returns what `Client.decide` says of it: one file, several as one, or one thing that the library holds.

    Raises:
        InvalidInput: Files are named and what the library holds, or two such things.
    """
    files, examples = asked.files, asked.examples
    if len(examples) > 1 and len(files) < len(examples):
        raise InvalidInput("expected files, or one of --case, --series and --study; got several of them")
    if not files:
        stored = {name: getattr(examples[0], name) for name in ("case_id", "series_uid", "study_uid")}
        return client.decide(**stored, facts=facts, **options)
    if len(files) == 1:
        return client.decide(files[0].image, frame_number=files[0].frame_number, facts=facts, **options)
    return client.decide(files, facts=facts, **options)
