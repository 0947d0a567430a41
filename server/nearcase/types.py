"""The nouns of the flow: bytes -> Image -> Embedding -> Hit -> Case -> Decision.

Frozen dataclasses; units are in the field names. numpy is named for type checkers only, so that the client
imports this module without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nearcase.errors import NearcaseError

    Embedding = NDArray[np.float32]
    """(D,) unit length."""


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """What a file says of its patient, study and acquisition; an empty string or None is "not stated".

    Sources are DICOM attributes (PS3.6) of the same meaning, or the columns of a labels table.
    """

    patient_id: str = ""
    patient_id_issuer: str = ""
    study_uid: str = ""
    series_uid: str = ""
    instance_uid: str = ""
    sop_class_uid: str = ""
    modality: str = ""
    body_part: str = ""
    laterality: str = ""  # L, R, B or U
    view: str = ""  # PA, AP, LL, MLO ...
    age_years: float | None = None
    sex: str = ""  # M, F or O
    manufacturer: str = ""
    device_model: str = ""
    study_date: str = ""  # YYYYMMDD
    study_description: str = ""
    series_description: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """One frame as a reader would see it, whole or, where less was asked for, averaged over squares of pixels.

    pixels is (rows, columns) for grey and (rows, columns, 3) for RGB: modality transform, VOI window or LUT and
    inversion of MONOCHROME1 have been applied, so higher is brighter. They are uint8; where they were averaged,
    float32 on the same scale, because rounding them and then their small picture would show in its embedding.
    """

    pixels: NDArray[np.uint8] | NDArray[np.float32]
    facts: CaseFacts
    media_type: str  # application/dicom, image/png or image/jpeg
    transfer_syntax_uid: str = ""
    frame_number: int = 1  # counts from 1
    frame_count: int = 1
    spacing_mm: tuple[float, float] | None = None  # (between rows, between columns) of the file
    rules: tuple[str, ...] = ()  # which pixel rules were applied, in order
    reduction: int = 1  # side of the squares, in pixels of the file; 1 where nothing was averaged
    frame_box: tuple[float, float, float, float] | None = None
    """Where the frame lies in averaged pixels: left, top, right, bottom; None if they are the frame."""

    @property
    def is_color(self) -> bool:
        """True for RGB."""
        return self.pixels.ndim == 3


@dataclass(frozen=True, slots=True)
class LabelChange:
    """One correction of a label: what it was, what it is, when and by whom."""

    name: str
    old: str  # "" where there was none
    new: str  # "" where it was removed
    changed_at_s: float  # seconds since 1970, UTC
    changed_by: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One prior image with what is known of it."""

    case_id: str  # UUID
    facts: CaseFacts
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""  # where the image came from, in words: a data set, a site
    given: tuple[str, ...] = ()  # names of the facts that a person or a table gave, because the file is silent
    frame_number: int = 1
    frame_count: int = 1
    content_sha256: str = ""
    added_at_s: float = 0.0  # seconds since 1970, UTC
    thumbnail_jpeg: bytes = b""
    flags: tuple[str, ...] = ()  # "excluded" or "no-consent": never found, never evidence
    history: tuple[LabelChange, ...] = ()  # oldest first


@dataclass(frozen=True, slots=True)
class Hit:
    """A case and how like the query it is."""

    case: Case
    similarity: float  # cosine of the two embeddings, -1 to 1; of pooled ones for a volume
    matched_count: int = 1  # how many images of the query found this case, or its series, study or patient
    score: float | None = None  # what a series was ranked by, where that is not the similarity
    matched_instance_uid: str = ""  # the instance that matched best, where a hit is a series, study or patient


@dataclass(frozen=True, slots=True)
class EncoderSummary:
    """What every surface says of the encoder that made the embeddings."""

    name: str
    version: str
    sha256: str
    dimension: int
    recipe: str
    is_medical: bool
    statement: str  # one sentence of intended use, shown to people
    runtime: str = ""  # what runs it now, for example "onnxruntime CPU"


