"""What a library may keep of a case's facts once patients must not be named: a keep-list, and keyed pseudonyms.

Nothing is removed from a data set here, because no data set is ever stored: only the facts that are named below, each
kept, changed or dropped as the Basic Application Level Confidentiality Profile asks (PS3.15 Annex E, Table E.1-1).
"""

from __future__ import annotations

import datetime
import hmac
import json
import uuid

from nearcase.errors import InvalidInput
from nearcase.types import CaseFacts

MIN_KEY_BYTES = 32
"""As long as HMAC-SHA256's output; a shorter key is the weakest part (RFC 2104 section 3)."""

OLDEST_YEARS = 90.0
"""Ages from here on are one group: so old a patient can be known by the age alone (45 CFR 164.514(b)(2)(i)(C))."""

MAX_SHIFT_DAYS = 3650
VIEWS = frozenset(
    [
        "AP",
        "PA",
        "LL",
        "RL",
        "RLD",
        "LLD",
        "RLO",
        "LLO",
        "LAT",
        "OBL",
        "AXIAL",
        "MLO",
        "CC",
        "ML",
        "LM",
        "XCC",
        "XCCL",
        "XCCM",
        "SIO",
        "FB",
        "ISO",
        "CV",
        "AT",
        "CCM",
        "CCL",
        "XCCLAT",
    ]
)
"""View positions as PS3.3 C.8.1.1.9 and C.8.11.7 define them; the attribute is free text in too many files."""

_STANDARD_UIDS = "1.2.840.10008."  # SOP classes of the standard itself (PS3.5 section 9.1)


class Pseudonyms:
    """Replaces identifiers by what only the holder of the key can make of them; the same key gives the same.

    They are applied once, to what a file or a person states: a pseudonym is an identifier like any other, and
    gets another pseudonym.

    Args:
        key: The secret of one library, at least MIN_KEY_BYTES.

    Raises:
        InvalidInput: The key is too short.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise InvalidInput(f"expected a pseudonym key of at least {MIN_KEY_BYTES} bytes, got {len(key)}")
        self._key = key

    @property
    def check_value(self) -> str:
        """What a library keeps of the key, to know it again; it tells nothing of the key or of a pseudonym."""
        return self._keyed("check").hex()

    def patient(self, patient_id: str, issuer: str) -> str:
        """Returns the patient's pseudonym; an id means nothing without its issuer (PS3.3 C.2.2). "" without an id."""
        return self._keyed("patient", issuer, patient_id)[:16].hex() if patient_id else ""

    def uid(self, uid: str) -> str:
        """Returns a UID of the form 2.25.<UUID as decimal> (PS3.5 annex B.2), the same in whatever role; "" for ""."""
        return f"2.25.{self._uuid('uid', uid).int}" if uid else ""

    def digest(self, sha256: str) -> str:
        """Returns what stands for a file's SHA-256, which anyone who holds the file could compute."""
        return self._keyed("sha256", sha256).hex()

    def case_id(self, case_id: str) -> str:
        """Returns what stands for a case id, which anyone who holds the SOP Instance UID could compute."""
        return str(self._uuid("case", case_id))

    def facts(self, facts: CaseFacts) -> CaseFacts:
        """Returns what may be stored of facts; a field that is not named here is dropped.

        Identifiers, UIDs and dates are replaced, descriptions and the issuer dropped. Modality, body part, side, view,
        manufacturer and model are kept: PS3.15 Table E.1-1 does not list them. Sex and a coarse age are kept under its
        Retain Patient Characteristics Option (DCM 113108); without them fairness can not be told.
        """
        return CaseFacts(
            patient_id=self.patient(facts.patient_id, facts.patient_id_issuer),
            study_uid=self.uid(facts.study_uid),
            series_uid=self.uid(facts.series_uid),
            instance_uid=self.uid(facts.instance_uid),
            sop_class_uid=facts.sop_class_uid if facts.sop_class_uid.startswith(_STANDARD_UIDS) else "",
            modality=facts.modality,
            body_part=facts.body_part,
            laterality=facts.laterality,
            view=facts.view if facts.view in VIEWS else "",
            age_years=coarse_age(facts.age_years),
            sex=facts.sex,
            manufacturer=facts.manufacturer,
            device_model=facts.device_model,
            study_date=self._shifted(facts),
        )

    def _shifted(self, facts: CaseFacts) -> str:
        """Returns the study date, earlier by days that are the patient's own, so that intervals stay.

        This is the Modified Dates Option of PS3.15 (DCM 113107). Without a patient id the study stands in; a date with
        neither, or that is none, is dropped.
        """
        person = (facts.patient_id_issuer, facts.patient_id) if facts.patient_id else (facts.study_uid,)
        if not any(person):
            return ""
        days = 1 + int.from_bytes(self._keyed("days", *person)[:8], "big") % MAX_SHIFT_DAYS
        try:
            day = datetime.datetime.strptime(facts.study_date, "%Y%m%d").date() - datetime.timedelta(days)
        except (ValueError, OverflowError):
            return ""
        return f"{day.year:04d}{day:%m%d}"

    def _uuid(self, *words: str) -> uuid.UUID:
        return uuid.UUID(bytes=self._keyed(*words)[:16], version=4)

    def _keyed(self, *words: str) -> bytes:
        """HMAC-SHA256 of the words; JSON keeps ("a", "bc") and ("ab", "c") apart."""
        return hmac.digest(self._key, json.dumps(words).encode(), "sha256")


def coarse_age(years: float | None) -> float | None:
    """Returns whole years up to 90, whole months under two years: a birth date can not be computed from them."""
    if years is None:
        return None
    if years < 2:
        return int(years * 12 + 1e-6) / 12
    return min(float(int(years)), OLDEST_YEARS)
