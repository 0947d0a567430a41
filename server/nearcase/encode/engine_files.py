"""Engine files: built on the GPU that runs them, found again by everything that they depend on.

An engine is code. It is read from a folder that only the server's user writes to, and only when its bytes have the
SHA-256 that its builder wrote beside it.

    FOLDER/<key>.engine    the engine
    FOLDER/<key>.json      what it was built from and for, and the SHA-256 of the engine
    FOLDER/timing.cache    what TensorRT measured of this GPU; makes the next build shorter
    FOLDER/lock            held by the one builder
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from nearcase.errors import Unready


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything that an engine depends on."""

    onnx_sha256: str
    tensorrt: str  # version
    gpu: str  # name
    compute_capability: str
    driver: int  # CUDA major version of the driver
    precision: str
    buckets: tuple[int, ...]

    @property
    def name(self) -> str:
        """The file's name, 32 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def builder_lock(folder: Path) -> Iterator[None]:
    """Holds the folder for one builder.

    Raises:
        Unready: Another process is building there, or the folder can not be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unready(f"Expected a folder for engines, got: {error.strerror}", reason="ENGINE_FOLDER") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unready("Expected to build alone, got another builder in the folder", reason="ENGINE_BUILDING") from None
    else:
        yield
    finally:
        os.close(descriptor)


def write_engine(folder: Path, key: EngineKey, engine: bytes) -> Path:
    """Writes an engine whole or not at all, and returns its file.

    Raises:
        Unready: The disk refused.
    """
    about = asdict(key) | {"sha256": hashlib.sha256(engine).hexdigest(), "size_bytes": len(engine)}
    try:
        write_whole(folder / f"{key.name}.engine", engine)
        # The description comes last: an engine without one is never read.
        write_whole(folder / f"{key.name}.json", (json.dumps(about, indent=2) + "\n").encode())
    except OSError as error:
        raise Unready(f"The engine can not be written: {error.strerror}", reason="DISK") from error
    return folder / f"{key.name}.engine"


def read_engine(folder: Path, key: EngineKey) -> bytes:
    """Returns the bytes of the engine that was built for this key.

    Raises:
        Unready: There is none (reason ENGINE_ABSENT), or it is damaged or others may write to it (ENGINE_UNSAFE).
    """
    file, about = folder / f"{key.name}.engine", folder / f"{key.name}.json"
    if not (file.is_file() and about.is_file()):
        raise Unready(
            f"Expected an engine for {key.gpu}, TensorRT {key.tensorrt} and {key.precision}, got none; build it on "
            "this machine with nearcase-models engine build",
            reason="ENGINE_ABSENT",
        )
    for path in (folder, file, about):
        _refuse_foreign(path)
    try:
        stated, engine = json.loads(about.read_bytes()), file.read_bytes()
        sound = stated["sha256"] == hashlib.sha256(engine).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unready("The engine can not be read; build it again", reason="ENGINE_UNSAFE") from error
    if not sound:
        raise Unready("Expected the engine that was built, got other bytes; build it again", reason="ENGINE_UNSAFE")
    return engine


def listed(folder: Path) -> list[dict[str, object]]:
    """Returns what is said of each engine in the folder, by name; what can not be read is left out."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            about = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(about, dict):
            found.append({"name": file.stem, **about})
    return found


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file, on the disk when it returns."""
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _refuse_foreign(path: Path) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise Unready(
            f"Expected {path.name} to be writable by this server's user alone, got others", reason="ENGINE_UNSAFE"
        )
