"""What it costs to know who asks: processor time of a small call, by how the caller is known.

    python benchmarks/auth.py [--json FILE] [--calls N]

The call does nothing, so that the gate is what differs; client and server share one process, and their processor time
is counted together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.console import Console
from rich.table import Table

from nearcase.clock import SystemClock
from nearcase.serve.security import open_security
from nearcase.settings import Settings

ROUNDS = 7
METHOD = "/nearcase.v1.EncoderService/DescribeEncoder"
KEYS: dict[str, Any] = {
    "EdDSA": Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": generate_private_key(65537, 2048),
}


class Answers(grpc.GenericRpcHandler):
    """Answers every call with nothing."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The same handler for each."""

        async def answer(_: bytes, context: object) -> bytes:
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


async def measured(settings: Settings, metadata: list[tuple[str, str]], calls: int, *, gate: bool = True) -> float:
    """Returns the median of processor microseconds a call."""
    security = await open_security(settings, SystemClock())
    server = grpc.aio.server(interceptors=[security.gate] if gate else [])
    server.add_generic_rpc_handlers((Answers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    taken: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = cast(Any, channel).unary_unary(METHOD)
        await call(b"", metadata=metadata)
        for _ in range(ROUNDS):
            start_s = time.process_time()
            for _ in range(calls):
                await call(b"", metadata=metadata)
            taken.append((time.process_time() - start_s) / calls * 1e6)
    await server.stop(0)
    return statistics.median(taken)


def token(algorithm: str) -> str:
    claims = {"iss": "i", "aud": "nearcase", "sub": "s", "exp": time.time() + 3600, "roles": ["search"]}
    return jwt.encode(claims, KEYS[algorithm], algorithm=algorithm)


async def rows(calls: int) -> dict[str, float]:
    found = {
        "no gate": await measured(Settings(), [], calls, gate=False),
        "nobody is asked": await measured(Settings(), [], calls),
    }
    with tempfile.TemporaryDirectory() as folder:
        for algorithm, key in KEYS.items():
            public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            (Path(folder) / "keys").write_bytes(public)
            callers = Path(folder) / "callers.toml"
            callers.write_text('requests_per_s = 1e6\n[tokens]\nissuer = "i"\nkeys = "keys"\n')
            sent = [("authorization", f"Bearer {token(algorithm)}")]
            found[f"token, {algorithm}"] = await measured(Settings(callers=callers), sent, calls)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = asyncio.run(rows(given.calls))
    table = Table("caller", "CPU µs a call", "more than without", title=f"median of {ROUNDS} rounds of {given.calls}")
    for name, taken in found.items():
        table.add_row(name, f"{taken:.0f}", f"{taken - found['no gate']:+.0f}")
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
