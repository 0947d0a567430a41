"""The way to a Qdrant server: its client is optional, and the connection is encrypted where it should be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from qdrant_indexes import IDENTITY, some
from qdrant_server import QdrantServer

from nearcase.errors import Unready
from nearcase.index.opening import open_tier
from nearcase.index.qdrant.index import QdrantIndex
from nearcase.settings import Settings


async def test_a_missing_client_is_one_line_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("nearcase.index.qdrant.index", "qdrant_client"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(Unready, match=r"nearcase\[qdrant\]") as refused:
        await open_tier(Settings(index="qdrant"), dimension=4, encoder_identity="one")
    assert refused.value.reason == "INDEX_CLIENT_ABSENT"


def test_a_server_without_it_does_not_load_the_client() -> None:
    code = "import sys, nearcase.serve.app; sys.exit('qdrant_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_an_encrypted_connection_needs_the_right_certificate(tmp_path: Path) -> None:
    key, certificate = _certificate(tmp_path)
    server = QdrantServer()
    await server.start(grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())]))
    given = {"index": "qdrant", "qdrant_url": f"https://localhost:{server.port}", "qdrant_timeout_s": 2.0}
    api_key = tmp_path / "api-key"
    api_key.write_text("secret")
    api_key.chmod(0o600)
    trusting = Settings(**given, qdrant_ca=certificate, qdrant_api_key=api_key)  # type: ignore[arg-type]
    index = await QdrantIndex.reach(trusting, IDENTITY)
    await index.upsert(some(1))
    assert await index.count() == 1
    await index.close()
    assert server.metadata[-1]["api-key"] == "secret"
    for_nobody = Settings(**given)  # type: ignore[arg-type]
    with pytest.raises(Unready):
        await QdrantIndex.reach(for_nobody, IDENTITY)
    await server.stop()


def _certificate(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    try:
        subprocess.run(
            [*made, "-days", "2", *subject, "-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
            timeout=60,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed here, and makes the certificate")
    return key, certificate
