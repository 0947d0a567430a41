"""The trail as DICOM audit messages: valid by the standard's schema, and sent by syslog over TLS, in order, whole."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import grpc
import pytest
from auth_files import HERE, Authority, authority
from serving import scan, serving_here

from nearcase.audit import dicom_messages
from nearcase.audit.dicom_messages import messages_of
from nearcase.audit.event import CALL, KINDS, AuditEvent, Said
from nearcase.audit.line import Kept
from nearcase.audit.query import records_in
from nearcase.errors import InvalidInput
from nearcase.serve.app import App
from nearcase.serve.roles import NEEDED
from nearcase.settings import Settings
from nearcase.settings_check import checked
from nearcase.v1 import decision_pb2, decision_pb2_grpc, library_pb2, library_pb2_grpc, search_pb2, search_pb2_grpc

etree: Any = pytest.importorskip("lxml.etree", reason="lxml checks the schema: pip install nearcase[dev]")

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parent / "data" / "dicom-audit-message.rng"))
SOURCE = Path(dicom_messages.__file__)
NAMES = tuple(f"name{number:012d}" for number in range(150))


def kept(event: AuditEvent, seq: int = 7) -> Kept:
    return Kept(seq, "0" * 64, event, "ab" * 32)


def call(name: str, **more: Any) -> AuditEvent:
    given = {"phase": "end", "code": "OK", "caller": "dr <house> & \u00e4", "tenant": "north", "request_id": "r1"}
    return AuditEvent(CALL, 1.9e9, rpc=f"v1.S/{name}", **(given | more))


def event_code(xml: bytes) -> tuple[str, str, str]:
    found = fromstring(xml).find("EventIdentification")
    assert found is not None
    code = found.find("EventID")
    assert code is not None
    return code.attrib["originalText"], found.attrib["EventActionCode"], found.attrib["EventOutcomeIndicator"]


def objects(xml: bytes, role: str) -> list[Element]:
    every = fromstring(xml).findall("ParticipantObjectIdentification")
    return [each for each in every if each.attrib["ParticipantObjectTypeCodeRole"] == role]


CASES: list[tuple[AuditEvent, list[tuple[str, str, str]]]] = [
    (call("Search", cases=NAMES[:2]), [("Query", "E", "0"), ("DICOM Instances Accessed", "R", "0")]),
    (call("Search"), [("Query", "E", "0")]),
    (call("Decide", code="UNAVAILABLE"), [("Query", "E", "4"), ("DICOM Instances Accessed", "R", "4")]),
    (call("GetCase", cases=NAMES[:1]), [("DICOM Instances Accessed", "R", "0")]),
    (call("GetRecord", detail="record x"), [("DICOM Instances Accessed", "R", "0")]),
    (call("UpdateCase", cases=NAMES[:1]), [("DICOM Instances Accessed", "U", "0")]),
    (call("MergePatients", about=NAMES[:2]), [("Patient Record", "U", "0")]),
    (call("EraseCases", target="patient", about=NAMES[:1]), [("Patient Record", "D", "0")]),
    (call("EraseCases", target="study", about=NAMES[:1]), [("DICOM Study Deleted", "D", "0")]),
    (call("EraseCases", target="case", about=NAMES[:1]), [("DICOM Instances Accessed", "D", "0")]),
    (call("AddImages", phase="part", cases=NAMES[:3]), [("Import", "C", "0")]),
    (call("ExportCases", phase="part", cases=NAMES), [("Export", "R", "0")] * 3),
    (call("ExportCases", phase="begin"), []),
    (call("GetStatistics"), []),
    (AuditEvent("start", 1.9e9), [("Application Activity", "E", "0")]),
    (AuditEvent("stop", 1.9e9), [("Application Activity", "E", "0")]),
    (AuditEvent("refused", 1.9e9, code="UNAUTHENTICATED", count=19), [("User Authentication", "E", "4")]),
    (AuditEvent("refused", 1.9e9, code="PERMISSION_DENIED", caller="eve"), [("Security Alert", "E", "4")]),
    (AuditEvent("full", 1.9e9, detail="no room"), [("Security Alert", "E", "12")]),
    (AuditEvent("damaged", 1.9e9), [("Security Alert", "E", "8")]),
    (AuditEvent("erased", 1.9e9, count=4), [("DICOM Instances Accessed", "D", "0")]),
]


@pytest.mark.parametrize(("event", "expected"), CASES)
def test_records_become_the_messages_of_the_standard(event: AuditEvent, expected: list[tuple[str, str, str]]) -> None:
    messages = messages_of(kept(event), "host")
    assert [event_code(xml) for xml in messages] == expected
    for xml in messages:
        SCHEMA.assertValid(etree.fromstring(xml))
        assert len(xml) <= 32768
        (record,) = objects(xml, "13")
        assert record.attrib["ParticipantObjectID"] == f"7:{'ab' * 32}"


def test_every_kind_and_call_is_valid_or_has_no_message() -> None:
    for name in sorted({method.rpartition("/")[2] for method in NEEDED}):
        for code in ("OK", "NOT_FOUND"):
            for xml in messages_of(kept(call(name, code=code, cases=NAMES, patients=NAMES)), "host"):
                SCHEMA.assertValid(etree.fromstring(xml))
    for kind in KINDS:
        for xml in messages_of(kept(AuditEvent(kind, 1.9e9)), "host"):
            SCHEMA.assertValid(etree.fromstring(xml))


def test_a_decision_tells_who_asked_what_was_said_and_which_cases() -> None:
    said = (Said("mass", "positive", operating_point="screening", record_id="ff" * 32),)
    event = call("Decide", cases=NAMES[:100], patients=NAMES[100:120], decisions=said, count=100)
    query, *shown = messages_of(kept(event), "host")
    people = {each.attrib["UserID"]: each.attrib for each in fromstring(query).findall("ActiveParticipant")}
    assert people["dr <house> & \u00e4"]["UserIsRequestor"] == "true"
    assert people["dr <house> & \u00e4"]["AlternativeUserID"] == "north"
    (asked,) = objects(query, "24")
    pairs = [each.attrib for each in asked.findall("ParticipantObjectDetail")]
    details = {each["type"]: base64.b64decode(each["value"]).decode() for each in pairs}
    assert details["finding mass"] == f"positive screening {'ff' * 32}"
    assert [each.attrib["ParticipantObjectID"] for xml in shown for each in objects(xml, "4")] == list(NAMES[:100])
    assert [each.attrib["ParticipantObjectID"] for xml in shown for each in objects(xml, "1")] == list(NAMES[100:120])


def test_what_no_document_may_hold_and_ends_of_lines_make_no_other_document() -> None:
    event = AuditEvent("start", 1.9e9, detail="a\0b\r\nc\ud800".encode("utf-8", "replace").decode() + "\uffff\x1b")
    for message in messages_of(kept(event), "host") + messages_of(kept(call("Search", caller="\0\n")), "host"):
        assert not {b"\n", b"\r"} & {bytes([value]) for value in message}
        SCHEMA.assertValid(etree.fromstring(message))
    said = etree.fromstring(messages_of(kept(event), "host")[0]).find(".//EventOutcomeDescription").text
    assert said == "a\ufffdb\r\nc?\ufffd\ufffd"


# Syslog


@dataclass
class Received:
    """What a collector took, message by message."""

    port: int
    messages: list[bytes] = field(default_factory=list)

    def records(self) -> list[int]:
        """Numbers of the records that the messages are of, in the order in which they came."""
        found = [re.search(rb'ParticipantObjectID="(\d+):[0-9a-f]{64}"', message) for message in self.messages]
        return [int(each[1]) for each in found if each]


@asynccontextmanager
async def collecting(tls: ssl.SSLContext, port: int = 0) -> AsyncIterator[Received]:
    """A syslog server over TLS (RFC 5425): each message comes with its length before it."""
    connections: set[asyncio.StreamWriter] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        try:
            while size := (await reader.readuntil(b" ")).strip():
                received.messages.append(await reader.readexactly(int(size)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            connections.discard(writer)
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", port, ssl=tls)
    received = Received(server.sockets[0].getsockname()[1])
    try:
        yield received
    finally:
        server.close()
        for writer in list(connections):
            writer.transport.abort()
        await server.wait_closed()


@dataclass
class Certificates:
    """Of both sides."""

    folder: Path
    ca: Authority

    def server(self) -> ssl.SSLContext:
        chain, key = self.ca.sign("collector", *HERE)
        (self.folder / "collector.pem").write_bytes(chain + key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=self.ca.pem.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.folder / "collector.pem")
        return context

    def settings(self, port: int) -> dict[str, object]:
        chain, key = self.ca.sign("nearcase")
        for name, data in (("ca", self.ca.pem), ("crt", chain), ("key", key)):
            (self.folder / f"client.{name}").write_bytes(data)
        return {
            "audit_syslog": f"localhost:{port}",
            "audit_syslog_ca": self.folder / "client.ca",
            "audit_syslog_certificate": self.folder / "client.crt",
            "audit_syslog_key": self.folder / "client.key",
        }


@pytest.fixture(name="certificates")
def made_certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path, authority("site"))


async def work(app: App) -> None:
    """A search, a decision, a page of cases and an erasure."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        search = search_pb2_grpc.SearchServiceStub(channel)
        await search.Search(search_pb2.SearchRequest(examples=[search_pb2.Example(image=scan(1, "SECRET-1"))]))
        await decision_pb2_grpc.DecisionServiceStub(channel).Decide(decision_pb2.DecideRequest(image=scan(1)))
        library = library_pb2_grpc.LibraryServiceStub(channel)
        start = library_pb2.AddImagesStart(request_id="a", size_bytes=len(scan(2)), data=scan(2))
        async for _ in library.AddImages(iter([library_pb2.AddImagesRequest(start=start)])):
            pass
        await library.ListCases(library_pb2.ListCasesRequest())
        await library.EraseCases(library_pb2.EraseCasesRequest(patient=library_pb2.PatientKey(patient_id="SECRET-1")))


