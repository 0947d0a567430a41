"""Whether settings can be meant: ranges of numbers, known words, and what must be given together."""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import urlsplit

from nearcase.errors import InvalidInput
from nearcase.settings import LOOPBACK, MIB, QDRANT_PORT, Settings

RUNTIMES = ("cpu", "cuda", "tensorrt")
AUDITS = ("strict", "relaxed", "off")
LEAST: dict[str, float] = {
    "retention_days": 0,
    "recall_check_hours": 0,
    "slow_request_ms": 0,
    "qdrant_shards": 0,
    "qdrant_write_consistency": 0,
    "gpu": 0,
    "decode_workers": 0,
    "drain_s": 0,
    "decode_memory_bytes": 256 * MIB,
    "max_message_bytes": MIB,
}
"""Least values where they are not 1; a decoding child takes 60 MiB before it reads anything."""
MOST = {"max_message_bytes": 2**31 - 1, "decode_workers": 256}
"""Largest values where there is one; grpc counts message bytes in 32 bits."""


def checked(settings: Settings) -> Settings:
    """Returns the settings as they are.

    Raises:
        InvalidInput: A value can not be meant, or does not go with another.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            least, most = LEAST.get(field.name, 1), MOST.get(field.name, 2**40)
            if not least <= value <= most:
                message = f"setting {field.name} is {value}, expected {least} to {most}"
                raise InvalidInput(message, field=field.name)
    if str(settings.data) in ("", "."):
        raise InvalidInput("setting data is empty, expected a folder of its own", field="data")
    if settings.runtime not in RUNTIMES:
        raise InvalidInput(f"setting runtime is {settings.runtime!r}, expected {', '.join(RUNTIMES)}", field="runtime")
    if settings.tenants not in ("none", "metadata", "caller"):
        message = f"setting tenants is {settings.tenants!r}, expected none, metadata or caller"
        raise InvalidInput(message, field="tenants")
    _check_address(settings.listen)
    for name in ("health_listen", "metrics_listen"):
        if getattr(settings, name):
            _check_address(getattr(settings, name), name)
    if settings.log_format not in ("text", "json"):
        raise InvalidInput(f"setting log_format is {settings.log_format!r}, expected text or json", field="log_format")
    if not re.fullmatch(r"(https?://[^/@\s]+:[0-9]{1,5})?", settings.otlp_endpoint):
        raise InvalidInput("setting otlp_endpoint is expected to be http(s)://HOST:PORT", field="otlp_endpoint")
    if settings.max_bytes_in_flight < max(settings.max_message_bytes, settings.max_image_bytes):
        message = "setting max_bytes_in_flight is expected to be at least max_message_bytes and max_image_bytes"
        raise InvalidInput(message, field="max_bytes_in_flight")
    _check_audit(settings)
    _check_deidentification(settings)
    _check_index(settings)
    return settings


def _check_address(listen: str, field: str = "listen") -> None:
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise InvalidInput(f"setting {field} is {listen!r}, expected HOST:PORT with a port to 65535", field=field)


def _check_audit(settings: Settings) -> None:
    if settings.audit not in AUDITS:
        raise InvalidInput(f"setting audit is {settings.audit!r}, expected {', '.join(AUDITS)}", field="audit")
    given = [
        field.name
        for field in dataclasses.fields(settings)
        if field.name.startswith("audit_") and getattr(settings, field.name) != field.default
    ]
    if given and settings.audit == "off":
        raise InvalidInput(f"setting {given[0]} is given, expected audit to be on with it", field="audit")
    if settings.audit_syslog:
        _check_address(settings.audit_syslog, "audit_syslog")
    elif alone := [name for name in given if name.startswith("audit_syslog_")]:
        raise InvalidInput(f"setting {alone[0]} is given, expected audit_syslog with it", field="audit_syslog")
    if (settings.audit_syslog_certificate is None) != (settings.audit_syslog_key is None):
        message = "expected audit_syslog_certificate and audit_syslog_key, or neither"
        raise InvalidInput(message, field="audit_syslog_certificate")


def _check_deidentification(settings: Settings) -> None:
    """A setting that needs de-identification and finds it off is an operator's slip that would store names."""
    if settings.burned_in not in ("refuse", "mask"):
        raise InvalidInput(f"setting burned_in is {settings.burned_in!r}, expected refuse or mask", field="burned_in")
    given = {
        "pseudonym_key": settings.pseudonym_key is not None,
        "burned_in": settings.burned_in == "mask",
        "trust_plain_images": settings.trust_plain_images,
    }
    idle = [name for name, is_given in given.items() if is_given]
    if idle and not settings.deidentify:
        raise InvalidInput(f"setting {idle[0]} is given, expected deidentify = true with it", field="deidentify")
    if settings.deidentify and settings.pseudonym_key is None:
        raise InvalidInput("setting deidentify is on, expected a pseudonym_key with it", field="pseudonym_key")


_INDEXES = ("edge", "qdrant")
_QUANTIZATIONS = ("none", "int8", "4bit")
_COLLECTION = re.compile(r"[A-Za-z0-9_-]{1,200}")


def _check_index(settings: Settings) -> None:
    """Settings of a tier that is not chosen are an operator's slip: the library would be somewhere else."""
    if settings.index not in _INDEXES:
        raise InvalidInput(f"setting index is {settings.index!r}, expected {' or '.join(_INDEXES)}", field="index")
    given = [
        field.name
        for field in dataclasses.fields(settings)
        if field.name.startswith("qdrant_") and getattr(settings, field.name) != field.default
    ]
    if given and settings.index != "qdrant":
        raise InvalidInput(f'setting {given[0]} is given, expected index = "qdrant" with it', field="index")
    if settings.qdrant_quantization not in _QUANTIZATIONS:
        message = f"setting qdrant_quantization is {settings.qdrant_quantization!r}, expected "
        raise InvalidInput(message + ", ".join(_QUANTIZATIONS), field="qdrant_quantization")
    if not _COLLECTION.fullmatch(settings.qdrant_collection):
        message = "setting qdrant_collection is expected to be of 1 to 200 letters, digits, - and _"
        raise InvalidInput(message, field="qdrant_collection")
    if settings.qdrant_write_consistency > settings.qdrant_replicas:
        message = "setting qdrant_write_consistency is expected to be at most qdrant_replicas"
        raise InvalidInput(message, field="qdrant_write_consistency")
    _check_qdrant_url(settings)


def _check_qdrant_url(settings: Settings) -> None:
    """The address is not repeated: it may have been given a password."""
    try:
        url = urlsplit(settings.qdrant_url)
        is_sound = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is none
        is_sound = False
    if not is_sound or url.username is not None or url.path not in ("", "/") or url.query or url.fragment:
        message = f"setting qdrant_url is expected to be http(s)://HOST:PORT, the port of gRPC ({QDRANT_PORT})"
        raise InvalidInput(message, field="qdrant_url")
    if settings.qdrant_api_key is not None and url.scheme == "http" and url.hostname not in LOOPBACK:
        message = "setting qdrant_api_key is given, expected https in qdrant_url: the key would be readable on its way"
        raise InvalidInput(message, field="qdrant_url")
    if settings.qdrant_ca is not None and url.scheme == "http":
        raise InvalidInput("setting qdrant_ca is given, expected https in qdrant_url", field="qdrant_url")
