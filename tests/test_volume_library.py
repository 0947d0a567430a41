"""A library of whole series: added, found, refused and de-identified through a real server with a small 3D encoder."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from nifti_files import nifti_file
from serving import picture, serving_here
from volumes import body, ct_series, tiny_volume_encoder, write_files

from nearcase.cli.app import group
from nearcase.cli.check import check_path
from nearcase.client import AddItem, AddResult, Client
from nearcase.errors import InvalidInput, Unready
from nearcase.intake.archive import pack_series
from nearcase.serve.app import start
from nearcase.settings import Settings
from nearcase.types import SearchResult

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_volume_encoder(tmp_path_factory.mktemp("encoders") / "tiny-volumes")


def packed(seed: int, patient: str = "") -> bytes:
    return pack_series(ct_series(body(seed), patient or f"P{seed}"))


def add(address: str, *items: bytes, **labels: str) -> list[AddResult]:
    with Client(address) as client:
        client.wait_ready(20)
        results = list(client.add(AddItem(str(number), data, labels) for number, data in enumerate(items)))
    return sorted(results, key=lambda result: int(result.request_id))


def search(address: str, data: bytes, *, own_patient: bool = False) -> SearchResult:
    with Client(address) as client:
        return client.search(data, k=5, own_patient=own_patient, thumbnails=True)


async def asked(call: Callable[..., object], *arguments: object, **options: object) -> object:
    return await asyncio.to_thread(lambda: call(*arguments, **options))


async def test_series_are_cases_and_the_same_body_is_found(encoder: Path, tmp_path: Path) -> None:
    async with serving_here(tmp_path / "data", encoder=encoder) as app:
        results = await asyncio.to_thread(add, app.address, *(packed(seed) for seed in range(6)), mass="1")
        assert [result.outcome for result in results] == ["added"] * 6

        rng = np.random.default_rng(0)
        noisy = (body(3)[1:-1] + rng.integers(-20, 21, (22, 40, 48))).astype(np.int16)  # another scan of that body
        found = await asyncio.to_thread(search, app.address, pack_series(ct_series(noisy, "somebody")))
    assert found.hits[0].case.case_id == results[3].case_id
    assert found.candidate_count == 6
    facts = found.hits[0].case.facts
    assert facts.series_uid
    assert facts.instance_uid == ""
    assert facts.modality == "CT"
    assert found.hits[0].case.labels == {"mass": "1"}
    assert found.hits[0].case.thumbnail_jpeg.startswith(b"\xff\xd8")
    assert found.query_images[0].rules[0] == "volume of 22 slices"
    assert "3D chest CT" in found.encoder.statement


async def test_a_series_is_one_case_however_often_and_however_much_of_it_comes(encoder: Path, tmp_path: Path) -> None:
    files = ct_series(body(1), "P1")
    async with serving_here(tmp_path / "data", encoder=encoder) as app:
        first = (await asyncio.to_thread(add, app.address, pack_series(files)))[0]
        again = (await asyncio.to_thread(add, app.address, pack_series(files[::-1])))[0]
        fewer = (await asyncio.to_thread(add, app.address, pack_series(files[:-2])))[0]
        own = await asyncio.to_thread(search, app.address, pack_series(files[2:]))
        named = await asyncio.to_thread(search, app.address, pack_series(files), own_patient=True)
    assert [first.outcome, again.outcome, fewer.outcome] == ["added", "unchanged", "replaced"]
    assert first.case_id == again.case_id == fewer.case_id
    assert own.hits == ()  # nobody retrieves themself
    assert [hit.case.case_id for hit in named.hits] == [first.case_id]


async def test_nifti_finds_what_came_as_dicom(encoder: Path, tmp_path: Path) -> None:
    affine = np.diag((-0.8, -0.8, 2.5, 1.0))
    volume = nifti_file(body(2).transpose(2, 1, 0), affine=affine, zipped=True)
    async with serving_here(tmp_path / "data", encoder=encoder) as app:
        await asyncio.to_thread(add, app.address, packed(2), packed(4))
        found = await asyncio.to_thread(search, app.address, volume)
    assert found.hits[0].similarity == pytest.approx(1.0, abs=1e-4)
    assert "values taken for Hounsfield units" in found.query_images[0].rules


async def test_what_is_no_series_of_ct_is_refused_and_leaves_nothing(encoder: Path, tmp_path: Path) -> None:
    other = pack_series(ct_series(body(0), "P0", Modality="MR"))
    items = [picture(0), other, packed(0)[:-40], ct_series(body(0), "P0")[3]]
    async with serving_here(tmp_path / "data", encoder=encoder) as app:
        results = await asyncio.to_thread(add, app.address, *items)
        with pytest.raises(InvalidInput, match="no frame to choose"):
            await asyncio.to_thread(search_frame, app.address, packed(0))
        with Client(app.address) as client:
            count = (await asyncio.to_thread(client.statistics)).case_count
    assert [result.error.reason for result in results if result.error] == [
        "UNKNOWN_FORMAT",
        "INVALID_INPUT",
        "DAMAGED_ARCHIVE",
        "INVALID_INPUT",
    ]
    assert str(results[1].error) == "expected a CT in Hounsfield units, got MR in no unit"
    assert count == 0


def search_frame(address: str, data: bytes) -> SearchResult:
    with Client(address) as client:
        return client.search(data, frame_number=2)


async def test_a_library_of_pictures_refuses_series_and_the_encoder_of_volumes(encoder: Path, tmp_path: Path) -> None:
    async with serving_here(tmp_path / "data") as app:
        (result,) = await asyncio.to_thread(add, app.address, packed(0))
    assert result.error is not None
    assert result.error.reason == "UNKNOWN_FORMAT"
    with pytest.raises(Unready) as refusal:
        await start(Settings(data=tmp_path / "data", listen="127.0.0.1:0", encoder=encoder, decode_workers=1))
    assert refusal.value.reason == "ENCODER_MISMATCH"


async def test_a_de_identified_library_of_series_holds_pseudonyms(encoder: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    data = tmp_path / "data"
    async with serving_here(data, encoder=encoder, deidentify=True, pseudonym_key=key) as app:
        (result,) = await asyncio.to_thread(add, app.address, packed(5, "CANARY-PATIENT"))
        own = await asyncio.to_thread(search, app.address, packed(5, "CANARY-PATIENT"))
        other = await asyncio.to_thread(search, app.address, packed(5, "Q"))
    assert result.outcome == "added"
    assert own.hits == ()
    assert other.hits[0].similarity > 0.9999
    assert "CANARY" not in other.hits[0].case.facts.patient_id
    stored = b"".join(file.read_bytes() for file in data.rglob("*") if file.is_file())
    assert b"CANARY-PATIENT" not in stored


async def test_the_command_packs_folders(encoder: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    write_files(scans / "one", ct_series(body(0), "P0"))
    write_files(scans / "two", ct_series(body(1), "P1"))
    write_files(scans / "mixed", [*ct_series(body(6), "P6"), *ct_series(body(7), "P7"), b"no image"])
    (scans / "three.nii.gz").write_bytes(nifti_file(body(2).transpose(2, 1, 0), zipped=True))
    table = tmp_path / "outcomes.csv"
    table.write_text("image,label_mass\none,1\nIM0003,2\nthree.nii.gz,3\n")
    async with serving_here(tmp_path / "data", encoder=encoder) as app:
        command = ["add", str(scans), "--as", "series", "--labels", str(table), "--json", "--server", app.address]
        done = await asyncio.to_thread(CliRunner().invoke, group, command)
        with Client(app.address) as client:
            cases = await asyncio.to_thread(lambda: list(client.cases()))
    told = json.loads(done.stdout)
    assert done.exit_code == 2  # one file is of no series, and it is said
    assert told["counts"] == {"added": 5}
    assert list(told["left_out"].values()) == [1]
    labels = sorted((case.facts.patient_id, case.labels.get("mass", "")) for case in cases)
    assert labels == [("", "3"), ("P0", "1"), ("P1", "2"), ("P6", "2"), ("P7", "")]


async def test_the_command_searches_with_a_folder(encoder: Path, tmp_path: Path) -> None:
    scans = write_files(tmp_path / "scans", ct_series(body(3), "somebody"))
    async with serving_here(tmp_path / "data", encoder=encoder) as app:
        results = await asyncio.to_thread(add, app.address, *(packed(seed) for seed in range(4)))
        command = ["search", str(scans), "--as", "series", "--json", "--server", app.address]
        done = await asyncio.to_thread(CliRunner().invoke, group, command)
        refused = await asyncio.to_thread(CliRunner().invoke, group, [*command, str(scans)])
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["hits"][0]["case_id"] == results[3].case_id
    assert told["hits"][0]["similarity"] > 0.9999
    assert isinstance(refused.exception, InvalidInput)


def test_the_check_of_an_installation_takes_a_volume_through(encoder: Path) -> None:
    assert "found again at similarity 1.0000" in check_path(encoder)
