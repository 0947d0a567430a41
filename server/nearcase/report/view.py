"""What the template prints: every value already a string, so that the template holds layout and nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from nearcase.decide.rate import percent
from nearcase.report import words
from nearcase.types import CaseFacts, Decision, EncoderSummary, Hit, QueryImage, SearchResult

NOT_MEDICAL = (
    "Not a medical encoder: it finds pictures that look alike and knows nothing of disease. "
    "Nothing on this page is a diagnosis."
)
MEDICAL = "Prior cases are shown as evidence. Nothing on this page is a diagnosis."


@dataclass(frozen=True, slots=True)
class Fact:
    """One line under a picture."""

    name: str
    value: str
    is_long: bool = False  # the value gets a line of its own

    @property
    def is_missing(self) -> bool:
        """True for what the file does not say."""
        return self.value == words.NOT_STATED


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with its facts."""

    uri: str  # data: URI of the JPEG; empty where there is no picture
    alt: str
    facts: tuple[Fact, ...]
    similarity: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One value's share of the evidence."""

    value: str
    percent: str
    width: str  # 0 to 100
    cases: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding, and what the evidence says of it."""

    finding: str
    call: str
    explanation: str
    evidence: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """What the encoder is, as banner and footer say it."""

    statement: str  # the encoder's own, from its card
    limits: str  # ours, whatever the card says
    facts: tuple[Fact, ...]


def query_picture(image: QueryImage) -> Picture:
    """Returns the query's picture, with how it was read."""
    several = (Fact("Images", f"{image.image_count:,}, of which one is shown"),) if image.image_count > 1 else ()
    facts = (*_facts(image.facts), *_frame(image.frame_number, image.frame_count), *several)
    rules = (Fact("Read with", ", ".join(image.rules), is_long=True),) if image.rules else ()
    return Picture(_uri(image.thumbnail_jpeg), f"Query: {_alt(image.facts)}", facts + rules)


def neighbour_picture(rank: int, hit: Hit) -> Picture:
    """Returns a neighbour's picture, with what it turned out to be and where it is from."""
    case = hit.case
    labels = "; ".join(f"{name}: {value}" for name, value in sorted(case.labels.items()))
    facts = (
        *_facts(case.facts),
        *_frame(case.frame_number, case.frame_count),
        *_matched(hit),
        Fact("Labels", labels or words.NOT_STATED, is_long=True),
        Fact("Source", case.source or words.NOT_STATED, is_long=True),
    )
    alt = f"Neighbour {rank}: {_alt(case.facts)}"
    return Picture(_uri(case.thumbnail_jpeg), alt, facts, words.similarity(hit.similarity))


def verdict(decision: Decision) -> Verdict:
    """Returns a decision with its votes as bars."""
    bars = (
        Bar(vote.value, percent(vote.share), f"{100 * min(max(vote.share, 0), 1):.2f}", words.cases(vote.count))
        for vote in decision.votes
    )
    evidence = f"from {words.cases(len(decision.evidence))} with this label"
    return Verdict(decision.finding, words.call(decision), decision.explanation, evidence, tuple(bars))


def notices(results: Iterable[SearchResult]) -> tuple[Notice, ...]:
    """Returns one notice for each encoder that answered, in order of first use."""
    return tuple(encoder_notice(encoder) for encoder in dict.fromkeys(result.encoder for result in results))


def encoder_notice(encoder: EncoderSummary) -> Notice:
    """Returns what the encoder is, and what it may not be taken for."""
    facts = (
        Fact("Encoder", encoder.name or words.NOT_STATED),
        Fact("Version", encoder.version or words.NOT_STATED),
        Fact("SHA-256", encoder.sha256[:12] or words.NOT_STATED),
        Fact("Recipe", encoder.recipe or words.NOT_STATED),
    )
    return Notice(encoder.statement, MEDICAL if encoder.is_medical else NOT_MEDICAL, facts)


def _facts(facts: CaseFacts) -> tuple[Fact, ...]:
    return (
        Fact("Modality", facts.modality or words.NOT_STATED),
        Fact("Body part", words.body_part(facts)),
        Fact("Age", words.age(facts.age_years)),
        Fact("Sex", words.sex(facts.sex)),
    )


def _frame(number: int, count: int) -> tuple[Fact, ...]:
    return (Fact("Frame", f"{number:,} of {count:,}"),) if count > 1 else ()


def _matched(hit: Hit) -> tuple[Fact, ...]:
    """Of a group: that the picture is its best image, how many images of the query found it, and what ranked it."""
    shown = (Fact("Shown", "the image of it that matched best", is_long=True),) if hit.matched_instance_uid else ()
    found = (Fact("Found by", f"{words.images(hit.matched_count)} of the query"),) if hit.matched_count > 1 else ()
    ranked = (Fact("Ranked by", f"{hit.score:.4g}"),) if hit.score is not None else ()
    return (*shown, *found, *ranked)


def _alt(facts: CaseFacts) -> str:
    return f"modality {facts.modality or words.NOT_STATED}, body part {words.body_part(facts)}"


def _uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii") if jpeg else ""
