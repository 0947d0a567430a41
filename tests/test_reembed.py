"""A library gets a new encoder beside the old one: built, compared, and switched to when a person accepts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from serving import picture, scan, serving
from tiny_encoders import tiny_encoder

from nearcase.client import AddItem, Client
from nearcase.encode.preprocess import normalise, resize
from nearcase.encode.runtime import open_encoder
from nearcase.errors import InvalidInput, NotAllowed, NotFound, Unready
from nearcase.index.manifest import read_manifest
from nearcase.intake.files import read_image
from nearcase.reembed.report import JSON_NAME, PAGE_NAME, read_report
from nearcase.reembed.switching import accept
from nearcase.transfers import StoredCase

pytestmark = pytest.mark.system

COUNT = 24
NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Site:
    """A data folder whose library was built again, with its server stopped."""

    data: Path
    images: Path
    old: Path  # encoder folders
    new: Path
    cases: tuple[StoredCase, ...]  # of the old library
    told: dict[str, object]  # the report


def run(*arguments: object, server: str = "127.0.0.1:1", expected: int | None = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "nearcase", "library", "reembed", *map(str, arguments)]
    environment = {"NEARCASE_SERVER": server, "PATH": "/usr/bin:/bin", "COLUMNS": "160"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert expected is None or result.returncode == expected, result.stderr + result.stdout
    return result


def items(folder: Path) -> list[AddItem]:
    return [
        AddItem(path.name, path, {"mass": str(at % 2)}, source="a test")
        for at, path in enumerate(sorted(folder.iterdir()))
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Built while the server ran: first killed on the way, then begun again."""
    base = tmp_path_factory.mktemp("site")
    old, new = (tiny_encoder(base / name, name, seed=seed) for name, seed in (("old", 1), ("new", 2)))
    images, data = base / "images", base / "data"
    images.mkdir()
    for seed in range(COUNT):
        (images / f"{seed}.dcm").write_bytes(scan(seed, f"P{seed // 2}"))
    (images / "one.png").write_bytes(picture(77))
    with serving(data, "--encoder", str(old)) as server, Client(server.address) as client:
        results = list(client.add(items(images)))
        assert {result.outcome for result in results} == {"added"}
        client.library.update(case_id=results[0].case_id, labels={"mass": "unclear"}, changed_by="a test")
        client.library.update(case_id=results[1].case_id, set_flags=("excluded",))
        options = ("--encoder", new, "--images", images, "--data", data)
        kill_while_it_builds(options, server.address, data)
        told = json.loads(run(*options, "--json", server=server.address).stdout)
        cases = tuple(client.transfer.export())
    return Site(data, images, old, new, cases, told)


def kill_while_it_builds(options: tuple[object, ...], address: str, data: Path) -> None:
    command = [sys.executable, "-m", "nearcase", "library", "reembed", *map(str, options)]
    environment = os.environ | {"NEARCASE_SERVER": address}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while process.poll() is None and not (data / "library.next" / "library.json").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def copy_of(site: Site, folder: Path) -> Path:
    return shutil.copytree(site.data, folder / "data")


def digest(site: Site) -> str:
    return str(site.told["digest"])


def test_the_report_says_what_was_built_and_what_changes(site: Site) -> None:
    built = site.told["built"]
    assert isinstance(built, dict)
    assert (built["case_count"], built["missing"], built["refused"]) == (COUNT + 1, [], [])
    assert built["embedded_count"] + built["kept_count"] == COUNT + 1
    assert site.told["changed_meanwhile"] is False
    old, new = site.told["old"], site.told["new"]
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    assert (old["snapshot"], old["case_count"]) == (new["snapshot"], new["case_count"])
    comparison = site.told["comparison"]
    assert isinstance(comparison, dict)
    assert comparison["query_count"] == COUNT  # one has a flag
    assert 0 < comparison["overlap"]["mean"]["value"] < 1
    assert [label["name"] for label in comparison["labels"]] == ["mass"]
    assert site.told["recall"] == {"value": 1.0, "query_count": COUNT, "k": 10, "is_exact": True}
    page = (site.data / PAGE_NAME).read_text()
    assert digest(site) in page
    assert "overlap@10" in page
    assert read_report(site.data).digest == digest(site)


