"""The ledger of erasures: what was erased, told so that it names nobody, and so that it can be erased again.

    {"format": "nearcase-erasures/1", "salt": "..."}
    {"intent": ID, "tenant": "", "target": "patient", "at_s": 1700000000.0, "keys": [HASH],
     "cases": [HASH, ...], "images": [HASH, ...]}
    {"done": ID, "at_s": ..., "case_count": 12, "record_count": 3, "is_rewritten": true, "found_again_count": 0}
    {"dropped": ID}

One JSON object a line, appended and on the disk before anything else happens. A hash is HMAC-SHA256 under the ledger's
random salt, cut to 128 bits: it can be compared, never read. Who holds the ledger and guesses an id can see that the
guess was right; the ledger is therefore kept as the library is. An intent without its end was cut short by a crash.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearcase.errors import Unready
from nearcase.retrieve.cases import patient_key
from nearcase.types import Case, Erasure

FORMAT = "nearcase-erasures/1"
_HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to be erased, as hashes."""

    erasure_id: str
    tenant: str
    target: str  # instance, series, study, patient, retention or replay
    at_s: float  # cases that were added later are others
    keys: tuple[str, ...]  # hashes of what was named: a patient, a study ...; of the cases alone for retention
    cases: tuple[str, ...]  # hashes of the ids of the cases
    images: tuple[str, ...]  # hashes of the SHA-256 of their files, which decision records may name


class Ledger:
    """One file for all tenants; lines are only ever added, by one thread at a time."""

    def __init__(self, file: Path, salt: bytes, lines: list[dict[str, Any]]) -> None:
        self._file, self._salt = file, salt
        self._intents: dict[str, Intent] = {}
        self._done: dict[str, tuple[Intent, Erasure]] = {}  # oldest first
        for line in lines:
            self._take(line)

    @classmethod
    def open(cls, file: Path) -> Ledger:
        """Returns the ledger in a file, which is made where there is none; a line that was cut short is taken away.

        Raises:
            Unready: With reason LEDGER_DAMAGED: a line is no line of a ledger. With reason DISK: the disk refuses.
        """
        try:
            if not file.exists():
                _make(file)
            data = file.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                os.truncate(file, len(whole))
            if not whole:  # cut short before its first line was on the disk
                file.unlink()
                return cls.open(file)
            first, *lines = (json.loads(line) for line in whole.splitlines())
            if first["format"] != FORMAT:
                raise ValueError
            return cls(file, bytes.fromhex(first["salt"]), lines)
        except OSError as error:
            raise Unready(f"the ledger of erasures can not be used: {error.strerror}", reason="DISK") from error
        except (ValueError, KeyError, TypeError) as error:
            message = f"the ledger of erasures {file} is damaged; restore it from a copy"
            raise Unready(message, reason="LEDGER_DAMAGED") from error

    def hashed(self, tenant: str, kind: str, value: str) -> str:
        """Returns what the ledger knows a value as."""
        text = json.dumps([tenant, kind, value]).encode()
        return hmac.digest(self._salt, text, "sha256")[:_HASH_BYTES].hex()

    def keys_of(self, tenant: str, case: Case) -> Iterator[str]:
        """Yields the hashes of everything that a case could have been named by."""
        facts = case.facts
        values = {
            "case": case.case_id,
            "instance": facts.instance_uid,
            "series": facts.series_uid,
            "study": facts.study_uid,
            "patient": patient_key(facts.patient_id, facts.patient_id_issuer),
        }
        yield from (self.hashed(tenant, kind, value) for kind, value in values.items() if value)

    def intend(self, intent: Intent) -> None:
        """Writes down what is about to be erased.

        Raises:
            Unready: The disk refuses; nothing must be erased.
        """
        self._append(
            {
                "intent": intent.erasure_id,
                "tenant": intent.tenant,
                "target": intent.target,
                "at_s": intent.at_s,
                "keys": intent.keys,
                "cases": intent.cases,
                "images": intent.images,
            }
        )

    def finish(self, erasure: Erasure) -> None:
        """Writes down that it is erased.

        Raises:
            Unready: The disk refuses; it is found erased at the next start.
        """
        self._append(
            {
                "done": erasure.erasure_id,
                "at_s": erasure.erased_at_s,
                "case_count": erasure.case_count,
                "record_count": erasure.record_count,
                "is_rewritten": erasure.is_rewritten,
                "found_again_count": erasure.found_again_count,
            }
        )

    def drop(self, erasure_id: str) -> None:
        """Writes down that nothing of an intent was done, nor will be."""
        self._append({"dropped": erasure_id})

    def unfinished(self) -> list[Intent]:
        """Returns the intents without an end, oldest first."""
        return list(self._intents.values())

    def erasures(self, tenant: str) -> list[Erasure]:
        """Returns the certificates of a tenant, newest first."""
        return [erasure for intent, erasure in reversed(list(self._done.values())) if intent.tenant == tenant]

    def since(self, erasure_id: str) -> list[Intent]:
        """Returns what was erased after an erasure, oldest first; all of it where the ledger does not know that one."""
        names = list(self._done)
        start = names.index(erasure_id) + 1 if erasure_id in self._done else 0
        return [self._done[name][0] for name in names[start:]]

    @property
    def last_id(self) -> str:
        """The newest erasure that was done; "" without one."""
        return next(reversed(list(self._done)), "")

    @property
    def last_at_s(self) -> float:
        """The latest time in it, in seconds since 1970; 0 without one."""
        return max((erasure.erased_at_s for _, erasure in list(self._done.values())), default=0.0)

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with self._file.open("ab") as file:
                start = file.tell()
                try:
                    file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self._file, start)  # half a line would hide the next one
                    raise
        except OSError as error:
            raise Unready(f"the ledger of erasures can not be written: {error.strerror}", reason="DISK") from error
        self._take(json.loads(json.dumps(line)))

    def _take(self, line: dict[str, Any]) -> None:
        if "intent" in line:
            names = (line["intent"], line["tenant"], line["target"], float(line["at_s"]))
            hashes = (tuple(line[part]) for part in ("keys", "cases", "images"))
            self._intents[line["intent"]] = Intent(*names, *hashes)
        elif "done" in line:
            intent = self._intents.pop(line["done"])
            self._done[intent.erasure_id] = intent, _certificate(intent, line)
        else:
            del self._intents[line["dropped"]]


def _certificate(intent: Intent, line: Mapping[str, Any]) -> Erasure:
    return Erasure(
        erasure_id=intent.erasure_id,
        erased_at_s=float(line["at_s"]),
        target=intent.target,
        case_count=int(line["case_count"]),
        record_count=int(line["record_count"]),
        is_rewritten=bool(line["is_rewritten"]),
        found_again_count=int(line["found_again_count"]),
    )


def _make(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(json.dumps({"format": FORMAT, "salt": secrets.token_hex(32)}).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    folder = os.open(file.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
