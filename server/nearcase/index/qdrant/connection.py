"""The way to a Qdrant server: address, encryption and key, from the settings."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qdrant_client import AsyncQdrantClient

from nearcase.errors import Unready
from nearcase.settings import QDRANT_PORT, Settings

_OPTIONS = {
    "grpc.keepalive_time_ms": 20_000,  # finds out that a host is gone without a word
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 1_000,  # gRPC's own 120 s would keep us off a server that is back
}


def connect(settings: Settings) -> AsyncQdrantClient:
    """Returns a client; it connects with its first call.

    Raises:
        Unready: A file that the settings name can not be read, or the key's file is open to others.
    """
    url = urlsplit(settings.qdrant_url)
    options: dict[str, Any] = dict(_OPTIONS)
    if settings.qdrant_ca is not None:
        options["root_certificates"] = _bytes(settings.qdrant_ca, "qdrant_ca")
    # As a header: given as api_key it makes the client print a warning on a connection to this very machine.
    headers = {"api-key": _key(settings.qdrant_api_key)} if settings.qdrant_api_key is not None else None
    return AsyncQdrantClient(
        host=url.hostname,
        grpc_port=url.port or QDRANT_PORT,
        https=url.scheme == "https",
        prefer_grpc=True,
        timeout=round(settings.qdrant_timeout_s),
        headers=headers,
        grpc_options=options,
        check_compatibility=False,  # it asks the REST port in a thread, which may be closed to us
    )


def _key(file: Path) -> str:
    text = _bytes(file, "qdrant_api_key").strip()
    if stat.S_IMODE(os.stat(file).st_mode) & stat.S_IRWXO:
        raise Unready("The file of qdrant_api_key can be used by every user of this machine; take that right away.")
    if not text or not text.isascii() or b"\n" in text:
        raise Unready("Expected one line of ASCII in the file of qdrant_api_key, got another content.")
    return text.decode("ascii")


def _bytes(file: Path, setting: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Unready(f"The file of {setting} can not be read: {error.strerror}.") from error