async def test_accepting_switches_and_keeps_the_old_library(site: Site, tmp_path: Path) -> None:
    data = copy_of(site, tmp_path)
    told = run("--data", data, "--accept", digest(site)[:16], "--json")
    kept = Path(json.loads(told.stdout)["kept"])
    assert kept.is_dir()
    assert kept.name.startswith("library.before-")
    assert not (data / "library.next").exists()
    encoder = open_encoder(site.new)
    with serving(data, "--encoder", str(site.new)) as server, Client(server.address) as client:
        cases = list(client.transfer.export())
        assert [stored.case for stored in cases] == [stored.case for stored in site.cases]
        by_instance = {stored.case.facts.instance_uid: stored for stored in cases}
        image = read_image((site.images / "5.dcm").read_bytes())
        batch = normalise(resize(image.pixels, encoder.card.recipe)[None], encoder.card.recipe)  # type: ignore[arg-type]
        found = by_instance[image.facts.instance_uid].vector
        assert float(found @ encoder.embed(batch)[0]) > 0.9999
        assert client.search(site.images / "5.dcm", own_patient=True, k=1).hits[0].similarity > 0.9999
    again = run("--data", data, "--accept", digest(site), expected=2)
    assert len(again.stderr.splitlines()) == 1


async def test_only_the_reported_libraries_are_switched(site: Site, tmp_path: Path) -> None:
    data = copy_of(site, tmp_path)
    with pytest.raises(InvalidInput, match="the digest of the last report"):
        await accept(data, "0" * 64, without_lost=False, now=NOW)
    with serving(data, "--encoder", str(site.old)) as server, Client(server.address) as client:
        with pytest.raises(Unready):
            await accept(data, digest(site), without_lost=False, now=NOW)
        client.library.update(case_id=site.cases[3].case.case_id, set_flags=("no-consent",))
    with pytest.raises(NotAllowed, match="changed since the report"):
        await accept(data, digest(site), without_lost=False, now=NOW)
    assert {path.name for path in data.iterdir()} >= {"library", "library.next"}
    stated = json.loads((data / JSON_NAME).read_text())
    (data / JSON_NAME).write_text(json.dumps(stated | {"changed_meanwhile": True}))
    with pytest.raises(InvalidInput, match="edited"):
        await accept(data, digest(site), without_lost=False, now=NOW)
    (data / JSON_NAME).unlink()
    with pytest.raises(NotFound):
        await accept(data, digest(site), without_lost=False, now=NOW)


async def test_a_crash_after_the_exchange_is_put_right(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = copy_of(site, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            await accept(data, digest(site), without_lost=False, now=NOW)
    identity = open_encoder(site.new).card.identity
    for name, is_new in (("library", True), ("library.next", False)):
        manifest = read_manifest(data / name)
        assert manifest is not None
        assert (manifest.encoder_identity == identity) is is_new
    done = await accept(data, digest(site), without_lost=False, now=NOW)
    assert done.kept.name == "library.before-20261123T090000Z"
    assert not (data / "library.next").exists()


def crash(*paths: object) -> None:
    raise KeyboardInterrupt


def test_lost_files_are_told_and_must_be_accepted(site: Site, tmp_path: Path) -> None:
    """A changed library is built again: only what is new is embedded, and who was erased goes."""
    data, images = copy_of(site, tmp_path), shutil.copytree(site.images, tmp_path / "images")
    (images / "3.dcm").unlink()
    with serving(data, "--encoder", str(site.old)) as server, Client(server.address) as client:
        (images / "new.dcm").write_bytes(scan(200, "new"))
        (images / "gone.dcm").write_bytes(scan(201, "gone"))
        assert len(list(client.add([AddItem(name, images / name) for name in ("new.dcm", "gone.dcm")]))) == 2
        (images / "gone.dcm").unlink()
        client.library.erase(patient_id="P5")
        options = ("--encoder", site.new, "--images", images, "--data", data)
        shown = run(*options, server=server.address)
        assert shown.stderr.count("no file found for case") == 1
        report = json.loads((data / JSON_NAME).read_text())
    built = report["built"]
    assert (built["embedded_count"], built["removed_count"], len(built["missing"])) == (1, 2, 1)
    refused = run("--data", data, "--accept", report["digest"], expected=2)
    assert "--without-lost" in refused.stderr
    run("--data", data, "--accept", report["digest"], "--without-lost")


def test_what_can_not_be_is_refused_in_one_line(site: Site, tmp_path: Path) -> None:
    data = copy_of(site, tmp_path)
    with serving(data, "--encoder", str(site.old)) as server:
        wrong = [
            ("--data", data),
            ("--data", data, "--encoder", site.old, "--images", site.images),
            ("--data", tmp_path / "elsewhere", "--encoder", site.new, "--images", site.images),
        ]
        for options in wrong:
            refused = run(*options, server=server.address, expected=2)
            assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert not np.isnan(read_report(data).lost_count)
