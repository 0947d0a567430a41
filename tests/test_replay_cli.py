"""`nearcase replay` of everything that `nearcase decide` can be asked, and of what was tampered with on the way."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decisions import group
from dicom_files import dicom_file
from made_library import declare, finding_text, fitted_on, reference_of
from serving import picture, scan, serving

from nearcase.cli.app import run
from nearcase.client import AddItem, Client
from nearcase.decide.canonical import digest, dump
from nearcase.decide.fitted import Fitted
from nearcase.decide.groups import Group
from nearcase.decide.point import Pair
from nearcase.decide.record import read_record
from nearcase.types import Call, CaseFacts

pytestmark = pytest.mark.system
POINT = 'default_operating_point = "sensitivity-90-empirical"\n'
TEXT = finding_text("mass", POINT, scorer="k = 5")
YOUNG = finding_text("young", POINT, scorer="k = 5")
SERIES = "1.2.77.1"
Run = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Site:
    """A running server with a fitted finding, and files to decide about."""

    address: str
    data: Path
    files: Path

    def file(self, name: str) -> Path:
        return self.files / name


@pytest.fixture
def nearcase(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line here and returns its exit code, output and complaint."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run([str(each) for each in arguments])
        said = capsys.readouterr()
        return int(str(ended.value.code)), said.out, said.err

    return call


def frames() -> bytes:
    """Three frames that look different."""
    rng = np.random.default_rng(5)
    return dicom_file(rng.integers(0, 4096, (3, 64, 64)).astype(np.uint16), PatientID="Q")


def lying_at(number: int) -> bytes:
    """One slice of a series."""
    return scan(
        60 + number,
        "S",
        ImagePositionPatient=[0.0, 0.0, 3.0 * number],
        ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        PixelSpacing=[1.0, 1.0],
        FrameOfReferenceUID="1.2.8",
    )


def with_pair(fitted: Fitted) -> Fitted:
    ordered = sorted(fitted.points, key=lambda point: point.threshold)
    return replace(fitted, pairs=(Pair("in-and-out", ordered[-1].name, ordered[0].name),))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    files = folder / "files"
    (files / "series").mkdir(parents=True)
    for name, data in {
        "query.dcm": scan(99, "Q"),
        "other.dcm": scan(98, "Q"),
        "frames.dcm": frames(),
        "film.png": picture(3),
        **{f"series/{n}.dcm": lying_at(n) for n in range(3)},
    }.items():
        (files / name).write_bytes(data)
    with serving(folder / "data") as server, Client(server.address) as client:
        items = [AddItem(str(n), scan(n, f"P{n}"), labels={"mass": str(n % 2)}) for n in range(24)]
        ours = {"StudyInstanceUID": "1.2.77", "SeriesInstanceUID": SERIES}
        items += [AddItem(f"s{n}", scan(70 + n, "T", **ours), labels={"mass": "1"}) for n in range(2)]
        assert not [result.error for result in client.add(items) if result.error]
    fitted = with_pair(fitted_on(reference_of(folder / "data", TEXT), TEXT))
    declare(folder / "findings", TEXT, fitted)
    groups = (group("age", "18-40", 18.0, 40.0), Group("age", "40-90", False, 3, "too few", 40.0, 90.0))
    declare(folder / "findings", YOUNG, replace(fitted, groups=groups, familiarity=None))
    with serving(folder / "data", "--findings", str(folder / "findings")) as server:
        yield Site(server.address, folder / "data", files)


def decided(nearcase: Run, site: Site, *asked: object) -> str:
    """Decides and returns the id of the record of the finding mass."""
    code, out, err = nearcase("decide", *asked, "--json", "--server", site.address)
    assert code == 0, err
    return str(next(each["record_id"] for each in json.loads(out)["decisions"] if each["finding"] == "mass"))


def replayed(nearcase: Run, site: Site, record_id: object, *asked: object) -> list[dict[str, str]]:
    code, out, err = nearcase("replay", record_id, *asked, "--json", "--server", site.address)
    assert code == 0, err
    changes: list[dict[str, str]] = json.loads(out)["changes"]
    return changes


def refused(nearcase: Run, site: Site, *arguments: object) -> str:
    code, _, err = nearcase(*arguments, "--server", site.address)
    assert (code, len(err.strip().splitlines())) == (2, 1), err
    return err


FORMS: dict[str, tuple[list[str], list[str]]] = {
    "a file": (["@query.dcm"], ["--image", "@query.dcm"]),
    "a frame": (["@frames.dcm", "--frame", "3"], ["--image", "@frames.dcm", "--frame", "3"]),
    "a frame that the record knows": (["@frames.dcm", "--frame", "3"], ["--image", "@frames.dcm"]),
    "two files": (["@query.dcm", "@other.dcm"], ["--image", "@query.dcm", "--image", "@other.dcm"]),
    "a folder": (["@series"], ["--image", "@series"]),
    "a series": (["--series", SERIES], ["--series", SERIES]),
    "a study": (["--study", "1.2.77"], ["--study", "1.2.77"]),
    "a filter": (["@query.dcm", "--filter", "modality = CT"], ["--image", "@query.dcm"]),
    "a filter of ids": (
        ["@query.dcm", "--filter", "patient_key != '|PLANTED'"],
        ["--image", "@query.dcm", "--filter", "patient_key != '|PLANTED'"],
    ),
    "a pair": (["@query.dcm", "--operating-point", "in-and-out"], ["--image", "@query.dcm"]),
    "a target": (["@query.dcm", "--sensitivity", "0.5", "--prevalence", "0.1"], ["--image", "@query.dcm"]),
    "a cost": (["@query.dcm", "--cost-ratio", "100", "--prevalence", "0.5"], ["--image", "@query.dcm"]),
    "facts": (
        ["@film.png", "--patient", "P1", "--age", "50", "--sex", "f"],
        ["--image", "@film.png", "--patient", "P1", "--age", "50", "--sex", "f"],
    ),
    "copies": (["@query.dcm", "--near-duplicates", "0.95"], ["--image", "@query.dcm"]),
}


@pytest.mark.parametrize(
    ("form", "finding"),
    [*((form, ["--finding", "mass"]) for form in FORMS), ("a pair", []), ("a target", [])],
    ids=[*FORMS, "a pair of all findings", "a target of all findings"],
)
def test_whatever_was_asked_is_asked_again(nearcase: Run, site: Site, form: str, finding: list[str]) -> None:
    """Frame, filter, pair, number of images and what they are: asked again of the same library nothing differs."""
    asked, again = ([word.replace("@", f"{site.files}/") for word in words] for words in FORMS[form])
    record_id = decided(nearcase, site, *asked, *finding)
    assert replayed(nearcase, site, record_id, *again) == []
    kept = (site.data / "records" / record_id[:2] / f"{record_id}.json").read_bytes()
    assert not [planted for planted in (b"PLANTED", b"P1", SERIES.encode()) if planted in kept]


def test_a_case_is_asked_about_again_and_another_is_refused(nearcase: Run, site: Site) -> None:
    with Client(site.address) as client:
        one, other = (next(client.cases(f"patient_key = '|P{n}'")).case_id for n in (1, 2))
        (by_uid,) = client.cases("patient_key = '|P1'")
    record_id = decided(nearcase, site, "--case", one, "--finding", "mass")
    assert replayed(nearcase, site, record_id, "--case", one) == []
    assert "another" in refused(nearcase, site, "replay", record_id, "--case", other)
    assert by_uid.case_id == one


def test_the_number_of_neighbours_that_a_caller_set_is_asked_again(nearcase: Run, site: Site) -> None:
    with Client(site.address) as client:
        made = client.decide(site.file("query.dcm"), finding="mass", k=7).decisions[0]
    assert made.abstain_reason == "FINDING_CHANGED"
    assert replayed(nearcase, site, made.record_id, "--image", site.file("query.dcm")) == []


@pytest.mark.parametrize(
    ("asked", "again", "said"),
    [
        (["@query.dcm"], ["--image", "@other.dcm"], "SHA-256"),
        (["@query.dcm"], ["--image", "@query.dcm", "--image", "@other.dcm"], "one file"),
        (["@query.dcm"], ["--series", SERIES], "one file"),
        (["@query.dcm"], ["--image", "@query.dcm", "--study", "1.2.77"], "got something else"),
        (["@query.dcm"], ["--image", "@query.dcm", "--filter", "modality = CT"], "the filter that is in the record"),
        (["@query.dcm"], ["--image", "@query.dcm", "--age", "40"], "without --age"),
        (["@query.dcm"], ["--image", "@query.dcm", "--frame", "1"], "frames that were decided about"),
        (["@frames.dcm", "--frame", "3"], ["--image", "@frames.dcm", "--frame", "2"], "decided about (3)"),
        (["@query.dcm", "@other.dcm"], ["--image", "@query.dcm", "--image", "@query.dcm"], "SHA-256"),
        (["@series"], ["--image", "@query.dcm"], "several files"),
        (["--series", SERIES], ["--study", "1.2.77"], "a series of the library"),
        (["@film.png", "--patient", "P1", "--age", "9"], ["--image", "@film.png", "--patient", "P1"], "with --age"),
        (["@query.dcm", "--filter", "case_id != 'x'"], ["--image", "@query.dcm"], "give it with --filter"),
    ],
)
def test_what_was_not_decided_about_is_one_line(
    nearcase: Run, site: Site, asked: list[str], again: list[str], said: str
) -> None:
    asked, again = ([word.replace("@", f"{site.files}/") for word in words] for words in (asked, again))
    record_id = decided(nearcase, site, *asked, "--finding", "mass")
    assert said in refused(nearcase, site, "replay", record_id, *again)


def test_another_patient_shows_in_what_changed(nearcase: Run, site: Site) -> None:
    with Client(site.address) as client:
        nearest = client.search(site.file("film.png"), k=1).hits[0].case.facts.patient_id
    about = (site.file("film.png"), "--finding", "mass", "--patient")
    record_id = decided(nearcase, site, *about, "P23" if nearest != "P23" else "P22")
    changed = replayed(nearcase, site, record_id, "--image", site.file("film.png"), "--patient", nearest)
    assert any(change["what"].startswith("case ") for change in changed)


def test_a_series_that_grew_is_told_and_not_refused(nearcase: Run, site: Site) -> None:
    record_id = decided(nearcase, site, "--series", SERIES, "--finding", "mass")
    more = scan(75, "T", StudyInstanceUID="1.2.77", SeriesInstanceUID=SERIES)
    with Client(site.address) as client:
        (added,) = client.add([AddItem("more", more, labels={"mass": "1"})])
        changes = replayed(nearcase, site, record_id, "--series", SERIES)
        client.erase(case_id=added.case_id)
    assert {"image", "embedding", "library"} <= {change["what"] for change in changes}


def test_a_keyed_hash_is_compared_by_the_server(nearcase: Run, tmp_path: Path) -> None:
    key = tmp_path / "pseudonym.key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    for name, seed in (("query.dcm", 1), ("other.dcm", 2)):
        (tmp_path / name).write_bytes(scan(seed, "Q"))
    with serving(tmp_path / "data", "--deidentify", "--pseudonym-key", str(key)) as server:
        here = Site(server.address, tmp_path / "data", tmp_path)
        with Client(server.address) as client:
            items = [AddItem(str(n), scan(n, f"P{n}"), labels={"mass": "1"}) for n in range(3)]
            assert not [result.error for result in client.add(items) if result.error]
        record_id = decided(nearcase, here, here.file("query.dcm"), "--finding", "mass")
        assert replayed(nearcase, here, record_id, "--image", here.file("query.dcm")) == []
        assert "SHA-256" in refused(nearcase, here, "replay", record_id, "--image", here.file("other.dcm"))


# What came with a record


def kept(nearcase: Run, site: Site) -> bytes:
    record_id = decided(nearcase, site, site.file("query.dcm"), "--finding", "mass")
    return (site.data / "records" / record_id[:2] / f"{record_id}.json").read_bytes()


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "a key twice": lambda data: data.replace(b'{"body":', b'{"body":{"answer":"x"},"body":', 1),
    "a key twice within": lambda data: data.replace(b'"k":5', b'"k":50,"k":5', 1),
    "a number in other words": lambda data: data.replace(b'"k":5', b'"k":5e0', 1),
    "blanks": lambda data: data.replace(b'"k":5', b'"k": 5', 1),
    "NaN": lambda data: data.replace(b'"prevalence":null', b'"prevalence":NaN', 1),
    "a number without end": lambda data: data.replace(b'"k":5', b'"k":' + b"9" * 5000, 1),
    "a large number": lambda data: data.replace(b'"k":5', b'"k":' + b"9" * 4000, 1),
    "depth": lambda data: data.replace(b'"leaves":[', b'"leaves":' + b"[" * 100_000, 1),
    "less depth": lambda data: data.replace(b'"leaves":[', b'"leaves":' + b"[" * 900 + b"]" * 900 + b",[", 1),
    "half of it": lambda data: data[: len(data) // 2],
    "another format": lambda data: data.replace(b"nearcase-record/6", b"nearcase-record/9", 1),
    "17 MiB": lambda data: data + b" " * (17 * 2**20),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_json_is_one_line(nearcase: Run, site: Site, tmp_path: Path, what: str) -> None:
    data = kept(nearcase, site)
    edited = HOSTILE[what](data)
    assert edited != data
    file = tmp_path / "record.json"
    file.write_bytes(edited)
    said = refused(nearcase, site, "replay", file)
    assert "nearcase-record/6" in said
    assert len(said) < 400
    file.write_bytes(data.replace(b"\n", b"\r\n"))  # as a mail leaves it
    assert nearcase("replay", file)[0] == 0


def test_a_file_without_an_end_is_no_record(nearcase: Run, site: Site, tmp_path: Path) -> None:
    assert "bytes" in refused(nearcase, site, "replay", "/dev/zero")
    assert "can not be read" in refused(nearcase, site, "replay", tmp_path)


def test_a_record_of_an_older_form_says_so_and_an_edited_one_too(nearcase: Run, site: Site, tmp_path: Path) -> None:
    old = kept(nearcase, site).replace(b"nearcase-record/6", b"nearcase-record/3")
    file = tmp_path / "old.json"
    file.write_bytes(old)
    code, out, err = nearcase("replay", file, "--json")
    assert (code, json.loads(out)["error"]["reason"]) == (2, "RECORD_OLD")
    assert "the version that wrote it" in err
    file.write_bytes(old.replace(b'"k":5', b'"k":6'))
    code, out, _ = nearcase("replay", file, "--json")
    assert (code, json.loads(out)["error"]["reason"]) == (2, "RECORD_INVALID")


@pytest.mark.parametrize(
    "change",
    [{"source": "../../etc"}, {"frames": (0,) * 65}, {"frames": (-1,)}, {"k": 10**6}],
    ids=["source", "many frames", "frame", "k"],
)
def test_a_question_that_nobody_can_ask_is_no_record(
    nearcase: Run, site: Site, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Sealed anew, as anybody can: the seal is right, the content is not."""
    record = read_record(kept(nearcase, site))
    forged = json.loads(kept(nearcase, site))
    assert dataclasses.asdict(record.inquiry).keys() >= change.keys()
    forged["body"]["inquiry"] |= change
    (tmp_path / "forged.json").write_bytes(dump(forged | {"sha256": digest(forged["body"])}))
    assert "another shape" in refused(nearcase, site, "replay", tmp_path / "forged.json")


