"""The secret of a trail: it seals every record, and makes the names that stand for cases and patients.

Who has the folder and not the key can neither change a record unseen nor try whether a patient is in it. Who has both
can do both: keep the key elsewhere (setting `audit_key`) where that matters.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from nearcase.errors import InvalidInput

LEAST_BYTES, MOST_BYTES = 32, 4096
_NAME_BYTES = 12  # 96 bits: among 10 million names two alike are one in 10^15


@dataclass(frozen=True, slots=True)
class AuditKey:
    """Two keys that are made of one secret, so that no name can pass for a seal."""

    sealing: bytes
    naming: bytes

    @classmethod
    def of(cls, secret: bytes) -> AuditKey:
        """Returns the keys of a secret."""
        return cls(
            hmac.digest(secret, b"nearcase audit seal", "sha256"), hmac.digest(secret, b"nearcase name", "sha256")
        )

    @property
    def check_value(self) -> str:
        """What a trail keeps to know its key again."""
        return hmac.digest(self.sealing, b"check", "sha256").hex()[:16]

    def seal(self, data: bytes) -> str:
        """Returns the HMAC-SHA256 of a line, hexadecimal."""
        return hmac.digest(self.sealing, data, "sha256").hex()

    def named(self, tenant: str, kind: str, value: str) -> str:
        """Returns what the trail knows a value as, 16 letters; "" stays "".

        Args:
            tenant: Whose it is: another tenant's value has another name.
            kind: case, patient, study, series, instance, image, filter or peer.
            value: In clear.
        """
        if not value:
            return ""
        text = json.dumps([tenant, kind, value]).encode()
        return base64.urlsafe_b64encode(hmac.digest(self.naming, text, "sha256")[:_NAME_BYTES]).decode()


def default_key_file(folder: Path) -> Path:
    """Returns where the key is that a server makes for itself: beside the folder, not in it."""
    return folder.with_name(folder.name + ".key")


def make_key(file: Path) -> None:
    """Writes a new secret for its owner alone, durably; OSError where that can not be."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(secrets.token_bytes(LEAST_BYTES))
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(file.parent)


def read_key(file: Path) -> AuditKey:
    """Returns the key in a file.

    Raises:
        InvalidInput: With reason AUDIT_KEY: it can not be read, is no plain file, is open to everyone, or is no secret.
    """
    try:
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:  # a pipe must not hang us
            mode = os.fstat(opened.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise _unfit(file, "expected a plain file, got something else")
            if mode & 0o007:  # the group is the pod's own, where the file is a mounted secret
                raise _unfit(file, f"expected a file that others may not use (mode 0600), got {mode & 0o777:04o}")
            secret = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unfit(file, f"it can not be read: {error.strerror}") from None
    if not LEAST_BYTES <= len(secret) <= MOST_BYTES or len(set(secret)) < 8:
        raise _unfit(file, f"expected {LEAST_BYTES} to {MOST_BYTES} random bytes")
    return AuditKey.of(secret)


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unfit(file: Path, why: str) -> InvalidInput:
    return InvalidInput(f"audit key {file.name}: {why}", reason="AUDIT_KEY", field="audit_key")
