"""What search and decide are asked about: files, the series in a folder, or what the library holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nearcase.cli.options import shown
from nearcase.cli.volume import choose_series
from nearcase.client import UNARY_BYTES, Example
from nearcase.errors import InvalidInput


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
        return sum(example.image is not None for example in self.examples)


def read_query(
    paths: tuple[Path, ...], frame: int | None, case_id: str, series_uid: str, study_uid: str, *, most: int
) -> Asked:
    """Returns what is asked about.

    Args:
        paths: Files, or one folder.
        frame: Of each file, where it has several.
        case_id: Of the library, as the next two.
        series_uid: A series.
        study_uid: A study.
        most: How many images may be sent.

    Raises:
        InvalidInput: Nothing is named, or a folder among other things, or it holds no series.
    """
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
        files = [Example(image=path, frame_number=number) for path, number in chosen.images]
        return Asked((*files, *examples), ", ".join([shown(Path(paths[0].name)), *stored]), True, (chosen.note,))
    files = [Example(image=path, frame_number=frame) for path in paths]
    name = shown(Path(paths[0].name)) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "") if paths else ""
    is_series = len(paths) > 1 or bool(series_uid or study_uid)
    return Asked((*files, *examples), ", ".join(filter(None, (name, *stored))), is_series)
