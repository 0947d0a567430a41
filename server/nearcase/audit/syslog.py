"""Syslog over TLS: messages of RFC 5424, each with its length before it (RFC 5425), as PS3.15 A.6 asks for."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nearcase.errors import InvalidInput

PRIORITY = 10 * 8 + 5
"""Facility 10, security messages; severity 5, notice (RFC 5424 section 6.2.1)."""

MESSAGE_ID = "DICOM+RFC3881"
"""PS3.15 A.6."""

WRITE_S = 10.0
"""A collector that takes nothing for so long is taken for gone."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where messages go, and how both sides know each other."""

    host: str
    port: int
    ca: Path | None = None  # None takes the authorities of the system
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Returns what a connection is made with; the files are read each time, so that they can be renewed.

        Raises:
            InvalidInput: A file can not be read, or is none of its kind.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            message = f"the certificates for the audit collector can not be used: {type(error).__name__}"
            raise InvalidInput(message, field="audit_syslog") from error
        return context


class Connection:
    """An open connection to a collector."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._end = asyncio.create_task(self._watch())

    @classmethod
    async def open(cls, collector: Collector) -> Connection:
        """Returns a connection.

        Raises:
            OSError: There is none to be had, or the other side is not whom it should be.
            TimeoutError: It does not answer.
        """
        context = await asyncio.to_thread(collector.context)
        async with asyncio.timeout(WRITE_S):
            reader, writer = await asyncio.open_connection(collector.host, collector.port, ssl=context)
        kernel = writer.get_extra_info("socket")
        # What is not acknowledged for so long breaks the connection: otherwise the kernel would take it for an hour.
        kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(WRITE_S * 1e3))
        return cls(reader, writer)

    @property
    def is_closed(self) -> bool:
        """Whether the other side has ended it; syslog has no other answer."""
        return self._end.done()

    async def send(self, messages: Sequence[bytes]) -> None:
        """Returns when the messages have been handed to the network.

        Raises:
            OSError: The connection is broken.
            TimeoutError: The other side takes nothing.
        """
        if self.is_closed:
            raise ConnectionResetError("the collector has closed the connection")
        for message in messages:
            self._writer.write(b"%d %s" % (len(message), message))
        async with asyncio.timeout(WRITE_S):
            await self._writer.drain()

    async def close(self) -> None:
        """Ends it, also where the other side does not answer."""
        self._end.cancel()
        self._writer.close()
        try:
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()
        await asyncio.gather(self._end, return_exceptions=True)

    async def _watch(self) -> None:
        try:
            while await self._reader.read(4096):
                pass
        except OSError:
            pass


def framed(xml: bytes, at_s: float, host: str) -> bytes:
    """Returns one message of RFC 5424: the header, no structured data, and the text as UTF-8 with its mark."""
    when = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    header = f"<{PRIORITY}>1 {when} {host} nearcase {os.getpid()} {MESSAGE_ID} - "
    return header.encode("ascii", "replace") + b"\xef\xbb\xbf" + xml