async def until(received: Received, seq: int, limit_s: float = 20.0) -> None:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s and seq not in received.records():
        await asyncio.sleep(0.05)


@pytest.mark.system
async def test_a_collector_gets_all_of_it_in_order_and_what_it_missed_while_it_was_away(
    tmp_path: Path, certificates: Certificates
) -> None:
    data, tls = tmp_path / "data", certificates.server()
    async with collecting(tls) as first:
        port = first.port
        async with serving_here(data, **certificates.settings(port)) as app:
            await work(app)
            last = list(records_in(data / "audit"))[-1].seq
            await until(first, last)
            assert app.auditor
            assert app.auditor.unsent == 0
    for message in first.messages:
        head, _, xml = message.partition(b"\xef\xbb\xbf")
        assert re.fullmatch(rb"<85>1 \S+Z \S+ nearcase \d+ DICOM\+RFC3881 - ", head)
        SCHEMA.assertValid(etree.fromstring(xml))
        assert b"SECRET" not in xml
    codes = [event_code(message.partition(b"\xef\xbb\xbf")[2])[0] for message in first.messages]
    assert codes[0] == codes[-1] == "Application Activity"  # start, and stop
    assert {"Query", "Import", "Patient Record"} <= set(codes)
    assert first.records() == sorted(first.records())
    async with serving_here(data, **certificates.settings(port)) as app:
        start_s = time.monotonic()
        for _ in range(3):
            await work(app)
        assert time.monotonic() - start_s < 10  # nobody waits for a collector that is away
        assert app.auditor
        assert app.auditor.unsent > 15
        last = [each for each in records_in(data / "audit") if messages_of(each, "")][-1].seq
        async with collecting(tls, port) as second:
            await until(second, last)
            await work(app)
            await until(second, list(records_in(data / "audit"))[-1].seq)
    sent = {each.seq for each in records_in(data / "audit") if messages_of(each, "")}
    assert sent - {max(sent)} <= set(first.records()) | set(second.records())


