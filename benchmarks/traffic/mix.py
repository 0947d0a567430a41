"""What is sent: sound searches with real DICOM files, requests and files that must be refused, pictures to add."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pydicom.data import get_testdata_file

from nearcase.v1 import library_pb2, search_pb2, types_pb2

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # the hostile files that the tests make

from hostile import HOSTILE
from vectors.adder import picture

SOUND, BAD = "sound", "bad"
FILES = ("CT_small.dcm", "MR2_J2KI.dcm", "US1_UNCR.dcm", "693_UNCR.dcm", "RG3_UNCR.dcm", "RG1_J2KI.dcm")
HARMFUL = (
    "JPEG 2000 cut",
    "JPEG 2000 of 60000 x 60000",
    "JPEG-LS of noise inside",
    "PNG of 60000 x 60000",
    "PNG with a text bomb",
    "GIF",
    "video",
)


@dataclass(frozen=True, slots=True)
class Mix:
    """Requests, ready to be sent in turn."""

    sound: list[bytes]  # messages as bytes, so that sending one costs the generator as little as can be
    bad: list[bytes]


def mix() -> Mix:
    """Returns the requests; the files come with pydicom's packages."""
    found = [get_testdata_file(name, download=False) for name in FILES]
    sound = [_search(Path(str(path)).read_bytes()) for path in found if path]
    files = [HOSTILE[name]() for name in HARMFUL] + [b"\0" * 128 + b"DICM" + b"\xff" * 4000, b"no image"]
    wrong = [
        search_pb2.SearchRequest(),
        search_pb2.SearchRequest(examples=[search_pb2.Example(case_id="no such case")]),
        search_pb2.SearchRequest(
            examples=[search_pb2.Example(image=b"x")], options=search_pb2.SearchOptions(filter="modality = (")
        ),
    ]
    bad = [_search(data) for data in files] + [message.SerializeToString() for message in wrong] + [b"\xff" * 100]
    return Mix(sound, bad)


def _search(data: bytes) -> bytes:
    options = search_pb2.SearchOptions(k=10)
    return search_pb2.SearchRequest(examples=[search_pb2.Example(image=data)], options=options).SerializeToString()


def item(number: int) -> library_pb2.AddImagesRequest:
    """One picture to add; each number is a case of its own."""
    data = picture(number)
    facts = types_pb2.CaseFacts(patient_id=f"A{number}", modality="OT")
    start = library_pb2.AddImagesStart(
        request_id=str(number),
        size_bytes=len(data),
        data=data,
        annotations=library_pb2.Annotations(facts=facts),
    )
    return library_pb2.AddImagesRequest(start=start)