class Call(Enum):
    """What a decision says."""

    POSITIVE = "positive"
    POSSIBLE = "possible"
    NEGATIVE = "negative"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True)
class Vote:
    """The share of the evidence that has one value of a label."""

    value: str
    share: float  # 0 to 1, as the scorer says; the shares of a decision add up to 1
    count: int  # cases with this value among the evidence


@dataclass(frozen=True, slots=True)
class Evidence:
    """One prior case that a decision rests on."""

    hit: Hit
    value: str  # the case's value of the finding's label
    weight: float  # share of the decision's weight that this case carries, 0 to 1
    is_supporting: bool = False  # a positive value; where none was declared positive, the leading value


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the ends of its confidence interval."""

    value: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A fitted threshold and what it does on held-out data."""

    name: str
    threshold: float  # scores at or above are positive
    method: str  # empirical, conformal, pac, youden, cost or fixed
    guarantee: str  # the promise and its confidence, in words; empty where nothing is promised
    sensitivity: Interval  # held-out
    specificity: Interval  # held-out
    positive_patients: int  # in the held-out data
    negative_patients: int
    called_sensitivity: Interval | None = None  # held-out, of the images with a call; None where none has the finding
    called_specificity: Interval | None = None  # likewise; None where all that have a call have the finding
    called_positive_patients: int = 0  # with the finding in an image with a call
    called_negative_patients: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number that is known in part lies between, for certain."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Strength:
    """How much of the softmax over the whole reference set lies where: evidence of 1e-6 rests on thin air."""

    in_evidence: Bounds  # on the cases that were weighed
    on_positives: Bounds  # on all cases of the scope with a positive value


@dataclass(frozen=True, slots=True)
class Measurement:
    """The answer of a finding that is a number, such as bone age."""

    most_likely: float  # the value with the largest share
    mean: float  # of the values with the three largest shares, weighted by them
    low: float
    high: float
    level: float  # of low..high
    method: str  # "conformal" has that coverage in new patients; "evidence" is the spread of the cases only
    unit: str = ""


@dataclass(frozen=True, slots=True)
class PointCall:
    """What a decision says at one point or pair: what asking for that one would answer."""

    name: str
    call: Call
    abstain_reason: str  # UPPER_SNAKE_CASE; empty unless call is ABSTAIN
    operating_point: OperatingPoint  # of a pair, the rule-in point
    rule_out_point: OperatingPoint | None
    is_asked: bool  # the decision was asked for this one, or it is the finding's default


@dataclass(frozen=True, slots=True)
class Decision:
    """What the evidence says of one finding; an abstention has no probability, point, PPV or NPV."""

    finding: str
    call: Call
    votes: tuple[Vote, ...]  # most likely first
    evidence: tuple[Evidence, ...]  # labelled cases only, most similar first
    abstain_reason: str = ""  # UPPER_SNAKE_CASE; empty unless call is ABSTAIN
    explanation: str = ""  # one sentence
    score: float | None = None  # share of the positive values, 0 to 1; None where no value was declared positive
    probability: float | None = None  # calibrated, at the caller's prevalence where one was given
    operating_point: OperatingPoint | None = None  # that the call was made at; of a pair, the rule-in point
    rule_out_point: OperatingPoint | None = None  # of a pair: below it the call is negative
    ppv: Interval | None = None  # at the caller's prevalence
    npv: Interval | None = None
    strength: Strength | None = None
    measurement: Measurement | None = None  # of a finding that is a number
    point_calls: tuple[PointCall, ...] = ()  # at every fitted point, every pair and the point of a target
    record_id: str = ""  # names the record that it can be replayed from


@dataclass(frozen=True, slots=True)
class QueryImage:
    """What one example of a query turned out to be; of several images the facts are what they state alike."""

    facts: CaseFacts
    frame_number: int = 1
    frame_count: int = 1
    rules: tuple[str, ...] = ()
    thumbnail_jpeg: bytes = b""
    image_count: int = 1  # images that it stands for: all of a stored series or study