@pytest.mark.system
async def test_a_stranger_in_the_collectors_place_gets_nothing(tmp_path: Path, certificates: Certificates) -> None:
    other = Certificates(tmp_path / "other", authority("other"))
    (tmp_path / "other").mkdir()
    async with collecting(other.server()) as stranger:
        async with serving_here(tmp_path / "data", **certificates.settings(stranger.port)) as app:
            await work(app)
            await asyncio.sleep(1.5)
            assert app.auditor
            assert app.auditor.unsent > 0
        assert stranger.messages == []


@pytest.mark.parametrize(
    "given",
    [
        {"audit_syslog": "collector"},
        {"audit_syslog_ca": Path("ca")},
        {"audit_syslog": "collector:6514", "audit_syslog_certificate": Path("crt")},
        {"audit": "off", "audit_syslog": "collector:6514"},
        {"audit": "of"},
    ],
)
def test_settings_that_can_not_be_meant_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        checked(Settings(**given))


def test_the_codes_are_those_of_the_standard() -> None:
    from pydicom.sr._concepts_dict import concepts  # the dictionary of PS3.16 that pydicom carries

    dictionary: Any = concepts["DCM"]
    meanings = {code: meaning for codes in dictionary.values() for code, (meaning, _) in codes.items()}
    used = re.findall(r'\("(\d{6})", "DCM", "([^"]+)"\)', SOURCE.read_text())
    assert len(used) > 15
    assert [(code, meaning) for code, meaning in used if meanings.get(code) != meaning] == []