def test_a_pair_with_the_name_of_a_path_leads_nowhere(nearcase: Run, site: Site, tmp_path: Path) -> None:
    forged = json.loads(kept(nearcase, site))
    forged["body"]["inquiry"]["choice"] = {
        "name": "../../../etc/passwd\u001b[2J",
        "target_sensitivity": None,
        "target_specificity": None,
        "cost_ratio": None,
    }
    file = tmp_path / "forged.json"
    file.write_bytes(dump(forged | {"sha256": digest(forged["body"])}))
    said = refused(nearcase, site, "replay", file, "--image", site.file("query.dcm"))
    assert "passwd" not in said
    assert "\x1b" not in said


# Where a page can not be written


def records(site: Site) -> int:
    return len(list((site.data / "records").rglob("*.json")))


def test_a_page_that_could_not_be_written_is_refused_before_anything_is_asked(
    nearcase: Run, site: Site, tmp_path: Path
) -> None:
    before = records(site)
    for command in (("decide", site.file("query.dcm"), "--finding", "mass"), ("search", site.file("query.dcm"))):
        said = refused(nearcase, site, *command, "--report", tmp_path / "absent" / "page.html")
        assert "--report" in said
    assert records(site) == before


def test_a_decision_is_not_lost_with_its_page(nearcase: Run, site: Site) -> None:
    asked = ("decide", site.file("query.dcm"), "--finding", "mass", "--report", "/dev/full")
    code, out, err = nearcase(*asked, "--server", site.address)
    assert (code, len(err.strip().splitlines())) == (1, 1), err
    assert "No space left" in err
    assert "Record " in out