@dataclass(frozen=True, slots=True)
class StageTimings:
    """Wall time of each stage of one request."""

    decode_ms: float = 0.0
    queue_ms: float = 0.0
    encode_ms: float = 0.0
    search_ms: float = 0.0
    total_ms: float = 0.0
    receive_ms: float = 0.0  # of a file in pieces


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The evidence that one search found."""

    hits: tuple[Hit, ...]  # most similar first, unless votes or diversity order them
    query_images: tuple[QueryImage, ...]  # in the order of the examples
    encoder: EncoderSummary
    candidate_count: int  # cases in scope: matching the filter and not excluded
    timings: StageTimings | None = None
    notes: tuple[str, ...] = ()  # what to know before the evidence is believed, a sentence each


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """The decisions about one image."""

    decisions: tuple[Decision, ...]
    query_image: QueryImage
    encoder: EncoderSummary
    notes: tuple[str, ...] = ()  # what to know before the evidence is believed, a sentence each


@dataclass(frozen=True, slots=True)
class RocPoint:
    """One threshold of a ROC curve."""

    threshold: float  # scores at or above are positive
    true_positive_rate: float  # sensitivity
    false_positive_rate: float  # 1 - specificity


@dataclass(frozen=True, slots=True)
class Roc:
    """The held-out ROC curve of a finding."""

    points: tuple[RocPoint, ...]  # strictest first
    auroc: Interval | None
    positive_patients: int
    negative_patients: int


@dataclass(frozen=True, slots=True)
class RefusedPoint:
    """An operating point that the data of a fit could not support."""

    name: str
    reason: str
    patients_needed: int  # in the calibration part, which is a half or a quarter of the library
    patients: int  # that there were in it


@dataclass(frozen=True, slots=True)
class FindingSummary:
    """What can be decided."""

    name: str
    display_name: str
    version: str
    scorer: str
    labelled_count: int
    operating_points: tuple[str, ...] = ()  # most sensitive first, then pairs
    default_operating_point: str = ""
    positive_values: tuple[str, ...] = ()  # of its label; empty where none was declared positive
    refused_points: tuple[RefusedPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of an item that was added: a case, or an error."""

    request_id: str
    case_id: str = ""
    outcome: str = ""  # added, unchanged or replaced
    error: NearcaseError | None = None


@dataclass(frozen=True, slots=True)
class LibraryStatistics:
    """What a library holds."""

    case_count: int
    patient_count: int
    size_bytes: int
    field_counts: Mapping[str, Mapping[str, int]]
    encoder: EncoderSummary
    tier: str = ""  # memory, edge or qdrant
    damaged_parts: tuple[str, ...] = ()  # of the index; the others are served
    is_building: bool = False  # a part of the index is being sealed or rewritten
    recall: RecallReport | None = None  # the last check; None where there was none


@dataclass(frozen=True, slots=True)
class RecallRow:
    """How many of the exact neighbours searches find under one filter."""

    where: str  # in the filter language; "" is no filter
    candidate_count: int
    recall: float  # 0 to 1
    sample_count: int  # searches that this rests on; 0 where recall is 1 by construction


@dataclass(frozen=True, slots=True)
class RecallReport:
    """The recall of a library's searches."""

    rows: tuple[RecallRow, ...]  # without a filter first
    k: int
    checked_at_s: float  # seconds since 1970, UTC
    is_exact: bool  # every search scores every candidate: recall is 1 by construction

    @property
    def worst(self) -> float:
        """The least recall of any row."""
        return min((row.recall for row in self.rows), default=1.0)


@dataclass(frozen=True, slots=True)
class Erasure:
    """The certificate of one erasure; it names nobody."""

    erasure_id: str
    erased_at_s: float  # seconds since 1970, UTC
    target: str  # what was named: instance, series, study, patient, retention; or replay
    case_count: int  # cases that were removed, each with its vector and thumbnail
    record_count: int  # records of decisions that were removed, or lost them as evidence
    is_rewritten: bool  # True: the files that held them were rewritten; False: a server does that later, on its own
    found_again_count: int  # cases that a search for what was erased found afterwards: 0
