"""`nearcase decide` and `nearcase replay` as a user types them, on real images with a real fit."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from made_library import declare, finding_text, fitted_on, reference_of
from serving import picture, scan, serving

from nearcase.client import AddItem, Client
from nearcase.decide.record import read_record, write_record

pytestmark = pytest.mark.system
POINT = 'default_operating_point = "sensitivity-90-empirical"\n'
TEXT = finding_text("mass", POINT, scorer="k = 5")


@dataclass(frozen=True)
class Site:
    """A running server with a fitted finding, and an image to decide about."""

    address: str
    data: Path
    image: Path


def run(site: Site, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "nearcase", *map(str, arguments), "--server", site.address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    image = folder / "query.dcm"
    image.write_bytes(scan(99, "Q"))
    with serving(folder / "data") as server, Client(server.address) as client:
        items = [AddItem(str(n), scan(n, f"P{n}"), labels={"mass": str(n % 2)}) for n in range(24)]
        assert not [result.error for result in client.add(items) if result.error]
    declare(folder / "findings", TEXT, fitted_on(reference_of(folder / "data", TEXT), TEXT))
    with serving(folder / "data", "--findings", str(folder / "findings")) as server:
        yield Site(server.address, folder / "data", image)


def test_decide_prints_writes_and_replays(site: Site, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    asked = ("decide", site.image, "--finding", "mass", "--prevalence", "0.1")
    plain = run(site, *asked, "--report", page)
    assert plain.returncode == 0, plain.stderr
    assert "Record " in plain.stdout
    assert "not medical" in " ".join(plain.stdout.split())
    assert page.read_text().count('type="radio"') == 2
    assert "<title>Decision on the picture given</title>" in page.read_text()
    assert site.image.name not in page.read_text()  # a file may be named for its patient
    assert page.read_text().count("data:image/jpeg;base64,") == 6
    made = json.loads(run(site, *asked, "--json").stdout)["decisions"][0]
    assert made["call"] in ("positive", "negative"), made
    point = made["operating_point"]
    assert 0 < point["called_positive_patients"] <= point["positive_patients"]
    shown = f"{point['called_positive_patients']} patients with the finding"
    assert shown in " ".join(plain.stdout.split("Where a call is made: ")[1].split())
    assert f"{shown}, specificity" in page.read_text().split("<dt>Where a call is made</dt>")[1]
    replayed = run(site, "replay", made["record_id"], "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["decision"]["operating_point"] == point
    assert json.loads(replayed.stdout)["decision"]["score"] == made["score"]


def test_replay_tells_what_changed_and_refuses_an_edited_record(site: Site, tmp_path: Path) -> None:
    made = json.loads(run(site, "decide", site.image, "--finding", "mass", "--sensitivity", "0.5", "--json").stdout)
    record_id = made["decisions"][0]["record_id"]
    same = run(site, "replay", record_id, "--image", site.image)
    assert same.returncode == 0, same.stderr
    assert "Today's library gives the same." in same.stdout
    with Client(site.address) as client:
        (added,) = client.add([AddItem("new", scan(99, "Q2", SOPInstanceUID="1.9"), labels={"mass": "1"})])
        assert added.case_id
        told = json.loads(run(site, "replay", record_id, "--image", site.image, "--json").stdout)["changes"]
        assert client.erase(case_id=added.case_id) == 1
    changed = {change["what"]: change for change in told}
    assert {"library", "labelled cases", "call", f"case {added.case_id}"} <= set(changed)
    assert changed["reason"]["now"] == "LIBRARY_CHANGED"
    kept = site.data / "records" / record_id[:2] / f"{record_id}.json"
    assert kept.stat().st_mode & 0o077 == 0
    edited = tmp_path / "edited.json"
    edited.write_bytes(kept.read_bytes().replace(b'"labelled_count":24', b'"labelled_count":25'))
    refused = run(site, "replay", edited)
    assert refused.returncode == 2
    assert "edited" in refused.stderr
    assert run(site, "replay", kept).returncode == 0
    sound = read_record(kept.read_bytes())
    forged = dataclasses.replace(sound, origin=dataclasses.replace(sound.origin, at_s=sound.origin.at_s + 3600))
    kept.write_bytes(write_record(forged))  # sealed anew, as whoever can write the folder can
    for named in (record_id, kept):
        refused = run(site, "replay", named)
        assert (refused.returncode, "sealed anew" in refused.stderr) == (2, True), refused
    kept.write_bytes(write_record(sound))


def test_bad_questions_are_one_line_and_exit_2(site: Site, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}")
    for arguments in (
        ("decide", site.image, "--finding", "absent"),
        ("decide", site.image, "--finding", "mass", "--operating-point", "absent"),
        ("decide", site.image, "--finding", "mass", "--operating-point", "youden", "--sensitivity", "0.9"),
        ("decide", site.image, "--finding", "mass", "--sensitivity", "0.9999"),
        ("decide", site.image, "--finding", "mass", "--cost-ratio", "5"),
        ("replay", tmp_path / "no.json"),
        ("replay", tmp_path / "absent.json"),
        ("replay", "0" * 64),
    ):
        refused = run(site, *arguments)
        assert refused.returncode == 2, (arguments, refused)
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr


def test_an_image_that_states_nothing_is_decided_too(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "film.png"
    file.write_bytes(picture(3))
    done = run(site, "decide", file, "--finding", "mass", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["decisions"][0]["evidence"]
