"""The key file: a secret, long enough, and its owner's alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from nearcase.errors import InvalidInput
from nearcase.intake.pseudonym_key import MAX_KEY_BYTES, read_key


def key_file(folder: Path, key: bytes, mode: int = 0o600) -> Path:
    file = folder / "the.key"
    file.write_bytes(key)
    file.chmod(mode)
    return file


def refusal(file: Path) -> str:
    with pytest.raises(InvalidInput) as refused:
        read_key(file)
    assert refused.value.reason == "PSEUDONYM_KEY"
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "key", [secrets.token_bytes(32), secrets.token_hex(32).encode() + b"\n", bytes(range(256)) * 16]
)
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_is_read_whole(tmp_path: Path, key: bytes, mode: int) -> None:
    assert read_key(key_file(tmp_path, key, mode)) == key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o602])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    assert f"{mode:04o}" in refusal(key_file(tmp_path, secrets.token_bytes(32), mode))


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        (b"", "got 0"),
        (bytes(range(31)), "got 31"),
        (bytes(range(256)) * 17, "got more"),
        (bytes(64), "got 1 different"),
        (b"abcdefg" * 10, "got 7 different"),
    ],
)
def test_what_is_no_secret_is_refused(tmp_path: Path, key: bytes, fault: str) -> None:
    message = refusal(key_file(tmp_path, key))
    assert fault in message
    assert str(MAX_KEY_BYTES) in message or "different" in message


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent")
    assert "plain file" in refusal(tmp_path) or "directory" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "plain file" in refusal(tmp_path / "pipe")
    assert "plain file" in refusal(Path("/dev/zero"))
