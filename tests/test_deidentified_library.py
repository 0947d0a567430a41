"""Identifiers planted in files are found in nothing that a de-identified server writes: every byte is looked at."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import grpc
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)
from serving import picture, scan

from nearcase.client import AddItem, Client
from nearcase.retrieve.cases import case_id_of
from nearcase.types import CaseFacts
from nearcase.v1 import library_pb2, library_pb2_grpc, search_pb2, search_pb2_grpc

pytestmark = pytest.mark.system

ROOT = "1.2.826.0.1.3680043.9.7433"
UIDS = {name: f"{ROOT}.{n}{n}{n}{n}7" for n, name in enumerate(("study", "later", "series", "instance", "frame"), 1)}
DATES = {"birth": "19410217", "study": "20190613", "later": "20190711", "other": "20170929"}
INTERVAL_DAYS = 28
ANNA, BERT = "MRN-PLANTED-0815", "MRN-PLANTED-4242"
TEXTS = {
    "patient": ANNA,
    "other patient": BERT,
    "issuer": "PLANTED-ISSUER",
    "name": "PLANTEDSURNAME^Zoe",
    "umlaut": "Plänterßmöller",
    "other id": "PLANTED-OTHER-ID",
    "accession": "PLANTEDACC01",
    "study text": "PLANTED study words",
    "series text": "PLANTED series words",
    "comment": "PLANTED image comment",
    "institution": "PLANTED General",
    "physician": "PLANTEDDOC^Who",
    "serial": "PLANTED-SN-1",
    "request": "PLANTED request",
    "nested name": "PLANTEDNEST^Deep",
    "private": "PLANTED private value",
    "creator": "PLANTED CREATOR",
    "overlay": "PLANTED overlay words",
    "entity": "PLANTEDAET",
    "annotated text": "PLANTED annotated words",
    "png": "PLANTED png words",
}
PLANTED = {**TEXTS, **{f"{name} date": day for name, day in DATES.items()}, **UIDS}


def identified(data: bytes, **attributes: object) -> bytes:
    """The file with everything planted that a file can say of a person, at every level."""
    dataset = dcmread(BytesIO(data))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientBirthName = TEXTS["name"], TEXTS["umlaut"]
    dataset.IssuerOfPatientID, dataset.AccessionNumber = TEXTS["issuer"], TEXTS["accession"]
    dataset.PatientBirthDate, dataset.StudyDate, dataset.SeriesDate = DATES["birth"], DATES["study"], DATES["other"]
    dataset.StudyDescription, dataset.SeriesDescription = TEXTS["study text"], TEXTS["series text"]
    dataset.ImageComments = dataset.PatientComments = TEXTS["comment"]
    dataset.InstitutionName, dataset.ReferringPhysicianName = TEXTS["institution"], TEXTS["physician"]
    dataset.DeviceSerialNumber, dataset.FrameOfReferenceUID = TEXTS["serial"], UIDS["frame"]
    dataset.OtherPatientIDsSequence = Sequence([nested(3)])
    dataset.RequestAttributesSequence = Sequence([nested(1), nested(2)])
    block = dataset.private_block(0x0009, TEXTS["creator"], create=True)
    block.add_new(0x01, "LO", TEXTS["private"])
    block.add_new(0x02, "SQ", Sequence([nested(1)]))
    dataset.add_new(0x60004000, "LT", TEXTS["overlay"])
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.SourceApplicationEntityTitle = TEXTS["entity"]
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.preamble = TEXTS["private"].encode().ljust(128, b"\0")
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def nested(levels: int) -> Dataset:
    item = Dataset()
    item.PatientID, item.PatientName = TEXTS["other id"], TEXTS["nested name"]
    item.RequestedProcedureDescription, item.StudyDate = TEXTS["request"], DATES["other"]
    if levels:
        item.ReferencedStudySequence = Sequence([nested(levels - 1)])
    return item


def as_syntax(data: bytes, syntax: UID) -> bytes:
    dataset = dcmread(BytesIO(data))
    dataset.file_meta.TransferSyntaxUID = syntax
    out = BytesIO()
    dataset.save_as(out, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return out.getvalue()


def ultrasound(seed: int, regions: bool) -> bytes:
    region = Dataset()
    region.RegionSpatialFormat, region.RegionLocationMinX0, region.RegionLocationMinY0 = 1, 0, 16
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 63, 63
    given = {"SequenceOfUltrasoundRegions": Sequence([region])} if regions else {}
    return scan(seed, BERT, Modality="US", SOPClassUID=UltrasoundImageStorage, **given)


def png(seed: int) -> bytes:
    words = PIL.PngImagePlugin.PngInfo()
    words.add_text("Patient", TEXTS["png"])
    out = BytesIO()
    PIL.Image.open(BytesIO(picture(seed))).save(out, "PNG", pnginfo=words)
    return out.getvalue()


def plain_scan(seed: int) -> bytes:
    """One of the first patient, whose UIDs are planted too."""
    own = {"StudyInstanceUID": UIDS["study"], "SeriesInstanceUID": UIDS["series"]}
    return scan(seed, ANNA, **own, SOPInstanceUID=f"{UIDS['instance']}.{seed}")


TAKEN = {
    "ct": identified(plain_scan(1), PatientAge="", BodyPartExamined="CHEST", PatientSex="F"),
    "later": identified(plain_scan(2), StudyInstanceUID=UIDS["later"], StudyDate=DATES["later"]),
    "implicit": as_syntax(identified(plain_scan(3), Modality="MR"), ImplicitVRLittleEndian),
    "deflated": as_syntax(identified(plain_scan(4), Modality="CR"), DeflatedExplicitVRLittleEndian),
    "says no": identified(scan(5, BERT, Modality="OT", BurnedInAnnotation="NO"), PatientAge="095Y"),
    "ultrasound": identified(ultrasound(6, regions=True)),
}
REFUSED = {
    "says yes": identified(scan(11, BERT, BurnedInAnnotation="YES")),
    "ultrasound without regions": identified(ultrasound(12, regions=False)),
    "capture": identified(scan(13, BERT, SOPClassUID=SecondaryCaptureImageStorage)),
    "screen": identified(scan(14, BERT, ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])),
    "png": png(15),
    "cut off": identified(plain_scan(16))[:-2000],
}
QUERY = identified(plain_scan(9))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path / "secret.key")


def new_key(file: Path) -> Path:
    file.write_bytes(secrets.token_bytes(32))
    file.chmod(0o600)
    return file


@contextmanager
def served(data: Path, log: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server as a user runs it, whose log is kept."""
    command = [sys.executable, "-m", "nearcase", "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--json"]
    with (
        log.open("a") as words,
        subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=words, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield str(json.loads(line)["address"]), process
        finally:
            process.terminate()
            process.wait(timeout=30)


def masking(tmp_path: Path, key: Path) -> list[str]:
    file = tmp_path / "nearcase.toml"
    file.write_text('burned_in = "mask"\n')
    return ["--settings", str(file), "--deidentify", "--pseudonym-key", str(key)]


def items(files: dict[str, bytes]) -> Iterator[AddItem]:
    given = CaseFacts(study_description=TEXTS["annotated text"], patient_id="PLANTED-WRONG")
    for name, data in files.items():
        yield AddItem(name, data, {"mass": "1"}, given, source="site A")


def forms(text: str) -> Iterator[bytes]:
    """A text in the ways in which a store, a page or a log could hold it."""
    for words in {text, text.replace("^", " "), text.split("^")[0]}:
        yield from (words.encode(encoding) for encoding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be"))
        yield words.encode().hex().encode()
        yield json.dumps(words).strip('"').encode()
        for lead in range(3):  # base64 looks different for each place in a group of three bytes
            coded = base64.b64encode(bytes(lead) + words.encode())
            yield coded[4 if lead else 0 : (lead + len(words.encode())) // 3 * 4]
    yield hashlib.sha256(text.encode()).hexdigest().encode()
    if re.fullmatch(r"\d{8}", text):
        yield f"{text[:4]}-{text[4:6]}-{text[6:]}".encode()
        yield from (struct.pack("<q", int(text)), struct.pack("<d", int(text)))


def found(places: Iterable[bytes]) -> set[str]:
    """The names of what was planted and is found in any of the places."""
    needles = {form: name for name, text in PLANTED.items() for form in forms(text)}
    for name, data in (TAKEN | REFUSED).items():
        needles[hashlib.sha256(data).hexdigest().encode()] = f"sha256 of {name}"
    for seed in range(1, 5):
        facts = CaseFacts(instance_uid=f"{UIDS['instance']}.{seed}")
        needles[case_id_of(facts, "", 1).encode()] = "case id from the SOP Instance UID"
    assert min(map(len, needles)) >= 7
    return {name for place in places for needle, name in needles.items() if needle in place}


def files_below(folder: Path) -> Iterator[bytes]:
    for file in sorted(Path(parent, name) for parent, folders, names in os.walk(folder) for name in folders + names):
        yield str(file).encode()
        with suppress(FileNotFoundError):  # the index renames its own files while it runs or ends
            if file.is_file():
                yield re.sub(rb"\0{64,}", bytes(64), file.read_bytes())


def run(*arguments: str) -> bytes:
    command = [sys.executable, "-m", "nearcase", *arguments]
    result = subprocess.run(command, capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_what_is_planted_is_found_where_deidentification_is_off(tmp_path: Path) -> None:
    """Otherwise the other tests would prove nothing: the store could compress, or the search be blind."""
    with served(tmp_path / "data", tmp_path / "log") as (address, _), Client(address) as client:
        assert not [result.error for result in client.add(items(TAKEN)) if result.error]
    seen = found(files_below(tmp_path / "data"))
    expected = {"patient", "other patient", "issuer", "study", "series", "instance", "study text", "series text"}
    assert expected | {"study date", "later date", "sha256 of ct", "case id from the SOP Instance UID"} <= seen


def test_nothing_planted_is_found_after_adding_searching_and_reporting(tmp_path: Path, key: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    said: list[bytes] = []
    with served(data, log, *masking(tmp_path, key)) as (address, process), Client(address) as client:
        results = {result.request_id: result for result in client.add(items(TAKEN | REFUSED))}
        assert {name for name, result in results.items() if result.error is None} == set(TAKEN)
        for name in set(REFUSED) - {"cut off"}:
            error = results[name].error
            assert error is not None
            assert error.reason == "BURNED_IN"
        said += [str(result.error).encode() for result in results.values()]
        assert {result.outcome for result in client.add(items(TAKEN))} == {"unchanged"}
        film = tmp_path / "film.dcm"
        film.write_bytes(QUERY)
        page = tmp_path / "page.html"
        said.append(run("search", str(film), "-k", "9", "--report", str(page), "--server", address))
        said.append(run("library", "list", "--json", "--server", address))
        said.append(run("library", "info", "--json", "--server", address))
        said += [repr(client.case(case.case_id)).encode() for case in client.cases()]
        said += [client.case(case.case_id).thumbnail_jpeg for case in client.cases()]
        said += [page.read_bytes(), *files_below(data)]  # while it runs
        masked = client.case(results["ultrasound"].case_id).thumbnail_jpeg
        assert np.asarray(PIL.Image.open(BytesIO(masked)))[:14].max() < 24
        process.kill()
    assert found([*said, *files_below(data), log.read_bytes()]) == set()


def test_a_kill_in_the_middle_of_a_large_file_leaves_nothing_of_it(tmp_path: Path, key: Path) -> None:
    whole = TAKEN["ct"] + bytes(100_000)
    for options, is_left in ((["--deidentify", "--pseudonym-key", str(key)], False), ([], True)):
        data = tmp_path / f"data-{is_left}"
        with (
            served(data, tmp_path / "log", *options) as (address, process),
            grpc.insecure_channel(address) as channel,
        ):
            received = begin_upload(library_pb2_grpc.LibraryServiceStub(channel), whole)
            assert received == (len(TAKEN["ct"]) if is_left else 0)
            process.kill()
            process.wait(timeout=30)
        assert bool(found(files_below(data))) == is_left


def begin_upload(stub: library_pb2_grpc.LibraryServiceStub, whole: bytes) -> int:
    """Sends the first part of a file and leaves its stream open; returns what the server would resume from."""
    part, digest, done = len(TAKEN["ct"]), hashlib.sha256(whole).hexdigest(), threading.Event()

    def requests() -> Iterator[library_pb2.AddImagesRequest]:
        start = library_pb2.AddImagesStart(request_id="a", size_bytes=len(whole), sha256=digest, data=whole[:part])
        yield library_pb2.AddImagesRequest(start=start)
        probe = library_pb2.AddImagesStart(request_id="b", size_bytes=1, data=b"x")
        yield library_pb2.AddImagesRequest(start=probe)
        done.wait(30)

    answers = stub.AddImages(requests())
    assert next(answers).request_id == "b"  # so the part before it has been taken in
    answer = stub.GetUpload(library_pb2.GetUploadRequest(request_id="a", sha256=digest))
    done.set()
    return answer.received_bytes


def test_callers_ask_by_the_ids_they_know(tmp_path: Path, key: Path) -> None:
    with (
        served(tmp_path / "data", tmp_path / "log", *masking(tmp_path, key)) as (address, _),
        Client(address) as client,
        grpc.insecure_channel(address) as channel,
    ):
        by_name = {result.request_id: result.case_id for result in client.add(items(TAKEN))}
        library = library_pb2_grpc.LibraryServiceStub(channel)
        searching = search_pb2_grpc.SearchServiceStub(channel)
        annas = {by_name[name] for name in ("ct", "later", "implicit", "deflated")}

        instance = f"{UIDS['instance']}.1"
        found_case = library.GetCase(library_pb2.GetCaseRequest(instance_uid=instance)).case
        assert found_case.case_id == by_name["ct"]
        assert (found_case.facts.body_part, found_case.facts.sex, found_case.facts.age_years) == ("CHEST", "F", 78)
        assert (found_case.labels["mass"], found_case.source) == ("1", "site A")
        assert client.case(by_name["says no"]).facts.age_years == 90
        example = search_pb2.Example(instance_uid=instance)
        hits = searching.Search(search_pb2.SearchRequest(examples=[example])).hits
        assert not annas & {hit.case.case_id for hit in hits}

        own = client.search(QUERY, k=9, own_patient=True)
        others = client.search(QUERY, k=9)
        assert annas <= {hit.case.case_id for hit in own.hits}
        assert {hit.case.case_id for hit in others.hits} == set(by_name.values()) - annas
        assert own.query_images[0].facts.patient_id == ANNA  # the caller's own, not kept

        days = {client.case(by_name[name]).facts.study_date for name in ("ct", "later")}
        first, second = sorted(np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}") for day in days)
        assert second - first == np.timedelta64(INTERVAL_DAYS, "D")
        assert not days & set(DATES.values())

        for where in (f'study_uid = "{UIDS["study"]}"', f'patient_key = "{TEXTS["issuer"]}|{ANNA}"'):
            assert {case.case_id for case in client.cases(where)} <= annas
            assert by_name["ct"] in {case.case_id for case in client.cases(where)}
        assert len(list(client.cases(f'patient_key != "{TEXTS["issuer"]}|{ANNA}"'))) == 2


def test_erasing_by_the_real_id_leaves_nothing(tmp_path: Path, key: Path) -> None:
    data = tmp_path / "data"
    with served(data, tmp_path / "log", *masking(tmp_path, key)) as (address, _), Client(address) as client:
        by_name = {result.request_id: result.case_id for result in client.add(items(TAKEN))}
        pseudonym = client.case(by_name["ct"]).facts.patient_id
        assert re.fullmatch("[0-9a-f]{32}", pseudonym)
        assert client.erase(patient_id=ANNA) == 0  # an id of another issuer is another patient
        assert client.erase(instance_uid=f"{UIDS['instance']}.2") == 1
        assert client.erase(patient_id=ANNA, patient_id_issuer=TEXTS["issuer"]) == 3
        assert client.erase(patient_id=ANNA, patient_id_issuer=TEXTS["issuer"]) == 0
        assert {case.case_id for case in client.cases()} == {by_name["says no"], by_name["ultrasound"]}
        assert len(client.search(QUERY, own_patient=True, k=9).hits) == 2
        assert client.erase(patient_id=client.case(by_name["says no"]).facts.patient_id) == 2  # by pseudonym
    assert found(files_below(data)) == set()


def refusal(data: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "nearcase", "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--json"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)
    assert list(json.loads(result.stdout)) == ["error"]  # and never that it is ready
    assert len(result.stderr.strip().splitlines()) == 1
    return result.returncode, result.stderr


def test_no_start_without_the_key_and_no_other_library(tmp_path: Path, key: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    on = ["--deidentify", "--pseudonym-key", str(key)]
    for options, code, message in (
        (["--deidentify"], 2, "expected a pseudonym_key"),
        (on[1:], 2, "expected deidentify = true"),
        (["--deidentify", "--pseudonym-key", str(tmp_path / "absent")], 2, "can not be read"),
    ):
        exit_code, said = refusal(data, *options)
        assert (exit_code, message in said) == (code, True)
    key.chmod(0o644)
    assert "0644" in refusal(data, *on)[1]
    key.chmod(0o600)
    assert not data.exists()
    with served(data, log, *on) as (address, _), Client(address) as client:
        assert [result.error for result in client.add(items({"ct": TAKEN["ct"]}))] == [None]
    before = sorted(files_below(data))
    other = new_key(tmp_path / "other.key")
    assert "another pseudonym key" in refusal(data, "--deidentify", "--pseudonym-key", str(other))[1]
    assert "has deidentify off" in refusal(data)[1]
    assert sorted(files_below(data)) == before
    with served(data, log, *on) as (address, _), Client(address) as client:
        assert [result.outcome for result in client.add(items({"ct": TAKEN["ct"]}))] == ["unchanged"]
    with served(tmp_path / "plain", log):
        pass
    exit_code, said = refusal(tmp_path / "plain", *on)
    assert (exit_code, "has deidentify on" in said) == (1, True)
