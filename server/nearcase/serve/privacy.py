"""Where identifiers end: what enters the library passes here, and so does every id that a caller asks by.

With de-identification off, all of it is the identity.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nearcase.errors import InvalidInput
from nearcase.index.filters import And, Equals, Filter, In, Not, Or, Scalar
from nearcase.intake.burned_in import KEEP_TEXT, TextPolicy
from nearcase.intake.deidentify import Pseudonyms
from nearcase.intake.pseudonym_key import read_key
from nearcase.retrieve.annotations import Annotations, annotate
from nearcase.retrieve.cases import patient_key
from nearcase.settings import Settings
from nearcase.types import Case, CaseFacts

NOTHING = Annotations()
_UIDS = ("study_uid", "series_uid", "instance_uid")


@dataclass(frozen=True, slots=True)
class Privacy:
    """What the library may know.

    Labels and source are kept as they were given: they are the operator's words, and the operator's to keep clean.
    """

    pseudonyms: Pseudonyms | None = None
    adding: TextPolicy = KEEP_TEXT  # for images that enter the library
    asking: TextPolicy = KEEP_TEXT  # for images that are only searched with: masked alike, never refused

    @property
    def is_on(self) -> bool:
        """True when the library is de-identified."""
        return self.pseudonyms is not None

    @property
    def check_value(self) -> str:
        """What the library keeps to know the key again; "" when it keeps facts as stated."""
        return self.pseudonyms.check_value if self.pseudonyms else ""

    def case(self, case: Case, annotations: Annotations = NOTHING) -> Case:
        """Returns the case as the library may hold it, still no more than its file states.

        Args:
            case: As its file states it.
            annotations: As the client gave them: a given issuer makes another patient of a stated id, and a given
                patient decides how far a stated date is shifted.
        """
        if self.pseudonyms is None:
            return case
        whole = annotate(case, annotations)
        blank = {name: getattr(CaseFacts(), name) for name in whole.given}
        return dataclasses.replace(
            case,
            case_id=self.pseudonyms.case_id(case.case_id),
            facts=dataclasses.replace(self.pseudonyms.facts(whole.facts), **blank),
            content_sha256=self.pseudonyms.digest(case.content_sha256),
        )

    def given(self, case: Case, annotations: Annotations) -> Annotations:
        """Returns what was given to a case as the library may hold it.

        Args:
            case: As its file states it; whose patient it is decides how far a given date is shifted.
            annotations: As the client gave them.
        """
        if self.pseudonyms is None:
            return annotations
        whole = annotate(case, annotations)
        facts = self.pseudonyms.facts(whole.facts)
        kept = CaseFacts(**{name: getattr(facts, name) for name in whole.given})
        return dataclasses.replace(annotations, facts=kept)

    def digest(self, sha256: str) -> str:
        """Returns what the library knows a file's SHA-256 as."""
        return self.pseudonyms.digest(sha256) if self.pseudonyms else sha256

    def patient(self, patient_id: str, issuer: str) -> Filter:
        """Returns the filter for one patient, by the real id or by the pseudonym."""
        return In("patient_key", self.patient_keys(patient_id, issuer))

    def patient_keys(self, patient_id: str, issuer: str) -> tuple[str, ...]:
        """Returns the keys that a patient has where the id is the real one, or the pseudonym."""
        keys = [patient_key(patient_id, issuer)]
        if self.pseudonyms is not None:
            keys.append(patient_key(self.pseudonyms.patient(patient_id, issuer), ""))
        return tuple(keys)

    def where(self, where: Filter) -> Filter:
        """Returns a caller's filter, whose ids match what they are in the world and what they are in the library."""
        if self.pseudonyms is None:
            return where
        match where:
            case Equals(field, value):
                return self._either(where, field, (value,))
            case In(field, values):
                return self._either(where, field, values)
            case And(parts):
                return And(tuple(self.where(part) for part in parts))
            case Or(parts):
                return Or(tuple(self.where(part) for part in parts))
            case Not(part):
                return Not(self.where(part))
            case _:
                return where

    def _either(self, where: Filter, field: str, values: tuple[Scalar, ...]) -> Filter:
        stored = tuple(name for value in values for name in self._stored(field, str(value)))
        return In(field, (*values, *stored)) if stored else where

    def _stored(self, field: str, value: str) -> list[str]:
        """What the library may hold in place of an id; a patient key may be split at any of its bars."""
        if self.pseudonyms is None:
            return []
        if field in _UIDS:
            return [self.pseudonyms.uid(value)]
        if field == "content_sha256":
            return [self.pseudonyms.digest(value)]
        if field == "patient_id":
            return [self.pseudonyms.patient(value, "")]
        if field != "patient_key":
            return []
        bars = [at for at, letter in enumerate(value) if letter == "|"]
        patients = (self.pseudonyms.patient(value[at + 1 :], value[:at]) for at in bars)
        return [patient_key(patient, "") for patient in patients if patient]


def open_privacy(settings: Settings) -> Privacy:
    """Returns what the settings ask for.

    Raises:
        InvalidInput: De-identification is on and its key is missing, weak, open to others, or kept with the library.
    """
    if not settings.deidentify:
        return Privacy()
    file = settings.pseudonym_key
    if file is None:
        raise InvalidInput("setting deidentify is on, expected a pseudonym_key with it", field="pseudonym_key")
    if file.resolve().is_relative_to(settings.data.resolve()):
        message = f"pseudonym key {file.name}: expected it outside the data folder, which a copy would take it with"
        raise InvalidInput(message, reason="PSEUDONYM_KEY", field="pseudonym_key")
    masks = settings.burned_in == "mask"
    return Privacy(
        Pseudonyms(read_key(file)),
        adding=TextPolicy(refuses=True, masks=masks, takes_plain=settings.trust_plain_images),
        asking=TextPolicy(masks=masks),
    )
