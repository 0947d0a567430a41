"""The server's settings: one frozen object, read once from TOML, then from NEARCASE_* variables.

An unknown key or a value of the wrong type stops the start; nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from nearcase.errors import InvalidInput

MIB = 2**20
FOR_CLIENTS = ("server",)
"""NEARCASE_ variables that the commands read and the server does not."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; each default says why."""

    data: Path = Path("nearcase-data")
    """Folder of the library; one server at a time."""

    listen: str = "127.0.0.1:50051"
    """Loopback only, because there is no authentication yet; port 0 takes a free one."""

    encoder: Path | None = None
    """Folder of the encoder; unset takes the general-purpose default that nearcase ships."""

    findings: Path | None = None
    """Folder of the findings that can be decided (*.toml, with their fits beside them); unset declares none."""

    records: Path | None = None
    """Folder that keeps a record of every decision; unset is `records` in the data folder."""

    decode_workers: int = 0
    """Child processes that parse and decode; 0 is one for each core, at most 4, since each holds memory."""

    decode_wall_s: float = 9.0
    """Wall time one file may take, so that its refusal arrives within 10 s; the slowest honest film (JPEG 2000, 3000 x
    2500) takes under 1 s of CPU."""

    decode_memory_bytes: int = 960 * MIB
    """Memory one file may take in its child, which stays below 1 GiB with its libraries; a 1 MB file was seen to take
    2.1 GB."""

    max_message_bytes: int = 64 * MIB
    """Largest gRPC message; a raw film is 15 MB, a mammogram 25 to 50 MB. Larger files come in chunks."""

    max_image_bytes: int = 512 * MIB
    """Largest file that may come in chunks; tomosynthesis is hundreds of MB."""

    max_waiting: int = 256
    """Images that may wait for the encoder; more are refused with RESOURCE_EXHAUSTED."""

    max_concurrent_requests: int = 256
    """Requests in progress; more are refused with RESOURCE_EXHAUSTED before their handlers start."""

    max_adding_streams: int = 64
    """Streams that add images, which have places of their own, so that they keep no search out."""

    stream_idle_s: float = 300.0
    """An adding stream that sends nothing for so long is ended; its unfinished upload can be resumed."""

    drain_s: float = 10.0
    """Time that requests in progress have to finish after SIGTERM; Kubernetes kills after 30 s by default."""

    reflection: bool = False
    """gRPC reflection shows the API to anyone who can connect; off by default."""

    deidentify: bool = False
    """The library keeps pseudonyms, shifted dates and no descriptions; for good, from its first start on."""

    pseudonym_key: Path | None = None
    """File with the secret that makes the pseudonyms; deidentify does not start without it."""

    burned_in: str = "refuse"
    """Images that may hold text, while deidentify is on: "refuse", or "mask" what can be (ultrasound)."""

    trust_plain_images: bool = False
    """While deidentify is on, PNG, JPEG and NIfTI files are refused, as they can not state that they hold no text;
    true is the operator's word that theirs hold none."""

    @property
    def records_folder(self) -> Path:
        """Where the records of decisions are kept."""
        return self.records or self.data / "records"

    @property
    def decode_worker_count(self) -> int:
        """How many decoding processes to start."""
        return self.decode_workers or min(os.cpu_count() or 1, 4)


def read_settings(file: Path | None = None, environment: Mapping[str, str] | None = None, **given: object) -> Settings:
    """Returns the defaults, overridden by the file, then by NEARCASE_* variables, then by what is given and not None.

    Raises:
        InvalidInput: The file can not be read, a key is unknown, or a value has the wrong type.
    """
    values: dict[str, object] = _from_file(file) if file else {}
    values |= _from_environment(os.environ if environment is None else environment)
    values |= {key: value for key, value in given.items() if value is not None}
    kinds = get_type_hints(Settings)
    unknown = sorted(set(values) - set(kinds))
    if unknown:
        raise InvalidInput(f"unknown setting {unknown[0]!r}; known: {', '.join(sorted(kinds))}", field=unknown[0])
    converted: dict[str, Any] = {key: _convert(key, value, kinds[key]) for key, value in values.items()}
    return _checked(dataclasses.replace(Settings(), **converted))


def _from_file(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"settings file {file.name}: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    prefix = "NEARCASE_"
    ours = {key.removeprefix(prefix).lower(): text for key, text in environment.items() if key.startswith(prefix)}
    return {key: text for key, text in ours.items() if key not in FOR_CLIENTS}


def _convert(key: str, value: object, kind: object) -> object:
    """Converts text (from the environment) and TOML values to the field's type; a bool is not a number here."""
    try:
        if isinstance(value, bool) or kind is bool:
            if kind is bool:
                return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        elif kind in (int, float):
            return int(str(value)) if kind is int else float(str(value))
        elif kind in (Path, Path | None) and isinstance(value, (str, Path)):
            return Path(value)
        elif kind is str and isinstance(value, str):
            return value
    except (KeyError, ValueError):
        pass
    raise InvalidInput(f"setting {key} is {value!r}, expected {getattr(kind, '__name__', kind)}", field=key)


LEAST: dict[str, float] = {
    "decode_workers": 0,
    "drain_s": 0,
    "decode_memory_bytes": 256 * MIB,
    "max_message_bytes": MIB,
}
"""Least values where they are not 1; a decoding child takes 60 MiB before it reads anything."""
MOST = {"max_message_bytes": 2**31 - 1, "decode_workers": 256}
"""Largest values where there is one; grpc counts message bytes in 32 bits."""


def _checked(settings: Settings) -> Settings:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            least, most = LEAST.get(field.name, 1), MOST.get(field.name, 2**40)
            if not least <= value <= most:
                message = f"setting {field.name} is {value}, expected {least} to {most}"
                raise InvalidInput(message, field=field.name)
    if str(settings.data) in ("", "."):
        raise InvalidInput("setting data is empty, expected a folder of its own", field="data")
    _check_address(settings.listen)
    _check_deidentification(settings)
    return settings


def _check_address(listen: str) -> None:
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise InvalidInput(f"setting listen is {listen!r}, expected HOST:PORT with a port to 65535", field="listen")


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