def test_facts_are_asked_for_in_words_that_decide_takes(nearcase: Run, site: Site) -> None:
    code, out, _ = nearcase("decide", site.file("film.png"), "--finding", "mass", "--server", site.address)
    assert code == 0
    assert "Note: The query states no patient" in out
    code, out, _ = nearcase("search", site.file("film.png"), "--patient", "P3", "-k", "30", "--server", site.address)
    assert (code, "Note:" in out) == (0, False)
    said = refused(nearcase, site, "decide", site.file("query.dcm"), "--patient", "PLANTED")
    assert "patient that the file states" in said
    assert "PLANTED" not in said
    assert "expected a file" in refused(nearcase, site, "search", "--series", SERIES, "--patient", "P3")
    assert "belong to a file" in refused(nearcase, site, "decide", "--series", SERIES, "--patient", "P3")


def test_a_group_that_is_not_stated_is_asked_for_and_with_it_a_call_is_made(nearcase: Run, site: Site) -> None:
    film, young = site.file("film.png"), ("--finding", "young")
    with Client(site.address) as client:
        (unstated,) = client.decide(film, finding="young").decisions
        (stated,) = client.decide(film, finding="young", facts=CaseFacts(age_years=30.0)).decisions
        (other,) = client.decide(film, finding="young", facts=CaseFacts(age_years=50.0)).decisions
    assert unstated.abstain_reason == other.abstain_reason == "GROUP_NOT_VALIDATED"
    assert "give the age (facts.age_years, --age)" in unstated.explanation
    assert "give the" not in other.explanation
    assert stated.call in (Call.POSITIVE, Call.NEGATIVE)
    code, out, _ = nearcase("decide", film, *young, "--server", site.address)
    assert code == 0
    assert "--age" in out
    code, out, _ = nearcase("decide", film, *young, "--age", "30", "--json", "--server", site.address)
    assert (code, json.loads(out)["decisions"][0]["call"]) == (0, stated.call.value)
    record_id = json.loads(out)["decisions"][0]["record_id"]
    changed = replayed(nearcase, site, record_id, "--image", film, "--age", "50")
    assert {"groups", "call", "reason"} <= {change["what"] for change in changed}
